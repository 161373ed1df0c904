"""RANGE: a place is told by the looks of other places that it resembles or that lie near it.

A contrastive location encoder keeps what an image and its place share. What only the image has is
brought back by retrieval: a database holds for many places a key (what their image says of where
it is) and a value (what their image looks like), and a place reads the mean of all values,
weighted by how well their keys fit it (semantic) and by how near they lie (geodesic). So every
answer can name the places it was made of.

Source:
    Dhakal et al., "RANGE: Retrieval Augmented Neural Fields for Multi-Resolution Geo-Embeddings"
    (CVPR 2025), §3: RANGE is the semantic part alone, RANGE+ the mixture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from generation.encoders.heads import unit
from generation.errors import ConfigError, InvalidLocationError, InvalidSpecError, WeightsError
from generation.geo.location import EARTH_RADIUS_KM

_ENTRIES = 1 << 22
"""Weights of places for rows that are held at once; more queries than fit are answered in parts."""


@dataclass(frozen=True, slots=True)
class RetrievalDatabase:
    """What is known of many places."""

    latlon: Float[Tensor, "rows 2"]
    """Degrees, latitude first."""
    keys: Float[Tensor, "_keys key"]
    """Unit vectors: images, in the space of a location encoder."""
    values: Float[Tensor, "_values value"]
    """What the images look like."""
    about: Mapping[str, Any]
    """Where the rows are from, and ``key_dim`` and ``value_dim``."""

    def __post_init__(self) -> None:
        counts = {n: len(getattr(self, n)) for n in ("latlon", "keys", "values")}
        if len(set(counts.values())) != 1 or not len(self.keys):
            raise WeightsError(
                f"a database of {counts['latlon']} places, {counts['keys']} keys and "
                f"{counts['values']} values (row i of each must be of one place; build it anew "
                "with `terrascape range build`)"
            )
        check_places(self.latlon)
        for name, dim in (("keys", self.keys.shape[1]), ("values", self.values.shape[1])):
            told = self.about.get(f"{name[:-1]}_dim", dim)
            if told != dim:
                raise WeightsError(
                    f"the {name} of this database have {dim} dimensions and not {told}, as those "
                    "of its model (build it anew with the model that is to read it)"
                )

    def __len__(self) -> int:
        return len(self.latlon)

    def without(self, rows: Tensor) -> "RetrievalDatabase":
        """Leave rows out.

        Args:
            rows: Whether each row goes, (rows,).
        """
        kept = ~rows
        return RetrievalDatabase(self.latlon[kept], self.keys[kept], self.values[kept], self.about)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A place whose look went into that of another."""

    row: int
    """Of the database."""
    lat: float
    lon: float
    weight: float
    """Its share, 0 to 1; those of all rows sum to one."""
    km: float
    """Along the sphere, from the place that was asked for."""


