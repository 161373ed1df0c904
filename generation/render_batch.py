"""Render many places: ``python generation/render_batch.py REQUESTS --out DIR``.

REQUESTS holds one RunSpec a line as JSON, ``{"lat": 45.98, "lon": 7.66, "seed": 7}``, or is a .csv
whose header names the fields (an empty cell takes the default). A row that cannot be rendered is
written to DIR/failed.jsonl with the reason, and the run goes on. Started again, it skips what the
same weights drew, with the same use of the network, and what is still whole; anything else of a
row's name is kept, and the row is drawn anew beside it. ``--shard 2/4`` takes every fourth row from
the second on, so that several processes or machines share the work.
"""

import argparse
import csv
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

if not __package__ and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    # Run as a script, Python looks for modules beside it first: look beside the package instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from generation.checkpoint import model_sha256
from generation.console import DONE, OURS, THEIRS, Parser, Progress, guarded
from generation.errors import (
    CancelledError,
    InvalidSpecError,
    MissingFileError,
    OutputError,
    TerrascapeError,
)
from generation.media.artifact import Renderer, find_done, save_render, stem_of
from generation.media.folder import atomic_write, output_folder
from generation.pipelines.kinds import renderer_for
from generation.registry import find, locate
from generation.spec import RunSpec

FAILED = "failed.jsonl"
MAX_WORKERS = 64
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class Row:
    """One request, not yet read."""

    number: int
    """Its place among the requests, from 1."""
    request: str | dict[str, str]
    """A JSON text, or the filled cells of a CSV row."""
    problem: str = ""
    """Why the row cannot even be read."""

    def spec(self) -> RunSpec:
        """Read the request.

        Raises:
            InvalidSpecError: It describes nothing that can be rendered.
            MissingFileError: Its layout file is not there.
        """
        if self.problem:
            raise InvalidSpecError(self.problem)
        if isinstance(self.request, str):
            return RunSpec.from_json(self.request).pinned()
        return RunSpec.from_dict(_from_cells(self.request)).pinned()


@dataclass
class Tally:
    """What became of the rows."""

    total: int
    done: int = 0
    skipped: int = 0
    failed: int = 0
    beside: int = 0
    """Of those done, the ones whose name was taken by files that are kept."""
    ours: int = 0
    """Of the failed ones, those whose cause is a mistake of ours."""

    @property
    def seen(self) -> int:
        """Rows that were dealt with."""
        return self.done + self.skipped + self.failed

    @property
    def exit_code(self) -> int:
        """0: every row is there; 2: some requests were refused; 1: some failed through us."""
        if self.ours:
            return OURS
        return THEIRS if self.failed else DONE


