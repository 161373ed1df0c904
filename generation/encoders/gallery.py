"""Galleries: tiles, clips and captions that are found by likeness, kept in LanceDB.

A gallery is one table in a folder, or below any address that LanceDB takes (``s3://``, ``gs://``,
``file://``). It holds the embeddings of one model, says which, and is searched exactly: every row
that passes the filters is compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float64

from generation.atomic import atomic_folder
from generation.encoders.gallery_rows import (
    FORMAT,
    KINDS,
    Entry,
    Hit,
    Maker,
    cells_of,
    one_of,
    points_of,
    schema_of,
    table_of,
)
from generation.encoders.heads import Embedding, likeness
from generation.encoders.metadata import checked_month
from generation.errors import (
    InvalidSpecError,
    MissingFileError,
    OutputError,
    TerrascapeError,
    WeightsError,
    shown,
)
from generation.geo.location import Location, Region, great_circle_km

MAX_TOP = 1000
_TABLE = "gallery"
_Filter = Any
"""An expression of LanceDB, or ``None`` for every row."""
_BESIDE = 16
"""Rows that are compared again beside those that are asked for."""
_SLACK = 1e-5
"""How far a single-precision distance may be off, as a share and for distances near zero."""
_DIGITS = 7
"""Scores that are equal to so many decimals are a tie; the earlier row comes first."""


class Gallery:
    """A table of embeddings of one model; see :meth:`create` and :meth:`open`."""

    def __init__(self, table: Any, uri: str, maker: Maker) -> None:  # noqa: ANN401 - untyped
        self._table, self.uri, self.maker = table, uri, maker

    def __len__(self) -> int:
        return int(self._table.count_rows())

    @classmethod
    def create(
        cls, uri: str, maker: Maker, entries: Sequence[Entry], embedding: Embedding
    ) -> "Gallery":
        """Write a new gallery, whole or not at all.

        Args:
            uri: A new folder, or an address that LanceDB takes.
            maker: Whose embeddings they are.
            entries: One a row; their order decides ties.
            embedding: As many, of the maker's space.

        Raises:
            OutputError: There is one already, or it cannot be written there.
            InvalidSpecError: Entries and embedding do not fit each other or the maker, there are
                none, or an embedding has no direction or is not finite.
        """
        if not entries or len(entries) != len(embedding):
            raise InvalidSpecError(
                f"{len(entries)} entries and {len(embedding)} embeddings make no gallery (give as "
                "many of both, at least one)"
            )
        vectors, spread = points_of(embedding, maker)
        data = table_of(maker, entries, vectors, spread)
        if _is_remote(uri):
            _write(uri, data)
            return cls.open(uri, maker.sha256)
        if Path(uri).exists():
            raise OutputError(f"{uri} exists and is not overwritten (choose another)")
        with atomic_folder(Path(uri)) as staging:
            _write(str(staging), data)
        return cls.open(uri, maker.sha256)

    @classmethod
    def open(cls, uri: str, sha256: str | None = None) -> "Gallery":
        """Open a gallery to be searched; nothing is written to it.

        Args:
            uri: What :meth:`create` was given.
            sha256: Of the model that queries will be embedded with, if it is known already.

        Raises:
            MissingFileError: There is none.
            WeightsError: It is damaged, none of ours, or was made by another model.
        """
        if not _is_remote(uri) and not (Path(uri) / f"{_TABLE}.lance").is_dir():
            raise MissingFileError(
                f"no gallery in {uri} (build one: python -m training.sound_gallery --help)"
            )
        import lancedb

        with _readable(uri):
            table = lancedb.connect(uri).open_table(_TABLE)
            gallery = cls(table, uri, _maker(table.schema, uri))
        if sha256 is not None:
            gallery.require(sha256)
        return gallery

    def require(self, sha256: str) -> None:
        """Refuse to be searched by another model than the one that made it.

        Raises:
            WeightsError: It was made by another; both hashes are named.
        """
        if sha256 != self.maker.sha256:
            raise WeightsError(
                f"the gallery {self.uri} was made by {self.maker.model} with sha256 "
                f"{self.maker.sha256}, the model at hand has sha256 {sha256} (embeddings of two "
                "models cannot be compared: take its own model, or build the gallery again)"
            )

    def search(
        self,
        query: Embedding,
        top: int,
        *,
        kinds: Sequence[str] = (),
        region: Region | None = None,
        month: int | None = None,
        licences: Sequence[str] = (),
    ) -> list[Hit]:
        """Find the rows that are most alike; equal scores come in the order of the rows.

        Args:
            query: One embedding of the maker's space.
            top: How many, 1 to ``MAX_TOP``; fewer come where fewer pass.
            kinds: Of ``KINDS``; all if empty.
            region: Rows without a place lie in none.
            month: 1 to 12; rows without a month pass none.
            licences: Whole names, upper or lower case; all if empty.

        Raises:
            InvalidSpecError: A value is not allowed, or no row has the licence.
            WeightsError: The gallery is damaged.
        """
        if not 1 <= top <= MAX_TOP:
            raise InvalidSpecError(f"top={shown(top)} is not allowed (give 1 to {MAX_TOP})")
        if len(query) != 1:
            raise InvalidSpecError(f"{len(query)} queries at once (give one)")
        point = points_of(query, self.maker)[0][0]
        point[-1] = 0.0
        known = {each.casefold(): each for each in self.licences()} if licences else {}
        for licence in licences:
            one_of("licence", licence.casefold(), tuple(known), tuple(known.values()))
        where = _where(kinds, region, month, [known[each.casefold()] for each in licences])
        return self._best(query, point, where, top)

    def search_each(
        self,
        query: Embedding,
        top: int,
        *,
        kinds: Sequence[str],
        **filters: Any,  # noqa: ANN401 - those of search
    ) -> list[Hit]:
        """Find the ``top`` rows of each kind, kind by kind; see :meth:`search`.

        Sounds are more like other sounds than like any tile: together they would hide the tiles.
        """
        each = (self.search(query, top, kinds=(kind,), **filters) for kind in kinds or KINDS)
        return [hit for hits in each for hit in hits]

    def licences(self) -> list[str]:
        """Name the licences of all rows, sorted."""
        found = self._rows(None, ["licence"])["licence"]
        return sorted({str(each) for each in found.to_pylist()})

    def nearest_tile(self, place: Location) -> tuple[Entry, Embedding, float]:
        """Give the tile whose centre is nearest to a place.

        Returns:
            The tile; its embedding, whose spread is even over its axes, which no score can tell
            from the true one; and how far it is, in kilometres.

        Raises:
            InvalidSpecError: The gallery has no tiles.
        """
        tiles = self._rows(_where(("tile",), None, None, ()), ["row", "lat", "lon"]).to_pylist()
        if not tiles:
            raise InvalidSpecError(
                f"the gallery {self.uri} has no tiles to ask about a place (ask by text, audio or "
                "image)"
            )
        apart, row = min(
            (great_circle_km(place, Location(each["lat"], each["lon"])), int(each["row"]))
            for each in tiles
        )
        found = self._rows(_is_row(row), None)
        return Entry(**cells_of(found, Entry)[0]), self._embedding(found), apart

    def tile_scores(
        self, query: Embedding
    ) -> tuple[Float64[np.ndarray, "tiles 2"], Float64[np.ndarray, " tiles"]]:
        """Compare every tile with a query, by the likeness that :meth:`search` ranks by.

        Args:
            query: One embedding of the maker's space.

        Returns:
            The tiles' centres, latitude and longitude in degrees; and their scores, higher is more
            alike. Both are empty where the gallery has no tiles.

        Raises:
            InvalidSpecError: The query is not one embedding of the maker's space.
            WeightsError: The gallery is damaged.
        """
        if len(query) != 1:
            raise InvalidSpecError(f"{len(query)} queries at once (give one)")
        points_of(query, self.maker)
        columns = ["lat", "lon", "spread", "vector"]
        found = self._rows(_where(("tile",), None, None, ()), columns)
        latlon = np.stack([found[name].to_numpy() for name in columns[:2]], 1)
        if not len(found):
            return latlon, np.zeros(0)
        scores = likeness(_double(query), _double(self._embedding(found)))[0].numpy()
        if not np.isfinite(scores).all():
            raise _damaged(self.uri, "it holds numbers that are none")
        return latlon, scores

    def _best(
        self,
        query: Embedding,
        point: Float[np.ndarray, " axes"],
        where: _Filter,
        top: int,
    ) -> list[Hit]:
        """Compare again, in double precision, all that rounding could have put in wrong order."""
        count = top + _BESIDE
        while True:
            found = self._near(point, where, count)
            apart = found["_distance"].to_numpy()
            if len(apart) < count or apart[-1] > apart[top - 1] * (1 + _SLACK) + _SLACK:
                break
            count *= 4
        scores = likeness(_double(query), _double(self._embedding(found)))[0].numpy()
        if not np.isfinite(scores).all():
            raise _damaged(self.uri, "it holds numbers that are none")
        order = np.lexsort((found["row"].to_numpy(), -np.round(scores, _DIGITS)))[:top]
        return [
            Hit(**cells, score=float(scores[at]))
            for cells, at in zip(cells_of(found.take(order), Hit), order.tolist(), strict=True)
        ]

    def _near(self, point: np.ndarray, where: _Filter, count: int) -> pa.Table:
        with _readable(self.uri):
            asked = self._table.search(point, vector_column_name="vector").distance_type("l2")
            if where is not None:
                asked = asked.where(where, prefilter=True)
            return asked.bypass_vector_index().limit(count).to_arrow()

    def _rows(self, where: _Filter, columns: list[str] | None) -> pa.Table:
        with _readable(self.uri):
            asked = self._table.search()
            if where is not None:
                asked = asked.where(where)
            if columns is not None:
                asked = asked.select(columns)
            return asked.limit(max(1, len(self))).to_arrow()

    def _embedding(self, found: pa.Table) -> Embedding:
        axes = self.maker.dim + 1
        flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vector = torch.from_numpy(flat.reshape(-1, axes)[:, :-1].copy())
        if self.maker.kind != "gaussian":
            return Embedding(vector)
        spread = torch.from_numpy(found["spread"].to_numpy().astype(np.float32))
        even = (spread / self.maker.dim).log()[:, None].expand(-1, self.maker.dim)
        return Embedding(vector, even)


def _is_remote(uri: str) -> bool:
    return "://" in uri


def _write(uri: str, data: pa.Table) -> None:
    import lancedb

    try:
        lancedb.connect(uri).create_table(_TABLE, data)
    except (RuntimeError, ValueError, OSError) as error:
        raise OutputError(
            f"{uri} cannot hold a gallery: {_reason(error)} (choose a new place that is writable)"
        ) from error


def _maker(schema: pa.Schema, uri: str) -> Maker:
    """Read who made a table, and check that it has the columns of a gallery."""
    about: Mapping[str, str] = {
        key.decode(): value.decode() for key, value in (schema.metadata or {}).items()
    }
    told = about.get("terrascape_gallery")
    if told != FORMAT:
        raise _damaged(uri, f"its table is of format {shown(told)} and not {FORMAT}")
    try:
        maker = Maker(about["model"], about["sha256"], about["kind"], int(about["dim"]))
        fits = schema.equals(schema_of(maker))
    except (KeyError, ValueError) as error:
        raise _damaged(uri, f"it does not say who made it ({error})") from error
    if not fits:
        raise _damaged(uri, "its columns are others than a gallery's")
    return maker


def _where(
    kinds: Sequence[str], region: Region | None, month: int | None, licences: Sequence[str]
) -> _Filter:
    """Join filters; values travel as literals, never as text of a query."""
    from lancedb.expr import col, lit

    parts = []
    for kind in kinds:
        one_of("kind", kind, KINDS)
    for name, values in (("kind", kinds), ("licence", licences)):
        if values:
            parts.append(col(name).isin([lit(value) for value in values]))
    if month is not None:
        parts.append(col("month") == lit(checked_month(month)))
    if region is not None:
        parts.append(_inside(region))
    whole = None
    for part in parts:
        whole = part if whole is None else whole & part
    return whole


def _inside(region: Region) -> _Filter:
    """Keep what lies in a box, its edges too; longitude 180 is longitude -180."""
    from lancedb.expr import col, lit

    lat, lon = col("lat"), col("lon")
    east, west = lon >= lit(float(region.west)), lon <= lit(float(region.east))
    across = east | west if region.crosses_antimeridian else east & west
    if region.west == -180 or region.east == 180:
        across = across | (lon == lit(180.0)) | (lon == lit(-180.0))
    return (lat >= lit(float(region.south))) & (lat <= lit(float(region.north))) & across


def _is_row(row: int) -> _Filter:
    from lancedb.expr import col, lit

    return col("row") == lit(row)


def _double(embedding: Embedding) -> Embedding:
    log_variance = embedding.log_variance
    return Embedding(
        embedding.vector.detach().cpu().double(),
        None if log_variance is None else log_variance.detach().cpu().double(),
    )


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    """Turn what LanceDB says of a damaged table into a sentence."""
    try:
        yield
    except TerrascapeError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise _damaged(uri, _reason(error)) from error


def _damaged(uri: str, reason: str) -> WeightsError:
    return WeightsError(
        f"{uri} is no whole gallery: {reason} (copy it again, or build it: python -m "
        "training.sound_gallery --help)"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split(", /")[0].split())[:160]
