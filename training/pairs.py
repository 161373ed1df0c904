"""Pairs of a picture and what it should follow, listed in a manifest, for the full-size models.

A manifest of lines (``.jsonl``) has an object a line, with paths beside the manifest::

    {"image": "a.jpg", "layout": "a_map.png", "prompt": "The image …", "lat": 1.5, "lon": 2}

``layout`` may be absent where edges are the hint, ``lat`` and ``lon`` where no location is learnt.
A list (``.json``) is GeoSynth's published form: ``source`` (the hint), ``target`` (the picture),
``prompt`` and ``class``, the row of the location in an array of embeddings.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from generation.errors import ConfigError, InvalidLocationError, MissingFileError
from generation.geo.location import Location
from generation.media.edges import canny_edges
from generation.media.image import open_rgb

HINTS = ("layout", "edges")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PairRow:
    """One line of a manifest."""

    image: Path
    prompt: str
    layout: Path | None = None
    location: Location | None = None
    embedding: int | None = None
    """Row in the array of embeddings."""


class PairSample(TypedDict):
    """One pair, decoded."""

    image: Tensor
    """uint8, height x width x 3."""
    hint: Tensor
    """uint8, of the same shape."""
    prompt: str
    latlon: Tensor
    """Degrees, latitude first, float64; NaN where it is not known."""
    embedding: Tensor
    """Of the location; empty where there is no array of embeddings."""


def read_manifest(path: Path) -> list[PairRow]:
    """Read a manifest of either form.

    Raises:
        MissingFileError: There is no such file, or files that it names are absent.
        ConfigError: It is no manifest; all mistakes are told.
    """
    if not path.is_file():
        raise MissingFileError(f"no manifest at {path} (see the head of training/pairs.py)")
    entries = _published(path) if path.suffix == ".json" else _lines(path)
    rows, wrong = [], []
    for where, entry in entries:
        try:
            rows.append(_row(path.parent, entry, published=path.suffix == ".json"))
        except (ConfigError, InvalidLocationError) as error:
            wrong.append(f"{where}: {error}")
    if wrong or not rows:
        told = "; ".join(wrong[:_SHOWN]) or "it lists nothing"
        rest = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigError(f"{path}: {told}{rest}")
    named = {file for row in rows for file in (row.image, row.layout) if file is not None}
    absent = sorted(str(file) for file in named if not file.is_file())
    if absent:
        raise MissingFileError(
            f"{path} names {len(named)} files and {len(absent)} are absent: "
            f"{', '.join(absent[:3])} (paths are taken from the manifest's folder)"
        )
    return rows


class PairDataset(Dataset[PairSample]):
    """The pairs of a manifest at one size; nothing is resized, as in the published training.

    An item is asked for by ``(index, draw)`` like the tiles of ``training.data``; no draw is made.
    """

    def __init__(
        self,
        manifest: Path,
        *,
        size_px: int = 512,
        hint: str = "layout",
        embeddings: Path | None = None,
    ) -> None:
        if hint not in HINTS:
            raise ConfigError(f"hint={hint!r} is unknown (give {' or '.join(HINTS)})")
        self.rows, self.size_px, self.hint = read_manifest(manifest), size_px, hint
        without = sum(row.layout is None for row in self.rows)
        if hint == "layout" and without:
            raise ConfigError(
                f"{manifest}: {without} of {len(self.rows)} pairs have no layout (add it, or take "
                "edges as the hint)"
            )
        self.embeddings = None if embeddings is None else _load_array(embeddings, self.rows)
        self._edges = edge_detector()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> PairSample:
        row = self.rows[key[0]]
        image = self._open(row.image)
        hint = self._edges(image) if self.hint == "edges" or row.layout is None else None
        place = row.location
        latlon = [np.nan, np.nan] if place is None else [place.lat, place.lon]
        embedding = np.zeros(0, np.float32)
        if self.embeddings is not None and row.embedding is not None:
            embedding = np.asarray(self.embeddings[row.embedding], np.float32)
        return PairSample(
            image=torch.from_numpy(image),
            hint=torch.from_numpy(self._open(row.layout) if hint is None else hint),
            prompt=row.prompt,
            latlon=torch.tensor(latlon, dtype=torch.float64),
            embedding=torch.from_numpy(embedding),
        )

    def _open(self, path: Path | None) -> UInt8[np.ndarray, "height width 3"]:
        if path is None:
            raise ConfigError("a pair has no layout (add it to the manifest)")
        pixels = open_rgb(path)
        if pixels.shape[:2] != (self.size_px, self.size_px):
            raise ConfigError(
                f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, {self.size_px}x"
                f"{self.size_px} are needed (resize it, or set size_px)"
            )
        return pixels


def edge_detector() -> Callable[
    [UInt8[np.ndarray, "height width 3"]], UInt8[np.ndarray, "height width 3"]
]:
    """Give controlnet-aux's Canny where it is installed, else our own, which draws the same."""
    try:
        from controlnet_aux import CannyDetector
    except ImportError:
        return canny_edges
    detector = CannyDetector()

    def edges(
        rgb: UInt8[np.ndarray, "height width 3"],
    ) -> UInt8[np.ndarray, "height width 3"]:
        side = min(rgb.shape[:2])  # its own resolution, so that nothing is resized
        drawn = detector(rgb, detect_resolution=side, image_resolution=side, output_type="np")
        return np.asarray(drawn, np.uint8)

    return edges


