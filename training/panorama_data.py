"""Panoramas with known places, as samples of one kind, from rendered sets or from files.

Two sources give the same samples: folders of Parquet that :mod:`training.panorama_sets` wrote, and
a table of real panoramas. That is a CSV file with the columns ``file, lat, lon, heading_deg`` and
perhaps ``set`` (rows of one value may see each other's ground; without it rows within 30 km of each
other form sets) and ``satellite`` (a GeoTIFF around the place). Paths are relative to the CSV file.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from generation.diffusion.codec import signal
from generation.diffusion.surroundings import Surroundings
from generation.errors import (
    ConfigError,
    InvalidSpecError,
    MissingFileError,
    TerrascapeError,
    shown,
)
from generation.geo.imagery import FileImagery, cut_square
from generation.geo.location import Location, great_circle_km
from generation.geo.mercator import Window, gsd_m, to_px, world_px
from generation.geo.sphere import Band, check_heading, offset_m
from generation.media.image import png_bytes
from generation.media.panorama import open_panorama, to_band
from training.data import list_files

SATELLITE_PX = 256
"""Side of the satellite image that a target is given."""
MAX_VIEWS = 3
COLUMNS = ("file", "lat", "lon", "heading_deg")
"""What a CSV file of panoramas must have."""
TOGETHER_KM = 30.0
"""Rows of a CSV file that are no farther apart form a set, where it does not say otherwise."""
_ZOOM = 8
_MISTAKES_TOLD = 10


@dataclass(frozen=True, slots=True)
class SeenFrom:
    """One panorama of a set: its encoded pixels and where it stands."""

    image: bytes
    depth: bytes | None
    place: Location


@dataclass(frozen=True, slots=True)
class ViewSet:
    """Panoramas that may look at each other's ground."""

    name: str
    satellite: bytes | None
    """An encoded square, north up; ``None`` where there is none."""
    place: Location
    """The middle of that square."""
    views: tuple[SeenFrom, ...]


def read_sets(files: Sequence[Path]) -> list[ViewSet]:
    """Read what :mod:`training.panorama_sets` wrote, the pictures still encoded.

    Raises:
        MissingFileError: No file is given.
        ConfigError: A file is no such Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not files:
        raise MissingFileError("no Parquet file of panoramas matches (quote the pattern)")
    found = []
    for path in files:
        try:
            rows = pq.read_table(path).to_pylist()
            found += [_set_of(row) for row in rows]
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} holds no sets of panoramas ({' '.join(str(error).split())[:80]}; build "
                "them with python -m training.panorama_sets)"
            ) from error
    if not found:
        raise ConfigError(f"{files[0]} holds no rows (give Parquet files that have some)")
    return found


def _set_of(row: dict[str, Any]) -> ViewSet:
    return ViewSet(
        name=row["set_id"],
        satellite=row["satellite"]["bytes"],
        place=Location(row["lat"], row["lon"]),
        views=tuple(
            SeenFrom(v["image"]["bytes"], v["depth"]["bytes"], Location(v["lat"], v["lon"]))
            for v in row["views"]
        ),
    )


def read_csv(path: Path, band: Band | None = None) -> list[ViewSet]:
    """Read real panoramas that a table lists; see the module's description.

    Args:
        path: The CSV file.
        band: The grid to bring them to; the embedded model's if absent.

    Returns:
        Sets in the order of the table; panoramas look north in their middle and have no depths.

    Raises:
        MissingFileError: There is no such table.
        ConfigError: It is no such table, or rows have mistakes, all of which are told.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is not there (give a CSV file)") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{path} is no readable CSV file ({error!s:.80}; save as UTF-8)"
        ) from error
    if absent or not rows:
        lacks = f"lacks the column {', '.join(absent)}" if absent else "has no rows"
        raise ConfigError(f"{path} {lacks} (needed: {', '.join(COLUMNS)}, and a row a panorama)")
    listed, mistakes = [], []
    for number, row in enumerate(rows, start=2):  # as a text editor counts, the names being line 1
        try:
            listed.append(_Listed.of(row, number, path.parent))
        except TerrascapeError as error:
            mistakes.append(f"line {number}: {error}")
    groups = _grouped(listed)
    for group in groups:
        mistakes += _repeated(group)
    made = []
    for group in groups if not mistakes else ():
        try:
            made.append(_real_set(group, band or Band()))
        except TerrascapeError as error:
            mistakes.append(str(error))
    if mistakes:
        more = f"; and {len(mistakes) - _MISTAKES_TOLD} more" * (len(mistakes) > _MISTAKES_TOLD)
        raise ConfigError(f"{path}: {'; '.join(mistakes[:_MISTAKES_TOLD])}{more}")
    return made