def read_rows(path: Path, shard: tuple[int, int] = (1, 1)) -> Iterator[Row]:
    """Give the requests of a .jsonl or .csv file, blank lines left out.

    Args:
        path: The file, UTF-8.
        shard: ``(i, n)``: the rows i, i + n, i + 2n, …, counted from 1.

    Raises:
        MissingFileError: There is no such file.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    first, step = shard
    for number, (request, problem) in enumerate(rows, start=1):
        if (number - first) % step == 0:
            yield Row(number, request, problem)


def run_batch(
    requests: Path,
    out: Path,
    *,
    shard: tuple[int, int] = (1, 1),
    online: bool = False,
    renderer: Renderer | None = None,
    fingerprint: Callable[[str], str] | None = None,
) -> Tally:
    """Render every request of a file; the manifests' paths go to stdout, one a line.

    Args:
        requests: A .jsonl or .csv file.
        out: Folder of the results.
        shard: Which share of the rows, ``(i, n)``.
        online: Whether layouts may come from the network.
        renderer: What renders; by default the pipeline of each row's kind.
        fingerprint: Gives the hash of the weights with which it renders, by the model's name; by
            default that of the registered model. Asked once for each model, and only when the
            folder holds a render of a row's name.

    Raises:
        MissingFileError: There is no such file of requests.
        OutputError: The folder cannot be written to; what was finished stays.
    """
    tally = Tally(total=sum(1 for _ in read_rows(requests, shard)))
    progress = Progress("rows")
    weights = cache(fingerprint or partial(weights_sha256, online=online))
    with output_folder(out):
        _forget(out, shard)
        for row in read_rows(requests, shard):
            try:
                manifest = _do_row(row, out, tally, weights, renderer=renderer, online=online)
                print(manifest, flush=True)
            except (OutputError, CancelledError, BrokenPipeError):
                raise
            except Exception as error:  # noqa: BLE001  # one bad row never stops the run
                _note_failure(_failures_file(out, shard), row, error)
                tally.failed += 1
                tally.ours += not isinstance(error, TerrascapeError)
            progress(tally.seen, tally.total)
    return tally


def summary(tally: Tally, out: Path) -> str:
    """Say in one line what became of the rows."""
    beside = f" ({tally.beside} of them beside an earlier picture, which is kept)"
    drawn = f"{tally.done} rendered{beside if tally.beside else ''}"
    text = f"{drawn}, {tally.skipped} there already, {tally.failed} failed"
    where = f" (see failed*.jsonl in {out}; mend these rows and start again)"
    return text + (where if tally.failed else "")


def run_workers(requests: Path, out: Path, *, workers: int, online: bool = False) -> Tally:
    """Share a batch among processes on this machine, one share each.

    Args:
        requests: A .jsonl or .csv file.
        out: Folder of the results.
        workers: Processes, 1 to ``MAX_WORKERS``.
        online: Whether layouts may come from the network.

    Raises:
        InvalidSpecError: There cannot be that many workers.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise InvalidSpecError(f"workers={workers} is not allowed (give 1 to {MAX_WORKERS})")
    _opened(requests).close()
    shares = [(i, workers) for i in range(1, workers + 1)]
    threads = max(1, (os.cpu_count() or 1) // workers)
    with (
        output_folder(out),
        ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=_limit_threads, initargs=(threads,)
        ) as pool,
    ):
        _forget(out)
        jobs = [
            pool.submit(run_batch, requests, out, shard=share, online=online) for share in shares
        ]
        tallies = [job.result() for job in jobs]
        _merge_failures(out, shares)
    return Tally(
        **{
            field.name: sum(getattr(tally, field.name) for tally in tallies)
            for field in dataclasses.fields(Tally)
        }
    )


def weights_sha256(name: str, *, online: bool) -> str:
    """Give the hash that a registered pipeline writes into its pictures, without loading it.

    Args:
        name: A registered name or alias.
        online: Whether weights may be fetched from the Hub.

    Raises:
        InvalidSpecError: No model has this name.
        MissingFileError: Its weights are not here.
        NetworkError: The Hub was asked and did not answer.
    """
    card = find(name)
    if card.family == "geosynth":  # its parts lie in several folders; finding them needs torch
        from generation.pipelines.folders import find_folders

        return find_folders(card.name, online=online).sha256()
    if card.family == "mixed-view":
        from generation.pipelines.panorama_sd import mixed_view_sha256

        return mixed_view_sha256(card.name, online=online)
    return model_sha256(locate(card.name))


def read_shard(text: str) -> tuple[int, int]:
    """Read ``i/n`` of the command line."""
    first, _, step = text.partition("/")
    if first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step):
        return int(first), int(step)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is no share (give 1/4 to 4/4 for quarters)")


def main(argv: list[str] | None = None) -> int:
    """Read the command line and render."""
    parser = Parser(prog="render_batch", description=__doc__.split("\n")[0])
    parser.add_argument("requests", type=Path, help="a .jsonl or .csv file of requests")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--online", action="store_true", help="let layouts come from Overpass")
    parser.add_argument("--shard", type=read_shard, default=(1, 1), help="i/n, such as 1/4")

    def work() -> int:
        args = parser.parse_args(argv)
        tally = run_batch(args.requests, args.out, shard=args.shard, online=args.online)
        print(f"render_batch: {summary(tally, args.out)}", file=sys.stderr)
        return tally.exit_code

    return guarded("render_batch", work)


