"""Climate, height and land cover of any place, on an embedded grid of one degree.

Variables are those of BIOCLIM as far as monthly means give them: ``bio2`` and ``bio3`` need the
extremes of days. A change of climate is a change of the monthly values that all are computed from.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from generation.errors import InvalidSpecError, MissingFileError
from generation.geo.layers import ASSETS

BIOCLIM = (
    "elevation_m",
    *("bio1", "bio4", "bio5", "bio6", "bio7", "bio8", "bio9", "bio10", "bio11"),
    *("bio12", "bio13", "bio14", "bio15", "bio16", "bio17", "bio18", "bio19"),
)
"""Height first, then temperatures in degrees Celsius (``bio4``: 100 times their deviation), then
rain in millimetres (``bio15``: 100 times its deviation over its mean). ``bio5`` and ``bio6`` are
means of the warmest and the coldest month."""
COVER = tuple(f"igbp_{number}" for number in range(17))
"""Shares of the ground, by the classes of the International Geosphere-Biosphere Programme."""
VARIABLES = (*BIOCLIM, *COVER)
ATTRIBUTION = (
    "Climate and height: ITU-R P.1510, P.837, P.1511. Land cover: MODIS MCD12C1 v006 2019 (NASA LP "
    "DAAC)."
)
MOST_WATER = 0.5
"""Share of water from which a cell is no land."""
_FILE = "environment_1deg.npz"
_QUARTER = 3
_MONTHS = 12


@dataclass(frozen=True, slots=True)
class Environment:
    """Fields on a grid: row 0 is the northernmost, column 0 begins at 180 degrees west."""

    temperature_c: Float[np.ndarray, "_months _rows _cols"]
    rain_mm: Float[np.ndarray, "_months _rows _cols"]
    elevation_m: Float[np.ndarray, "_rows _cols"]
    cover: Float[np.ndarray, "_classes _rows _cols"]

    def __post_init__(self) -> None:
        rows, cols = self.elevation_m.shape[-2:]
        wanted = {
            "temperature_c": (_MONTHS, rows, cols),
            "rain_mm": (_MONTHS, rows, cols),
            "elevation_m": (rows, cols),
            "cover": (len(COVER), rows, cols),
        }
        found = {name: getattr(self, name).shape for name in wanted}
        if cols != 2 * rows or found != wanted:
            told = ", ".join(f"{name} {tuple(shape)}" for name, shape in found.items())
            raise InvalidSpecError(
                f"fields of one grid are needed, twice as wide as high and the whole Earth: {told} "
                "(bring them to one grid)"
            )

    @property
    def land(self) -> Float32[np.ndarray, "cells 2"]:
        """The middles of all cells that are land for the greater part, latitude first."""
        water = self.cover[0]
        rows, cols = np.nonzero(water < MOST_WATER)
        lat = 90 - (rows + 0.5) * 180 / water.shape[0]
        lon = -180 + (cols + 0.5) * 360 / water.shape[1]
        return np.stack([lat, lon], 1).astype(np.float32)

    def changed(self, *, warmer_c: float = 0.0, rain_share: float = 0.0) -> "Environment":
        """Give the same land under another climate.

        Args:
            warmer_c: Degrees that every month is warmer, -20 to 20.
            rain_share: Share of rain that every month has more, -1 to 3.

        Raises:
            InvalidSpecError: A change is out of range.
        """
        for name, value, low, high in (
            ("warmer_c", warmer_c, -20.0, 20.0),
            ("rain_share", rain_share, -1.0, 3.0),
        ):
            if not low <= value <= high:
                raise InvalidSpecError(
                    f"{name}={value:g} is not allowed (give {low:g} to {high:g})"
                )
        return replace(
            self,
            temperature_c=self.temperature_c + warmer_c,
            rain_mm=self.rain_mm * (1 + rain_share),
        )

    def variables(self) -> Float[np.ndarray, "variables rows cols"]:
        """Compute all of :data:`VARIABLES` everywhere.

        Source:
            Nix, "A biogeographic analysis of Australian elapid snakes" (1986), for the variables.
        """
        warm, wet = self.temperature_c.astype(np.float64), self.rain_mm.astype(np.float64)
        warm_quarter, wet_quarter = (
            np.stack([np.roll(each, -shift, 0) for shift in range(_QUARTER)]).sum(0)
            for each in (warm, wet)
        )
        warm_quarter = warm_quarter / _QUARTER

        def at(values: np.ndarray, by: np.ndarray, *, most: bool) -> np.ndarray:
            chosen = (by.argmax(0) if most else by.argmin(0))[None]
            return np.take_along_axis(values, chosen, 0)[0]

        bio = [
            self.elevation_m,
            warm.mean(0),
            100 * warm.std(0),
            warm.max(0),
            warm.min(0),
            warm.max(0) - warm.min(0),
            at(warm_quarter, wet_quarter, most=True),
            at(warm_quarter, wet_quarter, most=False),
            warm_quarter.max(0),
            warm_quarter.min(0),
            wet.sum(0),
            wet.max(0),
            wet.min(0),
            100 * wet.std(0) / (1 + wet.mean(0)),
            wet_quarter.max(0),
            wet_quarter.min(0),
            at(wet_quarter, warm_quarter, most=True),
            at(wet_quarter, warm_quarter, most=False),
        ]
        return np.concatenate([np.stack(bio), self.cover]).astype(np.float32)


def sampled(
    fields: Float[np.ndarray, "variables rows cols"], latlon: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n variables"]:
    """Read fields at places, bilinearly; around the date line, and up to both poles.

    Args:
        fields: Row 0 the northernmost, column 0 beginning at 180 degrees west.
        latlon: Degrees, latitude first.

    Raises:
        InvalidSpecError: A place is none.
    """
    lat, lon = latlon[:, 0].astype(np.float64), latlon[:, 1].astype(np.float64)
    if not (np.isfinite(latlon).all() and (abs(lat) <= 90).all() and (abs(lon) <= 180).all()):
        raise InvalidSpecError(
            "a place lies off the Earth (give latitudes of -90 to 90 first, then longitudes of "
            "-180 to 180)"
        )
    rows, cols = fields.shape[1:]
    row = ((90 - lat) * rows / 180 - 0.5).clip(0, rows - 1)
    col = (lon + 180) * cols / 360 - 0.5
    top, left = np.floor(row).astype(int), np.floor(col).astype(int)
    below, right = np.minimum(top + 1, rows - 1), (left + 1) % cols
    left = left % cols
    down, across = (row - top)[:, None], (col - np.floor(col))[:, None]
    upper = fields[:, top, left].T * (1 - across) + fields[:, top, right].T * across
    lower = fields[:, below, left].T * (1 - across) + fields[:, below, right].T * across
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


@cache
def embedded_environment(path: Path = ASSETS / _FILE) -> Environment:
    """Give what ships with the project; ``python -m training.environment`` makes it.

    Raises:
        MissingFileError: It is not there.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is not there (install from a checkout: pip install -e .)")
    with np.load(path) as data:
        return Environment(
            temperature_c=data["temperature_dc"].astype(np.float32) / 10,
            rain_mm=data["rain_mm"].astype(np.float32),
            elevation_m=data["elevation_m"].astype(np.float32),
            cover=data["cover_255"].astype(np.float32) / 255,
        )