@dataclass(frozen=True, slots=True)
class _Listed:
    """A row of a table of panoramas."""

    line: int
    file: Path
    place: Location
    heading_deg: float
    group: str
    satellite: Path | None

    @classmethod
    def of(cls, row: dict[str, str | None], line: int, folder: Path) -> "_Listed":
        """Check what a row says; its files are opened later."""
        figures = {}
        for name in COLUMNS[1:]:
            try:
                figures[name] = float(row[name] or "")
            except ValueError:
                raise ConfigError(
                    f"{name}={shown(row[name])} is no number (give degrees)"
                ) from None
        satellite = (row.get("satellite") or "").strip()
        listed = cls(
            line=line,
            file=folder / (row["file"] or "").strip(),
            place=Location(figures["lat"], figures["lon"]),
            heading_deg=check_heading(figures["heading_deg"], "heading_deg"),
            group=(row.get("set") or "").strip(),
            satellite=folder / satellite if satellite else None,
        )
        for named in (listed.file, listed.satellite):
            if named is not None and not named.is_file():
                raise MissingFileError(f"{named} is not there (paths are relative to the table)")
        return listed


def _grouped(rows: Sequence[_Listed]) -> list[list[_Listed]]:
    """Put rows into sets: by name, or each into the first whose rows are all near."""
    groups: list[list[_Listed]] = []
    for row in rows:
        for group in groups:
            near = all(great_circle_km(row.place, other.place) <= TOGETHER_KM for other in group)
            if row.group == group[0].group and (row.group or near):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _repeated(group: Sequence[_Listed]) -> list[str]:
    """Name rows that list a panorama of their set again: a target must not be its own view."""
    first: dict[Path, int] = {}
    told = []
    for row in group:
        file = row.file.resolve()
        if file in first:
            told.append(f"line {row.line}: {row.file.name} is listed in line {first[file]} already")
        first.setdefault(file, row.line)
    return told


def _real_set(group: Sequence[_Listed], band: Band) -> ViewSet:
    views = []
    for row in group:
        try:
            pixels = to_band(open_panorama(row.file), band, row.heading_deg)
        except TerrascapeError as error:
            raise ConfigError(f"line {row.line}: {error}") from error
        views.append(SeenFrom(png_bytes(pixels), None, row.place))
    name = group[0].group or f"line {group[0].line}"
    files = list(dict.fromkeys(row.satellite for row in group if row.satellite is not None))
    if not files:
        return ViewSet(name, None, group[0].place, tuple(views))
    try:
        window = _window_of([row.place for row in group])
        patch = FileImagery(files).read(window)
    except TerrascapeError as error:
        raise ConfigError(f"set {name}: {error}") from error
    if not patch.seen.all():
        raise ConfigError(
            f"set {name}: the imagery covers {patch.seen.mean():.0%} of the square of "
            f"{window.width_px} px at zoom {_ZOOM} around {window.center} that its panoramas need "
            "(give a larger one)"
        )
    return ViewSet(name, png_bytes(patch.rgb), window.center, tuple(views))


def _window_of(places: Sequence[Location]) -> Window:
    """Give the square that reaches ``SATELLITE_PX`` around every place."""
    first = to_px(places[0], _ZOOM)
    apart = [(_around(x - first[0]), y - first[1]) for x, y in (to_px(p, _ZOOM) for p in places)]
    low, high = (tuple(map(edge, zip(*apart, strict=True))) for edge in (min, max))
    side = int(max(high[0] - low[0], high[1] - low[1])) + SATELLITE_PX + 4
    col = round(first[0] + (low[0] + high[0]) / 2 - side / 2)
    row = round(first[1] + (low[1] + high[1]) / 2 - side / 2)
    return Window(_ZOOM, col % world_px(_ZOOM), row, side, side)


def _around(px: float) -> float:
    """Give a difference of columns of the map of the world the short way round."""
    half = world_px(_ZOOM) / 2
    return (px + half) % (2 * half) - half


