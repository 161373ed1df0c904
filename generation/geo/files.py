"""Reading map files: every format ends as a :class:`~generation.geo.shapes.ShapeSet`.

Two kinds of files are told apart. *Data* (OSM, GeoParquet, GeoPackage) comes from a machine: broken
rings are repaired and counted in a note, and a coordinate system that the file declares is
converted. A *drawing* (GeoJSON) comes from a person: a ring that crosses itself or coordinates that
are no degrees are refused with the place of the mistake, because the repair would be a guess.

A feature says how it is drawn by a property ``layer`` (a name of ``LAYERS``) with an optional
``width_m`` for lines; files without any such property are read by their OpenStreetMap tags.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from generation.errors import LayoutError
from generation.geo.layout import LAYERS
from generation.geo.osm import ATTRIBUTION, Row, read_xml
from generation.geo.overpass import shapes_from_rows
from generation.geo.shapes import MapShape, ShapeSet, mend
from generation.geo.tags import KEYS, MAX_WIDTH_M

MAX_JSON_BYTES = 64 << 20
MAX_FEATURES = 300_000
LINE_WIDTH_M: dict[str, float] = {"road": 6.0, "rail": 4.0, "river": 10.0}
"""Layers that may be lines, with the width of a line that gives none."""
LON_LAT_SLACK_DEG = 1e-6
MANY = 5
"""The most mistakes that one message lists."""
Record = tuple[dict[str, Any], BaseGeometry | None]
"""The properties of a feature and its geometry."""
Frame = Any
"""A geopandas.GeoDataFrame; the package is imported late."""


def read_osm_xml(path: Path, *, repair: bool) -> ShapeSet:
    """Read ``.osm``; broken relations are always repaired, as osmnx does."""
    del repair
    return _from_rows(path, read_xml(path), extra=())


def read_osm_pbf(path: Path, *, repair: bool) -> ShapeSet:
    """Read ``.osm.pbf`` through GDAL; it builds the multipolygons."""
    import pyogrio

    del repair
    if "OSM" not in pyogrio.list_drivers():
        raise LayoutError(
            f"{path.name}: the installed GDAL cannot read .osm.pbf (its OSM driver is missing; "
            "convert the file to .osm or GeoJSON, or reinstall pyogrio from its wheel)"
        )
    rows: list[Row] = []
    ragged = 0
    for layer in ("lines", "multipolygons"):
        with _foreign(path, "a map", "the file is damaged or of another kind") as caught:
            meta, _, geometry, fields = pyogrio.raw.read(
                path, max_features=MAX_FEATURES + 1, layer=layer, TAGS_FORMAT="JSON"
            )
        ragged += sum("ring" in str(w.message) for w in caught)
        rows += _pbf_rows(meta["fields"], geometry, fields)
    extra = ("areas that the extract cuts are closed with straight lines",) if ragged else ()
    return _from_rows(path, rows, extra)


def _pbf_rows(names: Iterable[str], geometry: np.ndarray, fields: list[np.ndarray]) -> list[Row]:
    columns = {n: f for n, f in zip(names, fields, strict=True) if n in KEYS or n == "other_tags"}
    rows = []
    for i, shape in enumerate(shapely.from_wkb(geometry, on_invalid="ignore")):
        if shape is None:
            continue
        others = columns["other_tags"][i]
        tags: dict[str, str] = json.loads(others) if others else {}
        tags |= {n: c[i] for n, c in columns.items() if n != "other_tags" and c[i] is not None}
        rows.append((tags, shape))
    return rows


@contextmanager
def _foreign(path: Path, kind: str, hint: str) -> Iterator[list[warnings.WarningMessage]]:
    """Let another package read a file; its errors become ours, its warnings a list."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    except (LayoutError, PermissionError):
        raise
    except Exception as error:  # these packages raise of every kind for a damaged file
        reason = " ".join(f"{error}".split())[:120] or type(error).__name__
        raise LayoutError(
            f"{path.name}: not readable as {kind}: {reason} ({hint}; export it again)"
        ) from error


