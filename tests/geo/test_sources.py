"""Map files: every format, the tags, the coast, and what is refused."""

import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

from generation.errors import LayoutError, MissingFileError
from generation.geo.files import read_osm_pbf, read_osm_xml
from generation.geo.layout import LAYERS, PALETTE
from generation.geo.location import Location
from generation.geo.mercator import Window, to_px, world_px
from generation.geo.sources import FileSource, OnlineSource, open_source
from generation.geo.tags import RULES, classify, parse_width_m
from generation.media.image import png_bytes

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "osm"
HERE = Location(47.002, 8.003)
WINDOW = Window.around(HERE, 16, 256)


def draw(path, window=WINDOW, **options):
    return FileSource(path, base="land", **options).layout(window)


def at(layout, lat, lon):
    x, y = to_px(Location(lat, lon), layout.window.zoom)
    return LAYERS[layout.classes[int(y) - layout.window.row_px, int(x) - layout.window.col_px]]


def write_geojson(path, geometry, **properties):
    feature = {"type": "Feature", "properties": properties, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def square(west, south, side):
    ring = [(0, 0), (side, 0), (side, side), (0, side), (0, 0)]
    return {"type": "Polygon", "coordinates": [[[west + x, south + y] for x, y in ring]]}


def bow_tie():
    ring = [[8.0, 47.0], [8.005, 47.004], [8.005, 47.0], [8.0, 47.004], [8.0, 47.0]]
    return {"type": "Polygon", "coordinates": [ring]}


# --- what is drawn -------------------------------------------------------------------------------
def test_an_osm_file_is_drawn_where_it_lies():
    layout = draw(DATA / "tiny.osm")
    assert at(layout, 47.0030, 8.0010) == "lake"
    assert at(layout, 47.0030, 8.0018) == "urban"  # the island: holes stay holes
    assert at(layout, 47.0014, 8.0015) == "grass"  # the park shows through its town
    assert at(layout, 47.0008, 8.0045) == "building"
    assert at(layout, 47.0020, 8.0045) == "road"
    assert at(layout, 47.0020, 8.0030) == "road"  # over the river
    assert at(layout, 47.0010, 8.0030) == "river"
    assert at(layout, 47.0030, 8.0045) == "urban"  # the tunnel below cannot be seen
    assert "OpenStreetMap" in layout.attribution


def test_widths_are_metres_on_the_ground():
    layout = draw(DATA / "tiny.osm")
    wet = (layout.classes[200] == LAYERS.index("river")).sum()
    paved = (layout.classes[:, 200] == LAYERS.index("road")).sum()
    assert wet == pytest.approx(30 / layout.window.gsd_m, abs=1)
    assert paved == pytest.approx(10 / layout.window.gsd_m, abs=1)


def test_small_things_wait_for_a_larger_scale():
    layout = draw(DATA / "tiny.osm", Window.around(HERE, 12, 64))
    assert LAYERS.index("building") not in layout.classes
    assert LAYERS.index("road") in layout.classes
    assert any("left out at zoom 12" in note for note in layout.notes)


def test_gdal_and_osmnx_read_the_same_map():
    for name in ("tiny.osm", "coast.osm"):
        ours = read_osm_xml(DATA / name, repair=True).draw(WINDOW, base="land")
        theirs = read_osm_pbf(DATA / name, repair=True).draw(WINDOW, base="land")
        assert np.array_equal(ours.classes, theirs.classes)


def test_coastlines_part_sea_from_land():
    layout = draw(DATA / "coast.osm")
    assert at(layout, 47.0020, 8.0010) == "land"
    assert at(layout, 47.0020, 8.0035) == "ocean"
    assert at(layout, 47.0018, 8.0045) == "land"  # the island
    east = Window(16, WINDOW.col_px + 300, WINDOW.row_px, 64, 64)
    assert (draw(DATA / "coast.osm", east).classes == LAYERS.index("ocean")).all()


def test_an_unfinished_coastline_floods_nothing(tmp_path):
    whole = (DATA / "coast.osm").read_text()
    (tmp_path / "cut.osm").write_text(whole.replace('<nd ref="2"/><nd ref="3"/>', '<nd ref="2"/>'))
    layout = draw(tmp_path / "cut.osm")
    assert at(layout, 47.0020, 8.0010) == "land"
    assert any("unfinished coastline" in note for note in layout.notes)


def test_a_drawing_names_its_layers():
    layout = draw(DATA / "tiny.geojson")
    assert at(layout, 47.0035, 8.003) == "forest"
    assert at(layout, 47.0020, 8.0027) == "land"
    assert (layout.classes[:, 10] == LAYERS.index("road")).sum() == pytest.approx(
        20 / layout.window.gsd_m, abs=1
    )


def test_geojson_with_osm_tags_is_read_by_the_table(tmp_path):
    path = write_geojson(tmp_path / "a.json", square(8.0, 47.0, 0.004), natural="wood", layer="-1")
    assert at(draw(path), 47.001, 8.001) == "forest"


@pytest.mark.parametrize("ending", [".parquet", ".gpkg"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32632"])
def test_tables_are_converted_from_the_crs_they_declare(tmp_path, ending, crs):
    shape = shapely.from_geojson(json.dumps(square(8.0, 47.0, 0.004)))
    frame = geopandas.GeoDataFrame({"layer": ["crop"]}, geometry=[shape], crs=4326).to_crs(crs)
    path = tmp_path / f"fields{ending}"
    frame.to_parquet(path) if ending == ".parquet" else frame.to_file(path, engine="pyogrio")
    layout = draw(path)
    assert at(layout, 47.001, 8.001) == "crop"
    assert at(layout, 47.001, 8.0045) == "land"
    assert any("converted" in note for note in layout.notes) == (crs != "EPSG:4326")


def test_a_drawn_png_comes_back_as_its_classes(tmp_path):
    classes = np.random.default_rng(0).integers(0, len(LAYERS), (256, 256)).astype(np.uint8)
    Image.fromarray(PALETTE[classes]).save(tmp_path / "map.png")
    assert np.array_equal(draw(tmp_path / "map.png").classes, classes)
    assert draw(tmp_path / "map.png").attribution == ""


def test_a_drawn_map_keeps_its_credit(tmp_path):
    pixels = PALETTE[np.zeros((256, 256), np.uint8)]
    credit = {"Copyright": "© OpenStreetMap\n contributors"}
    (tmp_path / "map.png").write_bytes(png_bytes(pixels, credit))
    assert draw(tmp_path / "map.png").attribution == "© OpenStreetMap contributors"


def test_broken_areas_of_data_are_repaired_and_reported(tmp_path):
    shape = shapely.from_geojson(json.dumps(bow_tie()))
    frame = geopandas.GeoDataFrame({"layer": ["lake"]}, geometry=[shape], crs=4326)
    frame.to_parquet(tmp_path / "bow.parquet")
    layout = draw(tmp_path / "bow.parquet")
    assert any("1 self-intersecting" in note for note in layout.notes)
    assert at(layout, 47.0020, 8.0005) == "lake"
    assert at(layout, 47.0032, 8.0025) == "land"


# --- invariances ---------------------------------------------------------------------------------
def halves(path, width=256, height=256):
    whole = Window(16, WINDOW.col_px, WINDOW.row_px, width, height)
    left = Window(16, whole.col_px, whole.row_px, width // 2, height)
    right = Window(16, whole.col_px + width // 2, whole.row_px, width // 2, height)
    upper = Window(16, whole.col_px, whole.row_px, width, height // 2)
    lower = Window(16, whole.col_px, whole.row_px + height // 2, width, height // 2)
    source = FileSource(path, base="land")
    one, *four = (source.layout(w).classes for w in (whole, left, right, upper, lower))
    return one, np.concatenate(four[:2], 1), np.concatenate(four[2:], 0)


@pytest.mark.parametrize("name", ["tiny.osm", "coast.osm", "tiny.geojson"])
def test_neighbouring_windows_agree_on_their_border(name):
    whole, beside, above = halves(DATA / name)
    assert np.array_equal(whole, beside)
    assert np.array_equal(whole, above)


def test_a_window_over_the_antimeridian_shows_both_sides(tmp_path):
    path = tmp_path / "fiji.geojson"
    parts = [square(179.9, -17.0, 0.1), square(-180.0, -17.0, 0.05)]
    both = {"type": "MultiPolygon", "coordinates": [part["coordinates"] for part in parts]}
    write_geojson(path, both, layer="forest")
    window = Window.around(Location(-16.97, 179.999), 12, 64)
    layout = draw(path, window)
    assert (layout.classes[32] == LAYERS.index("forest")).all()
    assert window.col_px + window.width_px > world_px(12)


def test_a_file_is_drawn_over_the_embedded_layers():
    layout = FileSource(DATA / "tiny.osm").layout(WINDOW)
    assert at(layout, 47.0030, 8.0010) == "lake"
    assert any("embedded" in note for note in layout.notes)


# --- the table -----------------------------------------------------------------------------------
def test_every_rule_names_a_layer():
    for values in RULES.values():
        for rule in values.values():
            assert rule is None or rule.layer in (*LAYERS, "coastline")


@pytest.mark.parametrize(
    ("tags", "is_area", "layer"),
    [
        ({"building": "yes", "landuse": "meadow"}, True, "building"),
        ({"building": "no", "landuse": "meadow"}, True, "grass"),
        ({"natural": "water", "water": "river"}, True, "river"),
        ({"highway": "primary", "tunnel": "yes"}, False, None),
        ({"highway": "primary", "tunnel": "building_passage"}, False, "road"),
        ({"highway": "primary", "layer": "-1"}, False, None),
        ({"highway": "proposed"}, False, None),
        ({"natural": "wood"}, False, None),  # an unclosed line is no wood
        ({"landuse": "forest"}, True, "forest"),
        ({"natural": "glacier"}, True, "glacier"),
        ({"railway": "abandoned", "highway": "cycleway"}, False, "road"),
        ({}, True, None),
    ],
)  # fmt: skip
def test_tags_choose_the_layer(tags, is_area, layer):
    rule = classify(tags, is_area=is_area)
    assert (rule and rule.layer) == layer


@pytest.mark.parametrize(
    ("text", "width_m"),
    [
        ("7", 7.0), ("3.5 m", 3.5), ("12'", None), ("2;3", None), ("0", None), ("1e9", None),
        ("nan", None), (None, None),
    ],
)  # fmt: skip
def test_only_plain_metres_count_as_width(text, width_m):
    assert parse_width_m(text) == width_m


# --- what is refused -----------------------------------------------------------------------------
ENTITY = '<!DOCTYPE osm [<!ENTITY a SYSTEM "file:///etc/passwd">]><osm>&a;</osm>'
CRS_3857 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.osm", "", "empty.*export it again"),
        ("a.osm", "hello", "no OSM XML"),
        ("a.osm", "<osm><node", "not readable as OSM XML"),
        ("a.osm", "<osm><tag k='a' v='b'/></osm>", "not readable as OSM XML"),
        ("a.osm", "<osm><way id='1'></way></osm>", "not readable as OSM XML"),
        ("a.osm", "<osm></osm>", "no tagged feature"),
        ("a.osm", ENTITY, "document type or entities"),
        ("a.osm.pbf", "no protobuf at all", "not readable as a map"),
        ("a.geojson", "{", "not readable as JSON"),
        ("a.geojson", "[" * 100_000, "not readable as JSON"),
        ("a.geojson", "[1, 2]", "no GeoJSON"),
        ("a.geojson", '{"type": "Topology"}', "no GeoJSON.*'Topology'"),
        ("a.geojson", '{"type": "FeatureCollection", "features": []}', "without features"),
        ("a.geojson", '{"type": "Point", "coordinates": [8, NaN]}', "NaN"),
        ("a.geojson", '{"type": "Polygon", "coordinates": [[[1, 2], 3]]}', "no readable geometry"),
        ("a.geojson", '{"type": "Point", "coordinates": [8.0, 47.0]}', "none of its 1 features"),
        ("a.parquet", "PAR1 is how it would start", "not readable as GeoParquet"),
        ("a.gpkg", "SQLite format 3", "not readable as a GeoPackage"),
        ("a.png", "\x89PNG\r\n", "not readable as PNG"),
        ("a.txt", "hello", "unknown ending"),
    ],
)  # fmt: skip
def test_what_is_no_map_is_refused_with_a_cure(tmp_path, name, content, hint):
    path = tmp_path / name
    path.write_text(content, encoding="latin-1")
    with pytest.raises(LayoutError, match=hint) as caught:
        draw(path)
    assert "(" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"is not there.*check the name"):
        open_source(str(tmp_path / "nothing.osm"))
    (tmp_path / "folder.osm").mkdir()
    with pytest.raises(LayoutError, match="is a folder"):
        open_source(str(tmp_path / "folder.osm"))
    with pytest.raises(LayoutError, match="names nothing"):
        open_source("")
    with pytest.raises(LayoutError, match="names nothing"):
        open_source("a\0b.osm")


def test_a_drawing_that_crosses_itself_is_refused_with_the_place(tmp_path):
    path = write_geojson(tmp_path / "bow.geojson", bow_tie(), layer="lake")
    with pytest.raises(LayoutError, match=r"feature 0: Self-intersection.*8\.0025 47\.002.*fix"):
        draw(path)
    assert any("repaired" in note for note in draw(path, repair=True).notes)


def test_another_coordinate_system_is_refused_in_geojson(tmp_path):
    metres = write_geojson(tmp_path / "m.geojson", square(890_000, 5_940_000, 500), layer="lake")
    with pytest.raises(LayoutError, match=r"not on Earth.*metres of another coordinate system"):
        draw(metres)
    data = json.loads(metres.read_text()) | {"crs": CRS_3857}
    metres.write_text(json.dumps(data))
    with pytest.raises(LayoutError, match=r"EPSG::3857.*convert it: ogr2ogr"):
        draw(metres)
    swapped = write_geojson(tmp_path / "s.geojson", square(47.0, 120.0, 0.1), layer="lake")
    with pytest.raises(LayoutError, match="look swapped"):
        draw(swapped)


def test_a_table_without_a_coordinate_system_is_refused(tmp_path):
    frame = geopandas.GeoDataFrame({"layer": ["lake"]}, geometry=[shapely.box(8, 47, 8.1, 47.1)])
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LayoutError, match="no coordinate system"):
        draw(tmp_path / "a.parquet")


def test_all_mistakes_of_a_drawing_come_at_once(tmp_path):
    line = {"type": "LineString", "coordinates": [[8.0, 47.0], [8.01, 47.0]]}
    rows = [
        (square(8.0, 47.0, 0.01), {"layer": "lava"}),
        (line, {"layer": "forest"}),
        (line, {"layer": "road", "width_m": -3}),
        (line, {"layer": "road", "width_m": "wide"}),
    ]
    features = [{"type": "Feature", "geometry": g, "properties": p} for g, p in rows]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(
        LayoutError, match=r"'lava' is none of.*cannot be forest.*width_m=-3.*'wide'"
    ):
        draw(path)


def test_a_map_of_elsewhere_is_refused_with_its_bounds():
    with pytest.raises(LayoutError, match=r"nothing of it lies.*lat 4\d\.\d+ to 47"):
        draw(DATA / "tiny.osm", Window.around(Location(60.2, 24.9), 16, 256))


@pytest.mark.parametrize(
    ("size", "mode", "hint"),
    [((100, 256), "RGB", "exactly the size"), ((256, 256), "RGBA", "transparent")],
)
def test_a_png_that_does_not_fit_is_refused(tmp_path, size, mode, hint):
    Image.new(mode, size).save(tmp_path / "a.png")
    with pytest.raises(LayoutError, match=hint):
        draw(tmp_path / "a.png")


def test_a_photograph_is_no_layout(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    with pytest.raises(LayoutError, match="palette"):
        draw(tmp_path / "a.png")


def test_a_truncated_png_is_refused(tmp_path):
    noise = PALETTE[np.random.default_rng(0).integers(0, 9, (256, 256))]
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])
    with pytest.raises(LayoutError, match="not readable as PNG"):
        draw(tmp_path / "a.png")


# --- choosing ------------------------------------------------------------------------------------
def test_a_source_is_chosen_by_name():
    assert open_source("none") is None
    assert isinstance(open_source("auto", online=True), OnlineSource)
    assert isinstance(open_source(str(DATA / "tiny.osm")), FileSource)
    assert type(open_source("auto")).__name__ == "EmbeddedSource"


# --- real extracts -------------------------------------------------------------------------------
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are absent")
def test_helsinki_is_a_city():
    source = FileSource(SHARED / "Helsinki.osm.pbf", base="land")
    layout = source.layout(Window.around(Location(60.1714, 24.9443), 16, 256))
    share = {n: float((layout.classes == i).mean()) for i, n in enumerate(LAYERS)}
    assert share["building"] > 0.15
    assert share["road"] > 0.1
    assert share["rail"] > 0.01
    assert share["land"] < 0.2


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are absent")
@pytest.mark.parametrize(
    ("name", "lat", "lon"),
    [("Helsinki.osm.pbf", 60.1714, 24.9443), ("test.osm.pbf", 60.53, 26.95)],
)
def test_real_extracts_agree_along_borders(name, lat, lon, tmp_path):
    shutil.copy(SHARED / name, tmp_path / name)
    source = FileSource(tmp_path / name, base="land")
    whole = Window.around(Location(lat, lon), 16, 256)
    left, right = (
        source.layout(Window(16, whole.col_px + dx, whole.row_px, 128, 256)).classes
        for dx in (0, 128)
    )
    beside = np.concatenate([left, right], 1)
    # clipping adds a corner where an edge leaves a window: a centre right on the edge may flip
    assert (source.layout(whole).classes != beside).mean() < 1e-4
    seam = np.s_[:, 127:129]
    assert np.array_equal(source.layout(whole).classes[seam], beside[seam])
