"""Ground views with the satellite images around them: rendered or real panoramas, or photographs.

Panoramas are decoded once and kept at the sizes learnt. They look north: the middle of a panorama,
and up in a satellite image. So a quarter turn of a place turns the one and shifts the other, and a
mirrored place mirrors both. Photographs come from a CSV file with the columns ``ground``,
``satellite`` (files, relative to the table), ``lat``, ``lon`` and, if it is known, ``date`` (like
2024-05-31, or empty); they are decoded when they are asked for, and mirrored by themselves.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from generation.encoders.birdsat import resized
from generation.encoders.metadata import parsed_date
from generation.errors import ConfigError, MissingFileError, TerrascapeError
from generation.geo.location import Location
from generation.media.image import open_rgb
from training.panorama_data import PanoramaDataset, ViewSet

Size = tuple[int, int]
COLUMNS = ("ground", "satellite", "lat", "lon")
"""What a CSV file of photographs must have."""
_AT_ONCE = 64
_BLOCK_DEG = 10
_MISTAKES_TOLD = 10
Rows = Int[np.ndarray, " k"] | Bool[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class CrossViews:
    """Pairs of a ground view and the satellite image around it."""

    ground: UInt8[np.ndarray, "n height width 3"]
    satellite: UInt8[np.ndarray, "n side side 3"]
    latlon: Float[np.ndarray, "n 2"]
    """Degrees, latitude first, float32."""
    sets: Int[np.ndarray, " n"]
    """Which pairs stand near each other, at one moment."""

    def __len__(self) -> int:
        return len(self.latlon)

    def __getitem__(self, rows: Rows) -> "CrossViews":
        """Take some of them."""
        return CrossViews(
            self.ground[rows], self.satellite[rows], self.latlon[rows], self.sets[rows]
        )

    @property
    def blocks(self) -> Int[np.ndarray, " n"]:
        """A number for each block of ten degrees that a pair lies in."""
        return _blocks(self.latlon)

    @property
    def date(self) -> Float[np.ndarray, "n 2"]:
        """Unknown: nothing says when a panorama was seen."""
        return np.full((len(self), 2), np.nan, np.float32)

    @property
    def has_dates(self) -> bool:
        """Whether any date is known."""
        return False

    def decoded(self, rows: Rows) -> "CrossViews":
        """Take some of them, which are decoded already."""
        return self[rows]


def _blocks(latlon: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    rows, columns = np.floor(latlon / _BLOCK_DEG).astype(np.int64).T
    return np.asarray(36 * rows + columns)


@dataclass(frozen=True, slots=True)
class PhotoPairs:
    """Photographs and the satellite images around them, not decoded yet."""

    ground: list[Path]
    satellite: list[Path]
    latlon: Float[np.ndarray, "n 2"]
    """Degrees, latitude first, float32."""
    date: Float[np.ndarray, "n 2"]
    """Month and day of the month; NaN is unknown."""
    sizes: tuple[Size, Size] = field(default=((384, 384), (224, 224)))
    """Height and width that each is brought to."""

    def __len__(self) -> int:
        return len(self.latlon)

    def __getitem__(self, rows: Rows) -> "PhotoPairs":
        """Take some of them."""
        numbers = np.arange(len(self))[rows]
        return replace(
            self,
            ground=[self.ground[row] for row in numbers],
            satellite=[self.satellite[row] for row in numbers],
            latlon=self.latlon[numbers],
            date=self.date[numbers],
        )

    @property
    def blocks(self) -> Int[np.ndarray, " n"]:
        """A number for each block of ten degrees that a pair lies in."""
        return _blocks(self.latlon)

    @property
    def has_dates(self) -> bool:
        """Whether any date is known."""
        return bool(np.isfinite(self.date).any())

    def pixels(
        self, row: int
    ) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "rows columns 3"]]:
        """Decode a pair and bring it to its sizes; all of an image is kept.

        Raises:
            TerrascapeError: A file is damaged, or gone.
        """
        ground, satellite = (
            _sized(open_rgb(file)[None], size)[0]
            for file, size in zip((self.ground[row], self.satellite[row]), self.sizes, strict=True)
        )
        return ground, satellite

    def decoded(self, rows: Rows) -> CrossViews:
        """Decode some of them."""
        numbers = np.arange(len(self))[rows]
        pairs = [self.pixels(int(row)) for row in numbers]
        return CrossViews(
            np.stack([ground for ground, _ in pairs]),
            np.stack([satellite for _, satellite in pairs]),
            self.latlon[numbers],
            numbers,
        )


def is_table(data: str) -> bool:
    """Tell whether a pattern names a CSV file of photographs, and not of panoramas."""
    path = Path(data)
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return COLUMNS[0] in file.readline().strip().split(",")


def read_photos(path: Path, ground: Size, satellite: Size) -> PhotoPairs:
    """Read a table of photographs; see the module's description.

    Args:
        path: The CSV file.
        ground: Height and width that photographs are brought to.
        satellite: The same of satellite images.

    Raises:
        ConfigError: It is no such table, or rows have mistakes, all of which are told.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is no readable CSV file ({error!s:.80})") from error
    if absent or len(rows) < 2:
        lacks = f"lacks the column {', '.join(absent)}" if absent else "has less than two rows"
        raise ConfigError(f"{path} {lacks} (needed: {', '.join(COLUMNS)}, and a row a pair)")
    found, mistakes = [], []
    for number, row in enumerate(rows, start=2):
        try:
            found.append(_listed(row, path.parent))
        except (TerrascapeError, ValueError) as error:
            mistakes.append(f"line {number}: {error}")
    if mistakes:
        more = f"; and {len(mistakes) - _MISTAKES_TOLD} more" * (len(mistakes) > _MISTAKES_TOLD)
        raise ConfigError(f"{path}: {'; '.join(mistakes[:_MISTAKES_TOLD])}{more}")
    seen, above, places, dates = zip(*found, strict=True)
    return PhotoPairs(
        list(seen),
        list(above),
        np.array(places, np.float32),
        np.array(dates, np.float32),
        (ground, satellite),
    )


