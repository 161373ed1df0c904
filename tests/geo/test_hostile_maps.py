"""Map files that nobody would draw: whatever they hold, the reader ends in one sentence."""

import contextlib
import json
import sqlite3
from xml.sax.saxutils import quoteattr

import geopandas
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.errors import LayoutError, TerrascapeError
from generation.geo.coast import divide
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.geo.sources import FileSource

WINDOW = Window.around(Location(47.002, 8.003), 14, 64)
HUGE = 10**400
SQUARE = [[8.0, 47.0], [8.006, 47.0], [8.006, 47.004], [8.0, 47.004], [8.0, 47.0]]
FUZZ = settings(max_examples=60, deadline=None, derandomize=True)


def read(path):
    return FileSource(path, base="land").layout(WINDOW)


def refuses(path, said):
    with pytest.raises(LayoutError, match=said) as caught:
        read(path)
    told = str(caught.value)
    assert path.name in told
    assert "(" in told
    assert "\n" not in told
    assert len(told) < 400


def draws_or_refuses(path):
    """Any other error than ours fails the test."""
    with contextlib.suppress(TerrascapeError):
        read(path)


def drawing(coordinates=SQUARE, kind="LineString", top=None, **properties):
    geometry = {"type": kind, "coordinates": coordinates}
    feature = {"type": "Feature", "properties": {"layer": "road"} | properties}
    whole = {"type": "FeatureCollection", "features": [feature | {"geometry": geometry}]}
    return json.dumps(whole | (top or {}))


# --- GeoJSON -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (drawing(top={"crs": {"properties": [1, 2]}}), "coordinate system.*always longitude"),
        (drawing(top={"crs": {"properties": "EPSG:3857"}}), "coordinate system.*ogr2ogr"),
        (drawing(top={"crs": {"properties": {"name": [4326]}}}), "coordinate system.*ogr2ogr"),
        (drawing(top={"crs": [1]}), "coordinate system.*ogr2ogr"),
        (drawing(top={"type": ["Feature"]}), "no GeoJSON map.*its type is.*export"),
        (drawing(top={"type": {}}), "no GeoJSON map.*its type is.*export"),
        (drawing(top={"type": "x" * 9999}), "no GeoJSON map.*its type is 'xxx.*export"),
        (drawing([[8.0, 47.0], [HUGE, 47.0]]), "feature 0 has no readable geometry.*correct"),
        (drawing([[8.0, 47.0], [8.0, -HUGE]]), "feature 0 has no readable geometry.*correct"),
        (drawing([[8, 47], [8, "9e999"]]).replace('"9e999"', "9e999"), "not on Earth"),
        (drawing([[8.0, 47.0], [None, 47.0]]), "not on Earth|no readable geometry"),
        (drawing(width_m=HUGE), r"feature 0: width_m=100000.* \(0 to 200 metres\)"),
        (drawing(width_m=-HUGE), r"feature 0: width_m=-100000.* \(0 to 200 metres\)"),
        (drawing(width_m=["wide"] * 999), "feature 0: width_m=.* is no number of metres"),
        ('{"type": "Feature", "geometry": null, "properties": [["layer", "road"]]}', "no object"),
        ('{"type": "Feature", "geometry": 5}', "no readable geometry"),
    ],
)
def test_a_drawing_with_impossible_values_is_refused(tmp_path, text, said):
    (tmp_path / "a.geojson").write_text(text)
    refuses(tmp_path / "a.geojson", said)


@pytest.mark.parametrize("depth", [10, 150, 250, 320, 330, 450, 480, 700, 2000])
def test_collections_within_collections_come_to_an_end(tmp_path, depth):
    inner = '{"type": "LineString", "coordinates": [[8.0, 47.0], [8.01, 47.0]]}'
    start = '{"type": "GeometryCollection", "geometries": ['
    (tmp_path / "a.geojson").write_text(start * depth + inner + "]}" * depth)
    refuses(tmp_path / "a.geojson", "collections within|cannot be drawn|can be drawn|as JSON")


KINDS = """FeatureCollection Feature Polygon MultiPolygon LineString LinearRing MultiLineString
    Point MultiPoint GeometryCollection"""
NAMES = """type features geometry coordinates properties crs name geometries layer width_m tags
    natural highway width wood road lake forest CRS84 EPSG:3857"""
WORDS = st.sampled_from([*KINDS.split(), *NAMES.split(), "\0", "\ud800"])
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(46.99, 47.01),
    st.floats(7.99, 8.01),
    st.sampled_from([0, -1, 180, 90, 2**63, HUGE, -HUGE, 5e-324]),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=5))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)
