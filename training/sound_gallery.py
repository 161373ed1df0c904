"""Build a gallery of tiles, clips and captions for ``terrascape search``.

    python -m training.sound_gallery --tiles runs/tiles --pairs runs/sound_pairs \
        --model sat2sound-nano --out assets/gallery-nano

Every tile is seen as the middle of it, and without its place: what the space is told of place and
time is told when a question is asked. Of every clip the first five seconds are heard.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from generation.console import Parser, Progress, guarded, whole
from generation.encoders.gallery import Gallery
from generation.encoders.gallery_rows import Entry, Maker
from generation.encoders.heads import Embedding
from generation.encoders.sound_encoder import SoundEncoder
from generation.errors import ConfigError, MissingFileError, OutputError
from generation.geo.mercator import TILE_PX, Window
from generation.search import named_encoder
from training.sound_pairs import SAID

VIEW_PX = 128
"""Side of the middle of a tile that is seen, of three sides that the spaces learn from."""
Part = tuple[list[Entry], Embedding]


def tile_rows(encoder: SoundEncoder, tiles: Path, batch: int) -> Part:
    """Describe and embed the tiles of a folder of :mod:`training.data`, in its order.

    Raises:
        MissingFileError: The folder holds no tiles.
        ConfigError: Its files do not fit each other.
    """
    _present(tiles, ("images.npy", "rows.npy"), "training.data")
    images = np.load(tiles / "images.npy", mmap_mode="r")
    rows = np.load(tiles / "rows.npy")
    titles = _titles(tiles, len(rows))
    if len(images) != len(rows):
        raise ConfigError(f"{tiles} has {len(images)} images of {len(rows)} tiles (build it again)")
    entries = [
        _tile(Window(zoom, col, row, TILE_PX, TILE_PX), title)
        for (zoom, col, row), title in zip(rows[:, :3].astype(int).tolist(), titles, strict=True)
    ]
    gsd = np.array([entry.gsd_m for entry in entries], np.float32)
    start = (TILE_PX - VIEW_PX) // 2
    middle = slice(start, start + VIEW_PX)

    def embed(part: slice) -> Embedding:
        return encoder.image(np.array(images[part, middle, middle]), gsd[part])

    return entries, _batched(embed, "tiles", len(rows), batch)


def clip_rows(encoder: SoundEncoder, pairs: Path, batch: int) -> Part:
    """Describe and embed the clips of a folder of :mod:`training.sound_pairs`, each once.

    Raises:
        MissingFileError: The folder holds no clips.
        ConfigError: Its files do not fit each other.
    """
    _present(pairs, ("clips.json", "mels.npy"), "training.sound_pairs")
    clips = json.loads((pairs / "clips.json").read_text(encoding="utf-8"))
    mels = np.load(pairs / "mels.npy", mmap_mode="r")
    if len(mels) != len(clips):
        raise ConfigError(f"{pairs} has {len(mels)} sounds of {len(clips)} clips (build it again)")
    heard = (encoder.mel.bands, encoder.space.audio.frames)
    if mels.shape[1:] != heard:
        raise ConfigError(
            f"{pairs} has spectrograms of {mels.shape[1]}x{mels.shape[2]}, {encoder.name} hears "
            f"{heard[0]}x{heard[1]} (give a space that was trained on such pairs)"
        )
    entries = [
        Entry(
            kind="clip",
            title=f"{clip['label']}: {clip['title']}",
            licence=clip["licence"],
            author=clip["author"],
            url=clip["url"],
            month=None if clip["month"] is None else int(clip["month"]),
            hour=None if clip["hour"] is None else float(clip["hour"]),
        )
        for clip in clips
    ]

    @torch.no_grad()
    def embed(part: slice) -> Embedding:
        sounds = torch.from_numpy(mels[part].astype(np.float32))
        embedding: Embedding = encoder.space.embed_audio(sounds.to(encoder.device))
        return embedding

    return entries, _batched(embed, "clips", len(clips), batch)


def caption_rows(encoder: SoundEncoder, batch: int) -> Part:
    """Describe and embed what is said of sounds."""
    said = [phrase for phrases in SAID.values() for phrase in phrases]
    entries = [
        Entry(kind="caption", title=phrase, licence="Apache-2.0", author="Terrascape")
        for phrase in said
    ]
    return entries, _batched(lambda part: encoder.text(said[part]), "captions", len(said), batch)


def _tile(window: Window, title: str | None) -> Entry:
    name = f"{window.zoom}/{window.col_px // TILE_PX}/{window.row_px // TILE_PX}"
    return Entry(
        kind="tile",
        title=title or f"tile {name}",
        licence="NASA open data",
        author="NASA Earth Observatory",
        lat=window.center.lat,
        lon=window.center.lon,
        gsd_m=window.gsd_m,
        location_source="real",
    )


def _titles(tiles: Path, count: int) -> list[str | None]:
    """Give the first composed caption of each tile, where there are any."""
    path = tiles / "captions.json"
    if not path.is_file():
        return [None] * count
    texts: list[str] = json.loads(path.read_text(encoding="utf-8"))
    if not texts or len(texts) % count:
        raise ConfigError(
            f"{path} has {len(texts)} captions of {count} tiles (make them again: python -m "
            "training.data --help)"
        )
    return list(texts[:: len(texts) // count])


def _batched(embed: Callable[[slice], Embedding], what: str, count: int, batch: int) -> Embedding:
    progress, parts = Progress(what), []
    for start in range(0, count, batch):
        end = min(start + batch, count)
        parts.append(embed(slice(start, end)))
        progress(end, count)
    return Embedding.cat(parts)


def _present(folder: Path, names: Sequence[str], maker: str) -> None:
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise MissingFileError(
            f"{folder} lacks {', '.join(absent)} (build it: python -m {maker} --help)"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Build the gallery."""
    code = guarded("training.sound_gallery", lambda: _run(argv))
    if code:
        raise SystemExit(code)


def _run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="training.sound_gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--pairs", type=Path, required=True, metavar="DIR", help="what training.sound_pairs built")
    add("--tiles", type=Path, required=True, metavar="DIR", help="what training.data built")
    add("--model", required=True, help="a name or a folder of weights")
    add("--out", required=True, metavar="URI", help="a new folder, or s3:// and the like")
    add("--batch", type=whole, default=64, metavar="N", help="embedded at once, 1 to 4096")
    args = parser.parse_args(argv)
    if not 1 <= args.batch <= 4096:
        raise ConfigError(f"--batch {args.batch} is not allowed (give 1 to 4096)")
    if Path(args.out).exists():
        raise OutputError(f"{args.out} exists and is not overwritten (choose another)")
    encoder = named_encoder(args.model)
    parts = (
        tile_rows(encoder, args.tiles, args.batch),
        clip_rows(encoder, args.pairs, args.batch),
        caption_rows(encoder, args.batch),
    )
    entries = [entry for part, _ in parts for entry in part]
    embedding = Embedding.cat([part for _, part in parts])
    Gallery.create(args.out, Maker.of(encoder), entries, embedding)


if __name__ == "__main__":
    main()
