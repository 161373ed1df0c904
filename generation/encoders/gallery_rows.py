"""The rows of a gallery: what they say, and how a table of Arrow holds them.

A row's vector has one axis more than the space: the square root of its spread, the sum of its
variances. A query has zero there, so that the squared distance of the two is
``|mean - mean'|^2 + spread'``, by which Gaussians are ranked; points, of unit length and without
spread, are ranked by it as by the cosine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from generation.encoders.heads import Embedding, unit
from generation.encoders.metadata import checked_hour, checked_month
from generation.encoders.sound_encoder import SoundEncoder
from generation.errors import InvalidSpecError, shown
from generation.geo.location import Location

KINDS = ("tile", "clip", "caption")
LOCATION_SOURCES = ("real", "simulated", "none")
FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Maker:
    """The space whose embeddings a gallery holds."""

    model: str
    sha256: str
    kind: str
    """Of its head: ``pooled``, ``gaussian`` or ``codebook``."""
    dim: int

    @classmethod
    def of(cls, encoder: SoundEncoder) -> "Maker":
        """Describe an encoder."""
        config = encoder.space.config
        return cls(encoder.name, encoder.sha256, str(config["kind"]), int(config["dim"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of a row besides its embedding."""

    kind: str
    """One of ``KINDS``."""
    title: str
    licence: str
    author: str
    url: str = ""
    """Where it comes from; empty if nowhere to be looked at."""
    lat: float | None = None
    lon: float | None = None
    month: int | None = None
    hour: float | None = None
    """Local time, 0 to below 24."""
    gsd_m: float | None = None
    """Metres on the ground that a pixel covers, of tiles."""
    location_source: str = "none"
    """One of ``LOCATION_SOURCES``: where the place is from, ``none`` if there is none."""

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        one_of("location_source", self.location_source, LOCATION_SOURCES)
        if (self.lat is None) != (self.lon is None):
            raise InvalidSpecError(
                f"lat={self.lat}, lon={self.lon} is half a place (give both or neither)"
            )
        if self.lat is not None and self.lon is not None:
            Location(self.lat, self.lon)
        if (self.lat is None) != (self.location_source == "none"):
            raise InvalidSpecError(
                f"location_source={self.location_source!r} with lat={self.lat} (a place is real "
                "or simulated, none has no place)"
            )
        if self.month is not None:
            checked_month(self.month)
        if self.hour is not None:
            checked_hour(self.hour)
        if self.gsd_m is not None and not 0 < self.gsd_m < math.inf:
            raise InvalidSpecError(f"gsd_m={self.gsd_m} is no size of a pixel (give metres)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(Entry):
    """A row that was found."""

    row: int
    """Its number in the gallery."""
    score: float
    """Its :func:`generation.encoders.heads.likeness` to the query: higher is more alike."""


def one_of(
    name: str, value: str, allowed: Sequence[str], told: Sequence[str] | None = None
) -> None:
    """Refuse a value that is not among those allowed; ``told`` is how they are told.

    Raises:
        InvalidSpecError: It is not.
    """
    if value not in allowed:
        raise InvalidSpecError(
            f"{name}={shown(value)} is none of them (give one of {', '.join(told or allowed)})"
        )


def points_of(
    embedding: Embedding, maker: Maker
) -> tuple[Float[np.ndarray, "batch axes"], Float[np.ndarray, " batch"]]:
    """Give the vectors as they are stored, the root of the spread behind them, and the spread.

    Raises:
        InvalidSpecError: They are not of the maker's space, have no direction, or are not finite.
    """
    vector = embedding.vector.detach().cpu().float()
    if vector.shape[1] != maker.dim or (embedding.log_variance is None) == (
        maker.kind == "gaussian"
    ):
        kind = "points" if embedding.log_variance is None else "Gaussians"
        raise InvalidSpecError(
            f"{kind} of {vector.shape[1]} axes are not of {maker.model}, a {maker.kind} space of "
            f"{maker.dim} (embed them with it)"
        )
    spread = torch.zeros(len(vector))
    if embedding.log_variance is None:
        vector = unit(vector)
    else:
        spread = embedding.log_variance.detach().cpu().double().exp().sum(1).float()
    points = torch.cat([vector, spread.sqrt()[:, None]], 1)
    lengths = vector.norm(dim=1)
    bad = ~(points.isfinite().all(1) & (lengths > 0))
    if bool(bad.any()):
        raise InvalidSpecError(
            f"{int(bad.sum())} of {len(bad)} embeddings are zero or not finite (check the model "
            "and what it was given)"
        )
    return points.numpy(), spread.numpy()


def schema_of(maker: Maker) -> pa.Schema:
    """Give the columns of a gallery, and who made it."""
    words = {name: pa.string() for name in ("kind", "title", "licence", "author", "url")}
    figures = {
        name: pa.int8() if name == "month" else pa.float64()
        for name in ("lat", "lon", "month", "hour", "gsd_m")
    }
    columns = {
        "row": pa.int32(),
        **words,
        **figures,
        "location_source": pa.string(),
        "spread": pa.float32(),
        "vector": pa.list_(pa.float32(), maker.dim + 1),
    }
    about = {
        "terrascape_gallery": FORMAT,
        "model": maker.model,
        "sha256": maker.sha256,
        "kind": maker.kind,
        "dim": str(maker.dim),
    }
    return pa.schema([pa.field(*each) for each in columns.items()], metadata=about)


def table_of(
    maker: Maker,
    entries: Sequence[Entry],
    vectors: Float[np.ndarray, "batch axes"],
    spread: Float[np.ndarray, " batch"],
) -> pa.Table:
    """Give the whole gallery as a table; see :func:`points_of` for vectors and spread."""
    columns: dict[str, Any] = {
        field.name: [getattr(entry, field.name) for entry in entries] for field in fields(Entry)
    }
    columns["row"], columns["spread"] = np.arange(len(entries), dtype=np.int32), spread
    columns["vector"] = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.ravel()), vectors.shape[1]
    )
    return pa.table(columns, schema=schema_of(maker))


def cells_of(found: pa.Table, kind: type[Entry]) -> list[dict[str, Any]]:
    """Give, row by row, what an entry or a hit is made of, but for its score."""
    names = [field.name for field in fields(kind) if field.name != "score"]
    cells: list[dict[str, Any]] = found.select(names).to_pylist()
    return cells