POINTS = st.lists(NUMBERS | LEAVES, max_size=4) | st.tuples(NUMBERS, NUMBERS).map(list) | TREES
NESTS = st.recursive(st.lists(POINTS, max_size=6), lambda inner: st.lists(inner, max_size=4))
GEOMETRIES = st.recursive(
    st.fixed_dictionaries({"type": WORDS, "coordinates": NESTS}),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("GeometryCollection"), "geometries": st.lists(inner | TREES, max_size=4)}
    ),
    max_leaves=6,
)
FEATURES = st.fixed_dictionaries(
    {"type": st.just("Feature"), "geometry": GEOMETRIES | TREES},
    optional={"properties": TREES | st.dictionaries(WORDS, LEAVES | WORDS, max_size=4)},
)
MAPS = st.one_of(
    TREES,
    GEOMETRIES,
    FEATURES,
    st.fixed_dictionaries(
        {"type": st.just("FeatureCollection"), "features": st.lists(FEATURES, max_size=4) | TREES},
        optional={"crs": TREES},
    ),
)


@FUZZ
@given(tree=MAPS)
def test_any_json_is_drawn_or_refused(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "any.geojson"
    path.write_text(json.dumps(tree))
    draws_or_refuses(path)


def test_a_ring_that_is_no_geojson_is_refused(tmp_path):
    (tmp_path / "a.geojson").write_text(drawing([SQUARE[0], SQUARE[1], SQUARE[0]], "LinearRing"))
    refuses(tmp_path / "a.geojson", "feature 0.*LinearRing")


# --- OSM XML -------------------------------------------------------------------------------------
def osm(lat="47.001", lon="8.001", ident="5", more=""):
    corners = [("1", "47.000", "8.000"), ("2", "47.000", "8.006"), (ident, lat, lon)]
    nodes = "".join(f'<node id="{i}" lat="{a}" lon="{o}"/>' for i, a, o in corners)
    refs = "".join(f'<nd ref="{i}"/>' for i in ("1", "2", ident, "1"))
    way = f'<way id="9">{refs}<tag k="landuse" v="forest"/></way>'
    return f'<osm version="0.6">{nodes}{way}{more}</osm>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (osm(lon="nan"), "node '5' has lat='47.001', lon='nan' .*correct the node"),
        (osm(lat="-inf"), "node '5' has lat='-inf', lon='8.001' .*correct the node"),
        (osm(lat="145", lon="207"), r"node '5' has lat='145', lon='207' .*\[-90, 90\]"),
        (osm(lat="9" * 999), "node '5' has lat='999.*correct the node"),
        (osm(lat="north"), "node '5' has lat='north'"),
        (osm(more='<node id="7" lon="8"/>'), "node '7' has lat=None, lon='8'"),
        (osm(more='<node lat="91" lon="8"/>'), "node None has lat='91'"),
        (osm(ident="x" * 999), "not readable as OSM XML"),
        (osm(more='<way id="1e3"/>'), "not readable as OSM XML"),
        (osm(more="&sea;"), "not readable as OSM XML"),
        (osm(more="<a>" * 3000), "not readable as OSM XML"),
    ],
)
def test_osm_with_impossible_values_is_refused(tmp_path, text, said):
    (tmp_path / "a.osm").write_text(text)
    refuses(tmp_path / "a.osm", said)


def test_a_sound_osm_file_is_drawn(tmp_path):
    (tmp_path / "a.osm").write_text(osm(lat="90", lon="-180.0"))
    assert read(tmp_path / "a.osm").classes.any()


KEYS = st.sampled_from(["id", "lat", "lon", "ref", "k", "v", "type", "role", "tags", "members"])
VALUES = st.one_of(
    st.sampled_from(["1", "2", "3", "4", "node", "way", "outer", "inner", "multipolygon", "nan"]),
    st.sampled_from(["landuse", "forest", "highway", "primary", "area", "yes", "geometry", "id"]),
    st.sampled_from(["47.001", "8.001", "8", "47", "-1", "1" * 30, "1e400", "width", "nodes"]),
    st.text(st.characters(min_codepoint=32, blacklist_categories=["Cs"]), max_size=4),
)