def _lines(path: Path) -> list[tuple[str, object]]:
    entries: list[tuple[str, object]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                entries.append((f"line {number}", json.loads(line)))
            except ValueError:
                entries.append((f"line {number}", None))
    return entries


def _published(path: Path) -> list[tuple[str, object]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error} (a list of objects is needed)") from error
    if not isinstance(entries, list):
        raise ConfigError(f"{path} holds a {type(entries).__name__} (a list of objects is needed)")
    return [(f"entry {number}", entry) for number, entry in enumerate(entries)]


def _row(folder: Path, entry: object, *, published: bool) -> PairRow:
    if not isinstance(entry, Mapping):
        raise ConfigError("no JSON object (see the head of training/pairs.py)")
    image, layout = ("target", "source") if published else ("image", "layout")
    files = {name: entry.get(name) for name in (image, layout, "prompt")}
    odd = [n for n, v in files.items() if not isinstance(v, str) and (n != layout or v is not None)]
    if odd:
        raise ConfigError(f"{', '.join(odd)} is no text (give a string)")
    row = entry.get("class") if published else None
    if published and (not isinstance(row, int) or isinstance(row, bool) or row < 0):
        raise ConfigError(f"class={row!r} is no row number (give 0 or more)")
    return PairRow(
        image=folder / str(files[image]),
        prompt=str(files["prompt"]),
        layout=None if files[layout] is None else folder / str(files[layout]),
        location=_location(entry),
        embedding=row,
    )


def _location(entry: Mapping[Any, Any]) -> Location | None:
    lat, lon = entry.get("lat"), entry.get("lon")
    if lat is None and lon is None:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (lat, lon)):
        raise ConfigError(f"lat={lat!r}, lon={lon!r} is no place (give two numbers, in degrees)")
    return Location(float(lat), float(lon))  # type: ignore[arg-type]  # checked above


def _load_array(path: Path, rows: list[PairRow]) -> np.ndarray:
    if not path.is_file():
        raise MissingFileError(f"no embeddings at {path} (give the .npy, or leave it out)")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(
            f"{path} is no array of numbers ({error}; save it with np.save)"
        ) from None
    last = max((row.embedding for row in rows if row.embedding is not None), default=-1)
    if array.ndim != 2 or array.dtype.kind != "f" or last >= len(array):
        raise ConfigError(
            f"{path} has shape {array.shape} of {array.dtype} (an embedding a row is needed, "
            f"{last + 1} rows at least)"
        )
    return array