def _do_row(
    row: Row,
    out: Path,
    tally: Tally,
    weights: Callable[[str], str],
    *,
    renderer: Renderer | None,
    online: bool,
) -> Path:
    """Render a row unless that is done, and give its manifest."""
    spec = row.spec()
    done, others = find_done(out, spec, model_sha256=weights, online=online)
    if done is not None:
        tally.skipped += 1
        return done
    draw = renderer or renderer_for(spec.kind)
    manifest = save_render(draw(spec, online=online), out)[-1]
    tally.done += 1
    if manifest.stem != stem_of(spec):
        tally.beside += 1
        kept = ", ".join(others) or f"other files named {stem_of(spec)}"
        print(
            f"row {row.number}: drawn as {manifest.name}, beside what is kept: {kept}",
            file=sys.stderr,
        )
    return manifest


def _json_rows(path: Path) -> Iterator[tuple[str, str]]:
    with _opened(path) as file:
        for line in file:
            if line.strip():
                yield line.strip(), ""


def _csv_rows(path: Path) -> Iterator[tuple[str | dict[str, str], str]]:
    with _opened(path) as file:
        reader = csv.reader(file)
        header: list[str] = []
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield "", f"line {reader.line_num} is no CSV: {error} (save the table again)"
                continue
            if not header:
                header = [name.strip() for name in cells]
            elif len(cells) > len(header):
                yield (
                    ",".join(cells),
                    f"{len(cells)} cells under {len(header)} names (quote commas)",
                )
            elif any(cells):
                pairs = zip(header, cells, strict=False)  # missing cells at the end are empty ones
                yield {name: cell for name, cell in pairs if cell}, ""


def _opened(path: Path) -> TextIO:
    """Open the requests; bytes that are no UTF-8 pass as surrogates, which RunSpec refuses."""
    try:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise MissingFileError(
            f"requests={str(path)!r} cannot be read: {error.strerror} (give a .jsonl or .csv file)"
        ) from error


def _from_cells(cells: dict[str, str]) -> dict[str, object]:
    """Turn the texts of a CSV row into the fields' types; what is no number stays a text."""
    types = {field.name: field.type for field in dataclasses.fields(RunSpec)}
    values: dict[str, object] = {}
    for name, cell in cells.items():
        try:
            values[name] = _from_cell(cell, types.get(name))
        except ValueError:
            values[name] = cell
    return values


def _from_cell(cell: str, kind: object) -> object:
    if kind is bool and cell.strip().lower() in (*_TRUE, *_FALSE):
        return cell.strip().lower() in _TRUE
    if kind is int:
        return int(cell)
    return float(cell) if kind is float else cell


def _limit_threads(threads: int) -> None:
    """Give a worker its share of the cores, before torch is loaded and takes them all."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _failures_file(out: Path, shard: tuple[int, int]) -> Path:
    return out / (FAILED if shard[1] == 1 else f"failed.{shard[0]}of{shard[1]}.jsonl")


def _forget(out: Path, shard: tuple[int, int] = (1, 1)) -> None:
    """Drop the list of an earlier run's failures; a run over all rows drops those of all shares."""
    pattern = "failed*.jsonl" if shard[1] == 1 else _failures_file(out, shard).name
    for path in out.glob(pattern):
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(
                f"{path} cannot be replaced: {error.strerror} (give another folder)"
            ) from error


def _merge_failures(out: Path, shares: list[tuple[int, int]]) -> None:
    files = [path for path in (_failures_file(out, share) for share in shares) if path.exists()]
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    if lines:
        ordered = sorted(lines, key=lambda line: int(json.loads(line)["row"]))
        atomic_write(out / FAILED, b"\n".join(ordered) + b"\n")
    for path in files:
        path.unlink()


def _note_failure(failures: Path, row: Row, error: Exception) -> None:
    told = str(error) if isinstance(error, TerrascapeError) else f"{type(error).__name__}: {error}"
    line = json.dumps({"row": row.number, "error": told, "request": row.request})
    print(f"row {row.number}: {' '.join(told.split())}", file=sys.stderr)
    try:
        with failures.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as failure:
        raise OutputError(
            f"{failures} cannot be written: {failure.strerror} (free some space, or give another "
            "folder)"
        ) from failure


if __name__ == "__main__":
    sys.exit(main())
