"""A database of RANGE from anyone's images: each row's key, value and place come from one image.

Published databases were put together from lists in different orders; here a row is read, hashed
and embedded as one, so that nothing can shift. A build that was stopped goes on where it was.

Source:
    Dhakal et al. (CVPR 2025), §3.2, for what a database holds.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.atomic import atomic_folder
from generation.checkpoint import load_safetensors, save_safetensors, sha256_file
from generation.encoders.retrieval import RetrievalDatabase
from generation.encoders.retrieval_model import Retrieval, save_retrieval, towers_sha256
from generation.errors import InvalidSpecError, MissingFileError, OutputError, TerrascapeError
from generation.geo.location import Location
from generation.media.image import decode_rgb

COLUMNS = ("image", "lat", "lon")
_PART = 256
"""Rows that are finished, and kept, together."""
_PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Built:
    """What a build came to."""

    rows: int
    resumed: int
    """Of these, rows that an earlier run had finished."""
    repeated: int
    """Rows whose image another row has as well."""


def build_database(
    files: Sequence[Path],
    base: Retrieval,
    out: Path,
    *,
    licence: str = "",
    on_rows: Callable[[int, int], None] | None = None,
) -> Built:
    """Embed the images of Parquet files and write a folder of RANGE that needs nothing else.

    Args:
        files: With the columns ``image`` (bytes, or a struct with bytes), ``lat`` and ``lon``;
            images of one size, upright, and of about one scale.
        base: Whose encoders embed them.
        out: A folder that is not there yet; what is not finished lies in ``out`` + ``.parts``.
        licence: Of the images, kept beside the rows.
        on_rows: Told ``(rows done, rows in all)``.

    Raises:
        InvalidSpecError: A row has no image or no place; it is named.
        MissingFileError: There is no such file.
        OutputError: ``out`` is there already, or its parts are those of another build.
        WeightsError: The base reads no images.
    """
    if out.exists():
        raise OutputError(f"{out} is there already (nothing is overwritten; name a new folder)")
    plan = _plan(files, base)
    parts = out.with_name(out.name + ".parts")
    _begin(parts, plan)
    total, done, resumed = int(plan["rows"]), 0, 0
    found: list[dict[str, Tensor]] = []
    for number, rows in enumerate(_batches(files)):
        path = parts / f"{number:06}.safetensors"
        if path.is_file():
            part = load_safetensors(path)
            resumed += len(part["latlon"])
        else:
            part = _embedded(rows(), base, tuple(plan["px"]))
            save_safetensors(part, path)
        found.append(part)
        done += len(part["latlon"])
        if on_rows is not None:
            on_rows(done, total)
    tensors = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    hashes = tensors["sha256"].numpy()
    repeated = len(hashes) - len(np.unique(hashes, axis=0))
    about = {
        "rows": total,
        "key_dim": tensors["keys"].shape[1],
        "value_dim": tensors["values"].shape[1],
        "towers_sha256": plan["towers_sha256"],
        "files": plan["files"],
        "licence": licence,
    }
    database = RetrievalDatabase(tensors["latlon"], tensors["keys"], tensors["values"], about)
    with atomic_folder(out) as folder:
        save_retrieval(folder, base.settings, base.location, base.image_tower, database, hashes)
    shutil.rmtree(parts, ignore_errors=True)
    return Built(total, resumed, repeated)


def _plan(files: Sequence[Path], base: Retrieval) -> dict[str, Any]:
    """Say what decides every row, so that parts of another build are never taken for ours."""
    import pyarrow.parquet as pq

    if not files:
        raise MissingFileError("no Parquet file to read (give one file or more)")
    named = [{"name": file.name, "sha256": sha256_file(file)} for file in files]
    rows = 0
    for file in files:
        with _told(file):
            table = pq.ParquetFile(file)
            absent = [name for name in COLUMNS if name not in table.schema_arrow.names]
            rows += table.metadata.num_rows
        if absent:
            raise InvalidSpecError(
                f"{file.name} has no column {' or '.join(absent)} (give image, lat and lon)"
            )
    if not rows:
        raise InvalidSpecError("the files hold no rows (give Parquet files that have some)")
    where, first = next(_batches(files))()[0]
    image = decode_rgb(_bytes_of(first["image"], where), where)
    return {
        "files": named,
        "rows": rows,
        "px": [image.shape[1], image.shape[0]],
        "part": _PART,
        "towers_sha256": towers_sha256(base.location, base.image_tower),
    }


def _begin(parts: Path, plan: dict[str, Any]) -> None:
    path = parts / _PLAN
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != plan:
            raise OutputError(
                f"{parts} holds the parts of a build of other files, or by other encoders (remove "
                "the folder, or name another --out)"
            )
        return
    with atomic_folder(parts) as folder:
        (folder / _PLAN).write_text(json.dumps(plan), encoding="utf-8")


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Let Arrow read a file; its errors become ours."""
    import pyarrow

    try:
        yield
    except TerrascapeError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidSpecError(
            f"{file}: not readable as Parquet: {str(error)[:120]} (give a whole .parquet file)"
        ) from error


def _batches(files: Sequence[Path]) -> Iterator[Callable[[], list[tuple[str, dict[str, Any]]]]]:
    """Yield what reads each part; parts that are finished are never decoded."""
    import pyarrow.parquet as pq

    for file in files:
        at = 0
        with _told(file):
            table = pq.ParquetFile(file)
            for batch in table.iter_batches(batch_size=_PART, columns=list(COLUMNS)):
                first = at + 1
                at += len(batch)

                def rows(
                    batch: Any = batch,  # noqa: ANN401 - pyarrow is imported late
                    first: int = first,
                    name: str = file.name,
                ) -> list[tuple[str, dict[str, Any]]]:
                    return [
                        (f"{name}, row {first + i}", row) for i, row in enumerate(batch.to_pylist())
                    ]

                yield rows


def _embedded(
    rows: list[tuple[str, dict[str, Any]]], base: Retrieval, size: tuple[int, ...]
) -> dict[str, Tensor]:
    images, places, hashes = [], [], []
    for where, row in rows:
        raw = _bytes_of(row["image"], where)
        image = decode_rgb(raw, where)
        if (image.shape[1], image.shape[0]) != size:
            raise InvalidSpecError(
                f"{where}: an image of {image.shape[1]}x{image.shape[0]} px among those of "
                f"{size[0]}x{size[1]} px (cut all to one size at one scale, since a look is "
                "measured in pixels)"
            )
        images.append(image)
        places.append(_place(row, where))
        hashes.append(np.frombuffer(hashlib.sha256(raw).digest(), np.uint8))
    looks, keys = base.read(np.stack(images))
    return {
        "latlon": torch.tensor(places, dtype=torch.float32),
        "keys": keys,
        "values": looks,
        "sha256": torch.from_numpy(np.stack(hashes)),
    }


def _bytes_of(cell: object, where: str) -> bytes:
    raw = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(raw, bytes) or not raw:
        raise InvalidSpecError(f"{where}: no image (give the bytes of a PNG, JPEG, WebP or TIFF)")
    return raw


def _place(row: dict[str, Any], where: str) -> tuple[float, float]:
    lat, lon = row["lat"], row["lon"]
    if not (isinstance(lat, int | float) and isinstance(lon, int | float)):
        raise InvalidSpecError(f"{where}: lat={lat!r}, lon={lon!r} is no place (give degrees)")
    try:
        place = Location(float(lat), float(lon))
    except TerrascapeError as error:
        raise InvalidSpecError(f"{where}: {error}") from error
    return place.lat, place.lon
