"""Captions for real pictures from a vision-language model (LLaVA-1.5), as GeoSynth's were made.

    python -m training.caption_vlm --images DIR --model runs/llava-1.5-7b-hf --out captions.jsonl

``--images`` is a folder of pictures or a manifest of pairs (``.jsonl``); the result is a manifest
whose lines keep what they had and gain a prompt. A run that was stopped goes on where it was: what
stands in the output is not asked again. The model wants a GPU of 16 GB; weights come from a folder,
from below TERRASCAPE_HOME, or with --online from the Hub.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from generation.console import Parser, Progress, guarded, whole
from generation.encoders.captioner import load_captioner
from generation.errors import ConfigError, InvalidSpecError, MissingFileError, OutputError
from generation.media.image import open_rgb

MODEL = "llava"
QUESTION = "Describe the contents of the image"
MAX_NEW_TOKENS = 76
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


def read_requests(images: Path) -> list[dict[str, Any]]:
    """List what is to be described: the lines of a manifest, or a folder's pictures by name.

    Raises:
        MissingFileError: There is no such folder or manifest.
        ConfigError: A line is no object with an image; or there is no picture.
    """
    if images.is_dir():
        found = sorted(p for p in images.rglob("*") if p.suffix.lower() in _PICTURES)
        rows: list[dict[str, Any]] = [{"image": str(path.relative_to(images))} for path in found]
    elif images.is_file():
        rows = list(_objects(images, images.read_bytes()))
    else:
        raise MissingFileError(f"--images {images} is neither a folder nor a manifest")
    if not rows:
        raise ConfigError(f"--images {images} has no pictures ({', '.join(_PICTURES)} are read)")
    return rows


def already_told(out: Path) -> set[str]:
    """Names of the pictures that the output describes; a line cut off by a crash is taken away.

    Raises:
        OutputError: The file is something else.
    """
    if not out.exists():
        return set()
    kept, newline, torn = out.read_bytes().rpartition(b"\n")
    try:
        rows = list(_objects(out, kept))
    except ConfigError as error:
        raise OutputError(f"--out: {error} (name another file)") from error
    if torn and not torn.startswith(b"{"):
        raise OutputError(f"--out: {out} ends in no caption (name another file)")
    if torn:
        with out.open("r+b") as file:
            file.truncate(len(kept + newline))
    return {row["image"] for row in rows if isinstance(row.get("prompt"), str)}


def caption_all(
    describe: Callable[[UInt8[np.ndarray, "height width 3"]], str],
    requests: Sequence[dict[str, Any]],
    images: Path,
    out: Path,
) -> int:
    """Describe every picture that the output lacks, a whole line at a time.

    Args:
        describe: Picture to caption, such as a ``Captioner`` with a question.
        requests: What :func:`read_requests` gave.
        images: What it was given.
        out: The manifest to write to the end of.

    Returns:
        How many pictures could not be read; each is told on stderr.
    """
    folder = images if images.is_dir() else images.parent
    done, failed = already_told(out), 0
    left = [row for row in requests if row["image"] not in done]
    progress = Progress("captions")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        for count, row in enumerate(left, start=1):
            try:
                prompt = describe(open_rgb(folder / row["image"]))
            except (MissingFileError, InvalidSpecError) as error:
                failed += 1
                sys.stderr.write(f"{error}\n")
                continue
            file.write(json.dumps({**row, "prompt": prompt}, ensure_ascii=False) + "\n")
            file.flush()
            progress(count, len(left))
    return failed


def _objects(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text (a manifest of JSON lines is needed)") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("image"), str):
            raise ConfigError(f"{path}, line {number}: no object with an image (one JSON a line)")
        yield row


def main(argv: Sequence[str] | None = None) -> int:
    """Describe the pictures of a folder or a manifest."""
    words = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        parser = Parser(
            prog="training.caption_vlm",
            description=__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--images", type=Path, required=True, help="a folder or a manifest")
        parser.add_argument("--out", type=Path, required=True, help="the manifest to write")
        parser.add_argument("--model", default=MODEL, help="a folder, or a registered name")
        parser.add_argument("--online", action="store_true", help="allow the Hub")
        parser.add_argument("--limit", type=whole, help="describe the first N only")
        args = parser.parse_args(words)
        requests = read_requests(args.images)[: args.limit]
        told = already_told(args.out)
        if all(row["image"] in told for row in requests):
            return 0
        captioner = load_captioner(args.model, online=args.online)
        describe = partial(captioner, question=QUESTION, max_new_tokens=MAX_NEW_TOKENS)
        return 2 if caption_all(describe, requests, args.images, args.out) else 0

    return guarded("training.caption_vlm", work)


if __name__ == "__main__":
    sys.exit(main())