def _from_rows(path: Path, rows: list[Row], extra: tuple[str, ...]) -> ShapeSet:
    if len(rows) > MAX_FEATURES:
        raise _too_many(path)
    if rows:
        check_lon_lat(path, [shape for _, shape in rows])
    shapes, mended = shapes_from_rows(rows)
    if not shapes:
        raise LayoutError(
            f"{path.name}: none of its {len(rows)} tagged features is of a kind that is drawn "
            "(roads, railways, water, ground cover, buildings; export another selection)"
        )
    notes = (f"{mended} self-intersecting areas were repaired",) if mended else ()
    return ShapeSet(shapes, path.name, ATTRIBUTION, extra + notes)


def read_geojson(path: Path, *, repair: bool) -> ShapeSet:
    """Read GeoJSON; always longitude and latitude, as RFC 7946 says."""
    try:
        records = geojson_records(path)
        return _from_records(path, records, repair=repair)
    except RecursionError:
        raise LayoutError(
            f"{path.name}: collections within collections without end (a feature holds one "
            "geometry; take the collections apart)"
        ) from None


def geojson_records(path: Path) -> list[Record]:
    """Give properties and geometry of each feature; the file is not trusted."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise LayoutError(
            f"{path.name}: larger than {MAX_JSON_BYTES >> 20} MiB (cut it to the place, or convert "
            "it to .parquet)"
        )
    data = _parse_json(path)
    _check_geojson_crs(path, data)
    records: list[Record] = []
    problems: list[str] = []
    for i, feature in enumerate(_features(path, data)):
        try:
            properties = feature.get("properties") or {}
            shape = shapely.geometry.shape(feature["geometry"]) if feature["geometry"] else None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ShapelyError):
            problems.append(f"feature {i} has no readable geometry")
            continue
        if isinstance(properties, dict):
            records.append((properties, shape))
        else:
            problems.append(f"feature {i} has properties that are no object")
    _refuse(path, problems, "correct them in a map editor and export again")
    return records


def _parse_json(path: Path) -> dict[str, Any]:
    def refuse(name: str) -> float:
        raise ValueError(f"{name} is no number of JSON")

    try:
        data = json.loads(path.read_bytes(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise LayoutError(
            f"{path.name}: not readable as JSON: {f'{error}'[:100]} (the file is damaged or of "
            "another kind; export it again as GeoJSON)"
        ) from error
    kind = data.get("type") if isinstance(data, dict) else type(data).__name__
    if not isinstance(data, dict) or not isinstance(kind, str) or kind not in _GEOJSON_TYPES:
        raise LayoutError(
            f"{path.name}: no GeoJSON map, its type is {kind!r:.40} (a FeatureCollection, a "
            "Feature or a geometry is read; export the map as GeoJSON)"
        )
    return data


_GEOMETRY_TYPES = {
    "Polygon", "MultiPolygon", "LineString", "MultiLineString", "GeometryCollection", "Point",
    "MultiPoint",
}  # fmt: skip
_GEOJSON_TYPES = {"FeatureCollection", "Feature"} | _GEOMETRY_TYPES


def _features(path: Path, data: dict[str, Any]) -> list[Any]:
    if data["type"] in _GEOMETRY_TYPES:
        data = {"type": "Feature", "geometry": data, "properties": {}}
    features = data.get("features") if data["type"] == "FeatureCollection" else [data]
    if not isinstance(features, list) or not features:
        raise LayoutError(
            f"{path.name}: a map without features (at least one is needed; draw something or "
            "choose --layout auto)"
        )
    if len(features) > MAX_FEATURES:
        raise _too_many(path)
    return features


def _check_geojson_crs(path: Path, data: dict[str, Any]) -> None:
    """Refuse the coordinate systems that GeoJSON does not have (any more)."""
    crs = data.get("crs")
    if crs is None:
        return
    inner = crs.get("properties") if isinstance(crs, dict) else None
    name = inner.get("name", crs) if isinstance(inner, dict) else crs
    if not str(name).upper().endswith(("CRS84", ":4326")):
        raise LayoutError(
            f"{path.name}: coordinate system {name!r:.60} (GeoJSON is always longitude and "
            "latitude, EPSG:4326; convert it: ogr2ogr -t_srs EPSG:4326 new.geojson "
            f"{path.name})"
        )


def read_parquet(path: Path, *, repair: bool) -> ShapeSet:
    """Read GeoParquet; a declared coordinate system is converted."""
    import geopandas
    from pyarrow import parquet

    hint = "a table with a geometry column and its metadata is needed"
    with _foreign(path, "GeoParquet", hint):
        about = parquet.read_metadata(path)
        if about.num_rows > MAX_FEATURES:
            raise _too_many(path)
        frame = geopandas.read_parquet(path)
        geo = json.loads(about.metadata[b"geo"])
        named = "crs" in geo["columns"][geo["primary_column"]]
    note = "read as longitude and latitude, since GeoParquet without a coordinate system means them"
    return _from_frames(path, [frame], repair=repair, notes=() if named else (note,))


def read_gpkg(path: Path, *, repair: bool) -> ShapeSet:
    """Read all layers of a GeoPackage; a declared coordinate system is converted."""
    import geopandas
    import pyogrio

    with _foreign(path, "a GeoPackage", "the file is damaged or of another kind"):
        frames = [
            geopandas.read_file(path, layer=name, max_features=MAX_FEATURES + 1)
            for name, kind in pyogrio.list_layers(path)
            if kind is not None
        ]
    return _from_frames(path, frames, repair=repair)


def _from_frames(
    path: Path, frames: list[Frame], *, repair: bool, notes: tuple[str, ...] = ()
) -> ShapeSet:
    """Turn tables into shapes, in degrees."""
    if sum(map(len, frames)) > MAX_FEATURES:
        raise _too_many(path)
    records: list[Record] = []
    for frame in frames:
        crs = frame.crs
        if crs is None or crs.name.startswith("Undefined") or crs.is_engineering:
            raise LayoutError(
                f"{path.name}: no coordinate system declared (any that the file names is "
                "converted; set it when exporting, for instance EPSG:4326)"
            )
        if not crs.equals("EPSG:4326", ignore_axis_order=True):
            notes += (f"converted from {crs.name} to longitude and latitude",)
        with _foreign(path, "a map", "its coordinate system cannot be converted to EPSG:4326"):
            geometries = frame.to_crs(4326).geometry
            columns = [c for c in frame.columns if c in KEYS | {"layer", "width_m", "tags"}]
            values = [frame[c].tolist() for c in columns]
        for i, geometry in enumerate(geometries):
            row = {c: v[i] for c, v in zip(columns, values, strict=True)}
            records.append((row, geometry))
    return _from_records(path, records, repair=repair, notes=tuple(dict.fromkeys(notes)))


def _from_records(
    path: Path, records: list[Record], *, repair: bool, notes: tuple[str, ...] = ()
) -> ShapeSet:
    """Turn features with properties into shapes; all mistakes of the file in one message."""
    check_lon_lat(path, [g for _, g in records if g is not None])
    named = any(_layer(p) is not None for p, _ in records)
    shapes: list[MapShape] = []
    mended = skipped = 0
    problems: list[str] = []
    for i, (properties, geometry) in enumerate(records):
        try:
            whole, broken = mend(shapely.force_2d(geometry))
        except ShapelyError:
            problems.append(f"feature {i}: a {type(geometry).__name__} that cannot be repaired")
            continue
        if broken and not repair:
            problems.append(f"feature {i}: {shapely.is_valid_reason(geometry)}")
            continue
        mended += broken
        shape = _shape(i, properties, whole, problems) if named else _tagged(properties, whole)
        skipped += shape is None
        shapes += [shape] if shape is not None else []
    _refuse(
        path, problems, "correct them in a map editor, for instance with its tool to fix geometries"
    )
    if not shapes:
        raise LayoutError(
            f"{path.name}: none of its {len(records)} features can be drawn (areas or lines with a "
            f"property layer, one of {', '.join(LAYERS)}, or with OpenStreetMap tags; add it)"
        )
    notes += (f"{mended} self-intersecting areas were repaired",) if mended else ()
    notes += (f"{skipped} features of the file are of no kind that is drawn",) if skipped else ()
    attribution = "" if named else ATTRIBUTION
    return ShapeSet(shapes, path.name, attribution, notes)


def _layer(properties: Mapping[str, Any]) -> str | None:
    """Give the property ``layer``; a number there is OpenStreetMap's tag for crossings."""
    value = properties.get("layer")
    if not isinstance(value, str) or value.lstrip("+-").isdigit():
        return None
    return value