@st.composite
def elements(draw, depth=2):
    """An element of OSM, most of its attributes as they should be."""
    name = draw(st.sampled_from(["node", "way", "relation", "nd", "tag", "member", "osm"]))
    usual = {
        "node": {"id": st.sampled_from("1234"), "lat": st.just("47.001"), "lon": st.just("8.001")},
        "way": {"id": st.sampled_from("56")},
        "relation": {"id": st.sampled_from("78")},
        "nd": {"ref": st.sampled_from("1234")},
        "tag": {"k": VALUES, "v": VALUES},
        "member": {"type": VALUES, "ref": st.sampled_from("56"), "role": VALUES},
    }.get(name, {})
    given_ = {key: draw(value) for key, value in usual.items() if draw(st.integers(0, 20))}
    given_ |= draw(st.dictionaries(KEYS, VALUES, max_size=1))
    inner = "".join(draw(st.lists(elements(depth=depth - 1), max_size=6))) if depth else ""
    told = " ".join(f"{key}={quoteattr(value)}" for key, value in given_.items())
    return f"<{name} {told}>{inner}</{name}>"


@FUZZ
@given(inner=st.lists(elements(), max_size=8))
def test_any_osm_elements_are_drawn_or_refused(tmp_path_factory, inner):
    path = tmp_path_factory.getbasetemp() / "any.osm"
    path.write_text(f"<osm>{''.join(inner)}</osm>", encoding="utf-8")
    draws_or_refuses(path)


# --- tables --------------------------------------------------------------------------------------
def table(crs=4326):
    shape = shapely.Polygon(SQUARE)
    return geopandas.GeoDataFrame({"layer": ["crop"]}, geometry=[shape], crs=crs)


@pytest.mark.parametrize("srs_id", [0, -1, 99999])
def test_a_geopackage_of_no_declared_coordinate_system_is_refused(tmp_path, srs_id):
    path = tmp_path / "a.gpkg"
    table().to_file(path, engine="pyogrio")
    with contextlib.closing(sqlite3.connect(path)) as base:
        for name in ("gpkg_geometry_columns", "gpkg_contents"):
            base.execute(f"update {name} set srs_id = {srs_id}")
        base.commit()
    refuses(path, "no coordinate system declared.*set it when exporting")


def with_geo(path, change):
    """Write a GeoParquet file and change what it says of itself."""
    table().to_parquet(path)
    rows = pq.read_table(path)
    geo = json.loads(rows.schema.metadata[b"geo"])
    about = geo["columns"]["geometry"]
    text = json.dumps(change(geo, about))
    pq.write_table(rows.replace_schema_metadata({b"geo": text.encode()}), path)


@pytest.mark.parametrize(
    "change",
    [
        lambda geo, about: "text",
        lambda geo, about: geo | {"primary_column": []},
        lambda geo, about: about.update(crs="junk") or geo,
        lambda geo, about: about.update(crs=[1]) or geo,
        lambda geo, about: about.update(crs={"type": "GeographicCRS"}) or geo,
        lambda geo, about: about.update(encoding={}) or geo,
    ],
)
def test_a_table_that_is_described_wrongly_is_refused(tmp_path, change):
    with_geo(tmp_path / "a.parquet", change)
    refuses(tmp_path / "a.parquet", "not readable as GeoParquet.*export it again")


def test_a_table_whose_coordinate_system_was_erased_is_refused(tmp_path):
    with_geo(tmp_path / "a.parquet", lambda geo, about: about.update(crs=None) or geo)
    refuses(tmp_path / "a.parquet", "no coordinate system declared.*set it when exporting")


def test_a_table_that_leaves_its_coordinate_system_out_is_read_with_a_note(tmp_path):
    with_geo(tmp_path / "a.parquet", lambda geo, about: about.pop("crs") and geo)
    assert any(
        "GeoParquet without a coordinate system" in n for n in read(tmp_path / "a.parquet").notes
    )


def test_a_coordinate_system_of_another_world_is_refused(tmp_path):
    table(None).set_crs("IAU_2015:30100").to_parquet(tmp_path / "moon.parquet")
    refuses(tmp_path / "moon.parquet", "coordinate system cannot be converted to EPSG:4326")


# --- coastlines ----------------------------------------------------------------------------------
def test_islands_whose_rings_have_different_lengths_are_land():
    islands = shapely.MultiPolygon([shapely.box(1, 1, 2, 2), shapely.Point(5, 5).buffer(1, 3)])
    shore = divide([islands], (0.0, 0.0, 8.0, 8.0))
    assert shore is not None
    assert shore.land.area == pytest.approx(islands.area, rel=1e-6)
    assert shore.sea.area == pytest.approx(64 - islands.area, rel=1e-6)


def test_a_box_without_area_is_not_parted():
    line = shapely.LineString([(7.0, 45.0), (7.0, 46.0)])
    assert divide([line], (7.0, 45.0, 7.0, 46.0)) is None
