"""From shapes to a raster of classes, and from a drawn map back."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import shapely

from generation.errors import LayoutError
from generation.geo.layout import (
    CLASSES,
    LAYERS,
    MAP_TOLERANCE,
    PALETTE,
    Feature,
    Layout,
    rasterize,
)
from generation.geo.location import Location
from generation.geo.mercator import MAX_LAT, Window, from_px, gsd_m, to_px

WINDOW = Window.around(Location(47.0, 8.0), 12, 128)
LAND, LAKE, ROAD = (LAYERS.index(name) for name in ("land", "lake", "road"))


def lonlat(x, y, window=WINDOW):
    place = from_px(window.col_px + x, window.row_px + y, window.zoom)
    return place.lon, place.lat


def area(points, holes=(), window=WINDOW):
    rings = [[lonlat(x, y, window) for x, y in ring] for ring in (points, *holes)]
    return shapely.Polygon(rings[0], rings[1:])


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def line(*points, window=WINDOW):
    return shapely.LineString([lonlat(x, y, window) for x, y in points])


# --- painting ------------------------------------------------------------------------------------
def test_holes_stay_holes():
    lake = area(box(20, 20, 100, 100), [box(50, 50, 70, 70)])
    drawn = rasterize([Feature(lake, "lake")], WINDOW)
    expected = np.full((128, 128), LAND)
    expected[20:100, 20:100] = LAKE
    expected[50:70, 50:70] = LAND
    np.testing.assert_array_equal(drawn, expected)


def test_areas_are_clipped_and_not_clamped():
    drawn = rasterize([Feature(area(box(-9000, 30, 40, 90)), "lake")], WINDOW)
    expected = np.full((128, 128), LAND)
    expected[30:90, :40] = LAKE
    np.testing.assert_array_equal(drawn, expected)
    outside = area(box(-900, -900, -10, 900))
    assert (rasterize([Feature(outside, "lake")], WINDOW) == LAND).all()
    assert (rasterize([Feature(shapely.Polygon(), "lake")], WINDOW) == LAND).all()


def test_an_area_may_hold_a_pole():
    drawn = rasterize(
        [Feature(shapely.box(-180, -90, 180, -80), "lake")], Window(0, 0, 0, 256, 256)
    )
    edge = round(to_px(Location(-80.0, 0.0), 0)[1])
    assert (drawn[edge:] == LAKE).all()
    assert (drawn[:edge] == LAND).all()


def test_the_order_of_painting_is_fixed():
    shapes = [
        Feature(area(box(0, 0, 128, 128)), "forest"),
        Feature(area(box(20, 20, 90, 90)), "lake"),
        Feature(line((0, 55), (128, 55)), "road", width_m=200.0),
    ]
    first, *others = (rasterize(list(order), WINDOW) for order in permutations(shapes))
    assert [LAYERS[i] for i in first[55, [5, 50]]] == ["road", "road"]
    assert [LAYERS[i] for i in first[80, [5, 50]]] == ["forest", "lake"]
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("lat", [0.01, 47.0, -75.0])
@pytest.mark.parametrize("width_m", [300.0, 1000.0])
def test_widths_are_metres_on_the_ground(lat, width_m):
    window = Window.around(Location(lat, 8.0), 12, 128)
    road = Feature(line((64, -50), (64, 200), window=window), "road", width_m)
    wide = (rasterize([road], window)[64] == ROAD).sum()
    assert wide == pytest.approx(width_m / gsd_m(lat, 12), abs=1)


def test_a_thin_line_stays_connected():
    stream = Feature(line((3.3, -5), (101.7, 140)), "river", width_m=0.5)
    wet = rasterize([stream], WINDOW) == LAYERS.index("river")
    assert wet.any(axis=1).all()
    for above, below in pairwise(wet):
        near = np.convolve(above, [1, 1, 1], "same") > 0
        assert (near & below).any()


def test_rows_are_mercator():
    drawn = rasterize([Feature(shapely.box(-179, 20, 179, 80), "lake")], Window(2, 100, 0, 8, 1024))
    rows = np.flatnonzero(drawn[:, 4] == LAKE)
    top, bottom = (to_px(Location(lat, 0.0), 2)[1] for lat in (80.0, 20.0))
    assert rows[0] == pytest.approx(top, abs=1)
    assert rows[-1] + 1 == pytest.approx(bottom, abs=1)
    assert abs(rows[0] - 1024 * (MAX_LAT - 80) / (2 * MAX_LAT)) > 50  # where degrees would put it


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lat", [3.0, 70.0])
def test_neighbouring_windows_agree_with_one_of_both(axis, lat):
    near = Window.around(Location(lat, 8.0), 12, 96)
    shift = {"row_px": near.row_px + 96} if axis == 0 else {"col_px": near.col_px + 96}
    size = (96, 192) if axis == 0 else (192, 96)
    next_one = Window(
        12, shift.get("col_px", near.col_px), shift.get("row_px", near.row_px), 96, 96
    )
    both = Window(12, near.col_px, near.row_px, *size)
    shapes = scribbles(both)
    parts = [rasterize(shapes, window) for window in (near, next_one)]
    whole = rasterize(shapes, both)
    assert len(np.unique(whole)) >= 5
    np.testing.assert_array_equal(np.concatenate(parts, axis), whole)


def scribbles(window):
    rng = np.random.default_rng(3)
    shapes = []
    for layer in ("forest", "lake", "urban", "river", "road", "rail"):
        for _ in range(6):
            points = rng.uniform(-60, 260, (5, 2))
            if layer in ("forest", "lake", "urban"):
                corner, side = points[0], rng.uniform(10, 60)
                turn = np.linspace(0, 2 * np.pi, 9)[:-1, None]
                ring = corner + side * np.hstack([np.cos(turn), np.sin(turn)])
                shapes.append(Feature(area(ring, [corner + (ring - corner) / 3], window), layer))
            else:
                width_m = float(rng.uniform(1, 400))
                shapes.append(Feature(line(*points, window=window), layer, width_m))
    return shapes


def test_a_base_is_painted_on_and_left_as_it_was():
    base = np.zeros((128, 128), np.uint8)
    drawn = rasterize([Feature(area(box(0, 0, 64, 128)), "lake")], WINDOW, base)
    assert (drawn[:, :64] == LAKE).all()
    assert (drawn[:, 64:] == 0).all()
    assert not base.any()


def test_an_unknown_layer_is_refused():
    with pytest.raises(LayoutError, match=r"'pond' is unknown .*lake"):
        rasterize([Feature(area(box(0, 0, 9, 9)), "pond")], WINDOW)


# --- the palette ---------------------------------------------------------------------------------
def test_classes_are_numbered_in_painting_order_and_colours_are_told_apart():
    assert [c.index for c in CLASSES] == list(range(len(CLASSES)))
    assert len(set(LAYERS)) == len(CLASSES)
    colours = PALETTE.astype(int)
    apart = np.abs(colours[:, None] - colours[None]).max(-1)
    assert apart[~np.eye(len(CLASSES), dtype=bool)].min() > MAP_TOLERANCE


def small_window():
    return Window(12, WINDOW.col_px, WINDOW.row_px, 20, len(CLASSES))


def striped():
    return np.repeat(np.arange(len(CLASSES), dtype=np.uint8)[:, None], 20, axis=1)


def test_a_layout_comes_back_from_its_picture():
    layout = Layout(striped(), small_window(), "test")
    back = Layout.from_rgb(layout.rgb(), small_window(), "drawn.png")
    np.testing.assert_array_equal(back.classes, striped())
    assert back.source == "drawn.png"


def test_colours_that_are_a_little_off_are_read_as_what_they_were():
    rng = np.random.default_rng(0)
    noisy = PALETTE[striped()].astype(int) + rng.integers(-5, 6, (len(CLASSES), 20, 3))
    back = Layout.from_rgb(noisy.clip(0, 255).astype(np.uint8), small_window(), "lossy.png")
    np.testing.assert_array_equal(back.classes, striped())


def test_a_photograph_is_no_map():
    photo = np.random.default_rng(0).integers(0, 256, (len(CLASSES), 20, 3)).astype(np.uint8)
    with pytest.raises(LayoutError, match=r"photo.png: 9\d% of the pixels have no colour"):
        Layout.from_rgb(photo, small_window(), "photo.png")


def test_a_layout_of_another_size_or_class_is_refused():
    with pytest.raises(LayoutError, match="20x17 px does not fit the window of 128x128"):
        Layout(striped(), WINDOW, "test")
    with pytest.raises(LayoutError, match="class 17 does not exist"):
        Layout(striped() + np.uint8(1), small_window(), "test")