def _shape(
    index: int, properties: Mapping[str, Any], geometry: BaseGeometry | None, problems: list[str]
) -> MapShape | None:
    """Make a shape of a feature that names its layer, or note its mistake."""
    layer = _layer(properties)
    if layer is None or geometry is None:
        return None
    if layer not in LAYERS:
        problems.append(f"feature {index}: layer {layer[:40]!r} is none of {', '.join(LAYERS)}")
        return None
    if shapely.get_dimensions(geometry) == 2:
        return MapShape(geometry, layer)
    if layer not in LINE_WIDTH_M:
        problems.append(f"feature {index}: a line cannot be {layer} (draw an area)")
        return None
    width_m = properties.get("width_m")
    if width_m is None or (isinstance(width_m, float) and math.isnan(width_m)):
        width_m = LINE_WIDTH_M[layer]
    if isinstance(width_m, bool) or not isinstance(width_m, int | float):
        problems.append(f"feature {index}: width_m={width_m!r:.40} is no number of metres")
        return None
    if not 0 < width_m <= MAX_WIDTH_M:
        problems.append(f"feature {index}: width_m={width_m!r:.40} (0 to {MAX_WIDTH_M:g} metres)")
        return None
    return MapShape(geometry, layer, float(width_m))


def _tagged(properties: Mapping[str, Any], geometry: BaseGeometry | None) -> MapShape | None:
    """Make a shape of a feature with OpenStreetMap tags, flat or under ``tags``."""
    if geometry is None:
        return None
    nested = properties.get("tags")
    source = nested if isinstance(nested, Mapping) else properties
    tags = {str(k): str(v) for k, v in source.items() if isinstance(v, str | int | float)}
    shapes, _ = shapes_from_rows([(tags, geometry)])
    return shapes[0] if shapes else None


