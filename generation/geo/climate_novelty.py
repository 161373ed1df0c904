"""Whether a climate is like any of today's: models learnt from these and know no others.

Climates are compared in the directions in which those of today's land vary, each scaled to unit
variance, so that a length is Mahalanobis' distance. A climate is new if a variable lies outside of
all of today's land, or if nothing of today's land is as near to it as land that is far apart
usually is to each other.

Source:
    Mahony et al., "A closer look at novel climates" (Global Change Biology, 2017) for the distance
    to the nearest analogue; Mesgaran et al., "Here be dragons" (Diversity and Distributions, 2014)
    for telling new values from new combinations.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float

from generation.geo.environment import BIOCLIM, Environment, embedded_environment, sampled
from generation.geo.location import EARTH_RADIUS_KM

APART_KM = 1000.0
"""How far land lies apart whose climates are held to each other to say what is usual."""
USUAL = 0.99
"""Share of land that has an analogue as near as that which is called usual."""
_CLIMATE = BIOCLIM[1:]
_SAMPLED = 800
_LEAST_VARIANCE = 1e-4
_AT_ONCE = 512
_NAMES = {
    "bio1": "mean temperature",
    "bio5": "warmest month",
    "bio6": "coldest month",
    "bio12": "rain of a year",
    "bio13": "rain of the wettest month",
    "bio14": "rain of the driest month",
}
"""What people are told; other variables follow from these or are told by their number."""


@dataclass(frozen=True, slots=True)
class Novelty:
    """How a climate stands to today's."""

    distance: float
    """From its nearest analogue, in deviations."""
    usual: float
    """What 99 % of today's land has to its nearest analogue that is not its neighbour."""
    analogue: tuple[float, float]
    """Where that is, degrees, latitude first."""
    outside: tuple[str, ...]
    """Variables that no land has today."""

    @property
    def new(self) -> bool:
        """Whether models would have to guess."""
        return bool(self.outside) or self.distance > self.usual

    @property
    def note(self) -> str:
        """One sentence on it; empty where the climate is no new one."""
        if not self.new:
            return ""
        named = [_NAMES[name] for name in self.outside if name in _NAMES] or list(self.outside)
        apart = f"{self.distance:.1f} deviations; usual {self.usual:.1f}"
        why = (
            f"no land has such a value today ({', '.join(named)})"
            if self.outside
            else f"nothing today is like it ({apart})"
        )
        return f"this climate is new: {why}, and models that learnt from today's can only guess"


class Climates:
    """Those of today's land."""

    def __init__(self, environment: Environment) -> None:
        """Read them off a grid.

        Args:
            environment: Today's.
        """
        land = environment.land
        every = climates_at(environment, land)
        known = np.isfinite(every).all(1)
        self.latlon, found = land[known], every[known].astype(np.float64)
        self._low, self._high = found.min(0), found.max(0)
        self._mean, self._deviation = found.mean(0), found.std(0).clip(1e-9)
        spread, self._turn = np.linalg.eigh(np.corrcoef(found.T))
        self._turn = self._turn[:, spread > _LEAST_VARIANCE]
        self._scale = np.sqrt(spread[spread > _LEAST_VARIANCE])
        self._known = self._scaled(found)

    def _scaled(self, climates: Float[np.ndarray, "n variables"]) -> Float[np.ndarray, "n parts"]:
        normal = (climates - self._mean) / self._deviation
        return np.asarray(normal @ self._turn / self._scale)

    @cached_property
    def usual(self) -> float:
        """What 99 % of land, by area, has to the nearest analogue that is not its neighbour."""
        area = np.cos(np.deg2rad(self.latlon[:, 0].astype(np.float64)))
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(area), min(_SAMPLED, len(area)), replace=False, p=area / area.sum())
        squares = _squares(self._known[chosen], self._known)
        squares[_near(self.latlon[chosen], self.latlon)] = np.inf
        return float(np.sqrt(np.quantile(squares.min(1), USUAL)))

    def novelty(self, climate: Float[np.ndarray, " variables"]) -> Novelty:
        """Hold one climate to today's.

        Args:
            climate: BIOCLIM's variables in the order of ``BIOCLIM`` without the height.
        """
        squares = _squares(self._scaled(climate[None].astype(np.float64)), self._known)[0]
        nearest = int(squares.argmin())
        lat, lon = self.latlon[nearest].tolist()
        outside = self._outside(climate[None])[0]
        return Novelty(
            float(np.sqrt(squares[nearest])),
            self.usual,
            (lat, lon),
            tuple(name for name, out in zip(_CLIMATE, outside, strict=True) if out),
        )

    def new(self, climates: Float[np.ndarray, "n variables"]) -> Bool[np.ndarray, " n"]:
        """Say of many climates which are new."""
        scaled = self._scaled(climates.astype(np.float64))
        found = np.array(self._outside(climates).any(1))
        left = np.flatnonzero(~found)
        for at in range(0, len(left), _AT_ONCE):
            rows = left[at : at + _AT_ONCE]
            found[rows] = _squares(scaled[rows], self._known).min(1) > self.usual**2
        return found

    def _outside(self, climates: np.ndarray) -> Bool[np.ndarray, "n variables"]:
        # the grid is kept in half precision: what differs by less than that is no other value
        slack = 1e-3 * (self._high - self._low)
        return (climates < self._low - slack) | (climates > self._high + slack)


def _squares(
    one: Float[np.ndarray, "n parts"], other: Float[np.ndarray, "m parts"]
) -> Float[np.ndarray, "n m"]:
    product = one @ other.T
    total = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * product
    return np.asarray(total.clip(0))


def _near(
    one: Float[np.ndarray, "n 2"], other: Float[np.ndarray, "m 2"]
) -> Bool[np.ndarray, "n m"]:
    """Say what lies together, by the cosine of the angle between two places."""

    def points(latlon: np.ndarray) -> np.ndarray:
        lat, lon = np.deg2rad(latlon.astype(np.float64)).T
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)

    return np.asarray(points(one) @ points(other).T > np.cos(APART_KM / EARTH_RADIUS_KM))


@lru_cache(maxsize=1)
def todays_climates() -> Climates:
    """Give the climates of the embedded environment."""
    return Climates(embedded_environment())


def novelty_at(lat: float, lon: float, *, warmer_c: float, rain_share: float) -> Novelty:
    """Hold the changed climate of a place to today's.

    Raises:
        InvalidSpecError: A change is out of range, or the place lies off the Earth.
    """
    changed = embedded_environment().changed(warmer_c=warmer_c, rain_share=rain_share)
    return todays_climates().novelty(climates_at(changed, np.array([[lat, lon]], np.float32))[0])


def climates_at(
    environment: Environment, latlon: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n variables"]:
    """Read the variables that climates are compared by."""
    return sampled(environment.variables()[1 : len(BIOCLIM)], latlon)