_Listed = tuple[Path, Path, tuple[float, float], tuple[float, float]]


def _listed(row: dict[str, str | None], folder: Path) -> _Listed:
    files = [folder / (row[name] or "").strip() for name in COLUMNS[:2]]
    for file in files:
        if not file.is_file():
            raise MissingFileError(f"{file} is not there (paths are relative to the table)")
    place = Location(float(row["lat"] or "nan"), float(row["lon"] or "nan"))
    told = (row.get("date") or "").strip()
    date = (np.nan, np.nan)
    if told:
        day = parsed_date(told)
        date = (float(day.month), float(day.day))
    return files[0], files[1], (place.lat, place.lon), date


def read_pairs(sets: Sequence[ViewSet], ground: Size | None, satellite: Size | None) -> CrossViews:
    """Decode all panoramas of sets with the square of satellite image around each.

    Args:
        sets: What :mod:`training.panorama_data` reads.
        ground: Height and width that panoramas are brought to; their own if absent.
        satellite: The same of satellite images.

    Raises:
        ConfigError: A set has no satellite image, or there are fewer than two pairs.
    """
    lacking = [each.name for each in sets if each.satellite is None]
    if lacking:
        raise ConfigError(
            f"{len(lacking)} of {len(sets)} sets lack a satellite image, {lacking[0]} first (leave "
            "them out)"
        )
    data = PanoramaDataset(sets, views=0)
    if len(data) < 2:
        raise ConfigError(f"{len(data)} pair has nothing to be told from (give two or more)")
    kept: dict[str, np.ndarray] = {}
    for number, part in enumerate(_parts(data)):
        for name, size in (("image", ground), ("satellite", satellite)):
            images = _sized(np.stack([each[name].numpy() for each in part]), size)
            if name not in kept:  # once, and not a second time to join the parts
                kept[name] = np.empty((len(data), *images.shape[1:]), np.uint8)
            kept[name][number * _AT_ONCE : number * _AT_ONCE + len(images)] = images
    places = [sets[number].views[target].place for number, target in data.targets]
    return CrossViews(
        ground=kept["image"],
        satellite=kept["satellite"],
        latlon=np.array([(place.lat, place.lon) for place in places], np.float32),
        sets=np.array([number for number, _ in data.targets]),
    )


def _parts(data: PanoramaDataset) -> Iterator[list[dict[str, Tensor]]]:
    for start in range(0, len(data), _AT_ONCE):
        number_target = data.targets[start : start + _AT_ONCE]
        yield [data.sample(number, target, []) for number, target in number_target]


def _sized(
    images: UInt8[np.ndarray, "n height width 3"], size: Size | None
) -> UInt8[np.ndarray, "n rows columns 3"]:
    return images if size is None or images.shape[1:3] == size else resized(images, size)


def turned(
    ground: UInt8[np.ndarray, "height width 3"],
    satellite: UInt8[np.ndarray, "side side 3"],
    quarters: int,
    mirrored: bool,
) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "side side 3"]]:
    """Show the same place turned clockwise by quarters, and then perhaps mirrored east to west."""
    ground = np.roll(ground, quarters * ground.shape[1] // 4, axis=1)
    satellite = np.rot90(satellite, -quarters)
    if mirrored:
        ground, satellite = ground[:, ::-1], satellite[:, ::-1]
    return np.ascontiguousarray(ground), np.ascontiguousarray(satellite)


class CrossViewSamples(Dataset[dict[str, Tensor]]):
    """Pairs, turned and mirrored by lot, asked for by ``(index, draw)``."""

    def __init__(self, pairs: CrossViews | PhotoPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        rng = np.random.default_rng([draw, index, 7])
        quarters, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        pairs = self.pairs
        if isinstance(pairs, CrossViews):
            ground, satellite = turned(
                pairs.ground[index], pairs.satellite[index], quarters, mirrored
            )
        else:  # a photograph looks anywhere, so that the image above turns by itself
            ground, satellite = pairs.pixels(index)
            ground = np.ascontiguousarray(ground[:, ::-1] if mirrored else ground)
            satellite = np.ascontiguousarray(np.rot90(satellite, quarters))
        return {
            "ground": torch.from_numpy(ground),
            "satellite": torch.from_numpy(satellite),
            "latlon": torch.from_numpy(pairs.latlon[index]),
            "date": torch.from_numpy(pairs.date[index]),
        }