def check_lon_lat(path: Path, geometries: list[BaseGeometry]) -> None:
    """Refuse coordinates that are no degrees."""
    points = shapely.get_coordinates(geometries)
    if not len(points):
        raise LayoutError(
            f"{path.name}: an empty map (at least one area or line is needed; draw something or "
            "choose --layout auto)"
        )
    lon, lat = np.abs(points[:, 0]), np.abs(points[:, 1])
    inside = (lon <= 180 + LON_LAT_SLACK_DEG) & (lat <= 90 + LON_LAT_SLACK_DEG)
    if inside.all():
        return
    x, y = points[~inside][0]
    swapped = bool((lat <= 180).all() and (lon <= 90).all())
    hint = (
        "latitude and longitude look swapped; GeoJSON puts longitude first"
        if swapped
        else "it looks like metres of another coordinate system; convert it to EPSG:4326"
    )
    raise LayoutError(
        f"{path.name}: the point ({x:g}, {y:g}) is not on Earth (longitude -180 to 180 and "
        f"latitude -90 to 90 degrees; {hint})"
    )


def _refuse(path: Path, problems: list[str], cure: str) -> None:
    """Report all mistakes of a file at once."""
    if problems:
        more = f" and {len(problems) - MANY} more" if len(problems) > MANY else ""
        raise LayoutError(f"{path.name}: {'; '.join(problems[:MANY])}{more} ({cure})")


def _too_many(path: Path) -> LayoutError:
    return LayoutError(
        f"{path.name}: more than {MAX_FEATURES:,} features (a map of one place has fewer; cut it "
        "to the place, for instance with osmium extract or ogr2ogr -spat)"
    )


Reader = Callable[..., ShapeSet]
READERS: dict[str, tuple[Reader, bool]] = {
    ".osm": (read_osm_xml, True),
    ".pbf": (read_osm_pbf, True),
    ".geojson": (read_geojson, False),
    ".json": (read_geojson, False),
    ".parquet": (read_parquet, True),
    ".geoparquet": (read_parquet, True),
    ".gpkg": (read_gpkg, True),
}
"""File ending -> its reader, and whether broken areas are repaired (data) or refused (drawings)."""