class RetrievalEncoder(nn.Module):
    """A place to how it looks, and where that was taken from."""

    def __init__(
        self,
        location: nn.Module,
        database: RetrievalDatabase,
        *,
        temperature: float = 12.0,
        geo_temperature: float = 40.0,
        beta: float = 0.5,
    ) -> None:
        """Keep the parts.

        Args:
            location: Places (n, 2) to vectors in the space of the keys.
            database: What is retrieved from.
            temperature: Inverse, of the likeness of keys; published: 15 for RANGE, 12 for RANGE+.
            geo_temperature: Inverse, of nearness.
            beta: How sharp: 0 reads what lies near, 1 what is alike.

        Raises:
            ConfigError: A temperature is not above 0, or ``beta`` not of 0 to 1.
            WeightsError: The location encoder has other dimensions than the keys.
        """
        super().__init__()
        for name, value in (("temperature", temperature), ("geo_temperature", geo_temperature)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value} weighs nothing (give a number above 0)")
        self.location, self.database = location, database
        self.temperature, self.geo_temperature = temperature, geo_temperature
        self.beta = _share(beta)
        self._xyz = on_sphere(database.latlon)
        self._keys, self._values = database.keys.float(), database.values.float()
        with torch.no_grad():
            found = self.key(database.latlon[:1]).shape[1]
        if found != self._keys.shape[1]:
            raise WeightsError(
                f"the location encoder gives {found} dimensions and the keys of the database have "
                f"{self._keys.shape[1]} (use the encoder that the database was built with)"
            )

    def read_with(self, temperature: float) -> "RetrievalEncoder":
        """Give the same encoder and database with another temperature of likeness."""
        return RetrievalEncoder(
            self.location,
            self.database,
            temperature=temperature,
            geo_temperature=self.geo_temperature,
            beta=self.beta,
        )

    @property
    def value_dim(self) -> int:
        """Dimensions of the visual part."""
        return self._values.shape[1]

    @property
    def key_dim(self) -> int:
        """Dimensions of the place part."""
        return self._keys.shape[1]

    @property
    def radius_km(self) -> float:
        """Distance at which nearness weighs 1/e of what it does at none.

        Source:
            exp(T cos(d/R)) = exp(T) exp(-T d^2 / 2 R^2) for d much smaller than R.
        """
        return EARTH_RADIUS_KM * math.sqrt(2 / self.geo_temperature)

    def key(self, latlon: Float[Tensor, "n 2"]) -> Float[Tensor, "n key"]:
        """Give the place part: unit vectors of the location encoder."""
        check_places(latlon)
        dtype = next((p.dtype for p in self.location.parameters()), torch.float32)
        found: Tensor = self.location(latlon.to(dtype))
        return unit(found).float()

    def visual(
        self, latlon: Float[Tensor, "n 2"], beta: float | None = None
    ) -> Float[Tensor, "n value"]:
        """Give the visual part: the mean look of all rows, weighted for each place.

        It is exact over all rows and needs memory for a bounded number of weights; gradients reach
        ``latlon`` and the location encoder, the weights being computed again on the way back.

        Raises:
            InvalidLocationError: A place is none.
            InvalidSpecError: ``beta`` is not of 0 to 1.
        """
        share = self.beta if beta is None else _share(beta)
        keys, xyz = self.key(latlon), on_sphere(latlon)
        at_once = max(1, _ENTRIES // len(self.database))
        steps = [slice(at, at + at_once) for at in range(0, len(latlon), at_once)]
        if torch.is_grad_enabled() and (keys.requires_grad or xyz.requires_grad):
            parts = [
                checkpoint(self._read, keys[step], xyz[step], share, use_reentrant=False)
                for step in steps
            ]
            return torch.cat(parts)
        # One block for all results: small ones between large ones would leave holes in the memory.
        found = self._values.new_empty(len(latlon), self.value_dim)
        for step in steps:
            found[step] = self._read(keys[step], xyz[step], share)
        return found

    def forward(
        self, latlon: Float[Tensor, "n 2"], beta: float | None = None
    ) -> Float[Tensor, "n value_and_key"]:
        """Give the visual part and behind it the place part, as published."""
        return torch.cat([self.visual(latlon, beta), self.key(latlon)], 1)

    @torch.no_grad()
    def weights(
        self, latlon: Float[Tensor, "n 2"], beta: float | None = None
    ) -> Float[Tensor, "n rows"]:
        """Give the share of every row in the look of a few places."""
        share = self.beta if beta is None else _share(beta)
        return self._weights(self.key(latlon), on_sphere(latlon), share)

    def sources(
        self, lat: float, lon: float, *, top: int = 8, beta: float | None = None
    ) -> list[Retrieved]:
        """Say where the look of a place comes from, the heaviest first.

        Raises:
            InvalidLocationError: There is no such place.
            InvalidSpecError: ``top`` or ``beta`` is out of range.
        """
        if not 1 <= top <= len(self.database):
            raise InvalidSpecError(
                f"top={top} of {len(self.database)} places (give 1 to {len(self.database)})"
            )
        here = torch.tensor([[lat, lon]], dtype=torch.float64)
        weights = self.weights(here, beta)[0]
        km = distances_km(here, self.database.latlon)[0]
        rows = weights.topk(top).indices
        places = self.database.latlon[rows].tolist()
        return [
            Retrieved(row, place[0], place[1], weight, apart)
            for row, place, weight, apart in zip(
                rows.tolist(), places, weights[rows].tolist(), km[rows].tolist(), strict=True
            )
        ]

    def spread_km(self, lat: float, lon: float, *, beta: float | None = None) -> float:
        """Give the distance within which half of all weight lies."""
        here = torch.tensor([[lat, lon]], dtype=torch.float64)
        km, order = distances_km(here, self.database.latlon)[0].sort()
        mass = self.weights(here, beta)[0][order].cumsum(0)
        return float(km[int((mass < mass[-1] / 2).sum())])

    def nearest_km(self, lat: float, lon: float) -> float:
        """Give the distance of the nearest row."""
        here = torch.tensor([[lat, lon]], dtype=torch.float64)
        return float(distances_km(here, self.database.latlon)[0].min())

    def most_alike(self, keys: Float[Tensor, "n key"]) -> tuple[Tensor, Tensor]:
        """Give the greatest cosine of each key with those of the database, and its row."""
        best = (unit(keys) @ self._keys.T).max(1)
        return best.values, best.indices

    def _weights(
        self, keys: Float[Tensor, "n key"], xyz: Float[Tensor, "n 3"], share: float
    ) -> Float[Tensor, "n rows"]:
        weights = keys.new_zeros(len(keys), len(self.database))
        if share > 0:
            semantic = (self.temperature * (keys @ self._keys.T)).softmax(1)
            weights = semantic if share == 1 else share * semantic
        if share < 1:
            nearness = xyz @ self._xyz.T.to(xyz)
            geodesic = (self.geo_temperature * nearness).softmax(1).to(keys)
            weights = weights + (1 - share) * geodesic
        return weights

    def _read(
        self, keys: Float[Tensor, "n key"], xyz: Float[Tensor, "n 3"], share: float
    ) -> Float[Tensor, "n value"]:
        return self._weights(keys, xyz, share) @ self._values


def on_sphere(latlon: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Give places as unit vectors."""
    lat, lon = torch.deg2rad(latlon).unbind(1)
    ring = lat.cos()
    return torch.stack([ring * lon.cos(), ring * lon.sin(), lat.sin()], 1)


def distances_km(a: Float[Tensor, "n 2"], b: Float[Tensor, "m 2"]) -> Float[Tensor, "n m"]:
    """Give all distances along the sphere, to a few metres."""
    cosine = on_sphere(a.double()) @ on_sphere(b.double()).T
    chord = (2 - 2 * cosine).clamp_min(0).sqrt()  # keeps its precision where places are near
    return (2 * EARTH_RADIUS_KM * torch.asin((chord / 2).clamp_max(1))).float()


def between(
    start: tuple[float, float], end: tuple[float, float], share: float
) -> tuple[float, float]:
    """Give a place on the great circle between two others.

    Args:
        start: Latitude and longitude, degrees.
        end: The same.
        share: 0 at the start, 1 at the end.

    Raises:
        InvalidLocationError: One is no place.
        InvalidSpecError: The two are opposite, so that every way is as short, or ``share`` is out
            of range.

    Source:
        Shoemake, "Animating rotation with quaternion curves" (1985), Eq. 2, on the sphere.
    """
    ends = torch.tensor([start, end], dtype=torch.float64)
    check_places(ends)
    a, b = on_sphere(ends)
    angle = float(2 * torch.asin(((a - b).norm() / 2).clamp_max(1)))
    if math.pi - angle < 1e-6:
        raise InvalidSpecError(
            f"{start} and {end} lie opposite each other, and no way between them is the shortest "
            "(give a place a little beside)"
        )
    share = _share(share)
    if angle < 1e-12:
        return start
    point = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
    x, y, z = point.tolist()
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def check_places(latlon: Float[Tensor, "n 2"]) -> None:
    """Refuse what lies off the Earth.

    Raises:
        InvalidLocationError: Names the first place that is none.
    """
    off = ~((latlon[:, 0].abs() <= 90) & (latlon[:, 1].abs() <= 180))  # NaN is off as well
    if off.any():
        lat, lon = latlon[int(off.nonzero()[0])].tolist()
        raise InvalidLocationError(lat, lon)


def _share(beta: float) -> float:
    if not 0 <= beta <= 1:
        raise InvalidSpecError(
            f"beta={beta:g} is no share (give 0, what lies near, to 1, what is alike)"
        )
    return float(beta)