class PanoramaDataset(Dataset[dict[str, Tensor]]):
    """Targets with other panoramas of their sets and the satellite image around them.

    An item is asked for by ``(index, draw)``: which panorama is the target, and the number that
    decides which others it is given, so that a batch is a pure function of the step.
    """

    def __init__(self, sets: Sequence[ViewSet], *, views: int = MAX_VIEWS) -> None:
        self.sets, self.views = sets, views
        self.targets = [(s, t) for s, group in enumerate(sets) for t in range(len(group.views))]

    def __len__(self) -> int:
        return len(self.targets)

    def target(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Give the panorama that stands for an index."""
        number, target = self.targets[index]
        return _pixels(self.sets[number].views[target].image, "RGB")

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        number, target = self.targets[index]
        others = [v for v in range(len(self.sets[number].views)) if v != target]
        order = np.random.default_rng([draw, index]).permutation(others).tolist()
        return self.sample(number, target, order[: self.views])

    def sample(self, number: int, target: int, others: Sequence[int]) -> dict[str, Tensor]:
        """Give a target with stated panoramas in its slots.

        Returns:
            Bytes for pictures, metres, degrees and flags, as :func:`surroundings` takes them.
        """
        group = self.sets[number]
        here = group.views[target]
        image = _pixels(here.image, "RGB")
        panoramas = np.zeros((self.views, *image.shape), np.uint8)
        valid, offsets = np.zeros(self.views, bool), np.ones((self.views, 2), np.float32)
        for slot, other in enumerate(others):
            there = group.views[other]
            panoramas[slot], valid[slot] = _pixels(there.image, "RGB"), True
            offsets[slot] = offset_m(here.place, there.place)
        depth = np.zeros(image.shape[:2], np.uint8)
        if here.depth is not None:
            depth = _pixels(here.depth, "L")
        satellite = np.zeros((SATELLITE_PX, SATELLITE_PX, 3), np.uint8)
        if group.satellite is not None:
            satellite = crop_at(_pixels(group.satellite, "RGB"), group.place, here.place)
        return {
            "image": torch.from_numpy(image),
            "panoramas": torch.from_numpy(panoramas),
            "valid": torch.from_numpy(valid),
            "offset_m": torch.from_numpy(offsets),
            "satellite": torch.from_numpy(satellite),
            "has_satellite": torch.tensor(group.satellite is not None),
            "gsd_m": torch.tensor(gsd_m(here.place.lat, _ZOOM), dtype=torch.float32),
            "lat_deg": torch.tensor(here.place.lat, dtype=torch.float32),
            "depth": torch.from_numpy(depth),
            "has_depth": torch.tensor(here.depth is not None),
        }


def crop_at(
    image: UInt8[np.ndarray, "side side 3"], centre: Location, place: Location
) -> UInt8[np.ndarray, "256 256 3"]:
    """Cut the square around a place out of an image centred elsewhere."""
    (x, y), (x0, y0) = to_px(place, _ZOOM), to_px(centre, _ZOOM)
    half = len(image) / 2
    try:
        return cut_square(image, _around(x - x0) + half, y - y0 + half, SATELLITE_PX)
    except InvalidSpecError:
        raise ConfigError(
            f"the satellite image of {len(image)} px around {centre} does not reach "
            f"{SATELLITE_PX} px around {place} (give larger ones)"
        ) from None


def surroundings(batch: dict[str, Tensor]) -> Surroundings:
    """Turn a batch of samples into what the encoder of views takes."""
    values = {f.name: batch[f.name] for f in fields(Surroundings)}
    values["panoramas"] = signal(batch["panoramas"])
    values["satellite"] = signal(batch["satellite"])
    values["depth"] = batch["depth"][:, None].float() / 255
    return Surroundings(**values)


def _pixels(data: bytes, mode: str) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as file:
        return np.array(file.convert(mode))


def open_sets(data: str, band: Band | None = None) -> tuple[list[Path], list[ViewSet]]:
    """Read what names sets of panoramas, of either source.

    Args:
        data: A pattern of Parquet files of sets, or a CSV file of real panoramas.
        band: The grid for the panoramas of a CSV file; the embedded model's if absent.

    Returns:
        The files, and their sets.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: It is neither.
    """
    if data.lower().endswith(".csv"):
        return [Path(data)], read_csv(Path(data), band)
    files = list_files(data)
    return files, read_sets(files)
