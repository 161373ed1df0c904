"""Tiles, pixels and metres of the web-mercator map."""

import math

import pytest
from pyproj import Transformer

from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.geo.mercator import (
    HALF_WORLD_M,
    MAX_LAT,
    Window,
    from_px,
    gsd_m,
    tile_window,
    to_px,
    world_px,
)


def test_a_known_tile_lies_where_it_should():
    window = tile_window(18, 42048, 101323)
    assert window.center.lat == pytest.approx(37.776, abs=1e-3)
    assert window.center.lon == pytest.approx(-122.256, abs=1e-3)
    assert 256 * window.gsd_m == pytest.approx(120.83, abs=0.01)


def test_the_first_tile_is_the_whole_map():
    window = tile_window(0, 0, 0)
    assert window.bounds.west == -180
    assert window.bounds.east == 180
    assert window.bounds.north == pytest.approx(MAX_LAT)
    assert window.bounds.south == pytest.approx(-MAX_LAT)
    expected = (-HALF_WORLD_M, -HALF_WORLD_M, HALF_WORLD_M, HALF_WORLD_M)
    assert window.bounds_3857 == pytest.approx(expected)


@pytest.mark.parametrize("zoom", [0, 8, 22])
@pytest.mark.parametrize(
    ("lat", "lon"), [(0.0, 0.0), (85.05, -180.0), (-85.05, 179.99), (-33.9, 151.2), (66.5, -23.4)]
)
def test_pixels_and_degrees_are_inverse(lat, lon, zoom):
    x, y = to_px(Location(lat, lon), zoom)
    back = from_px(x, y, zoom)
    assert back.lat == pytest.approx(lat, abs=1e-9)
    assert back.lon == pytest.approx(lon, abs=1e-9)


def test_the_ground_sample_distance_shrinks_with_the_cosine_of_latitude():
    assert gsd_m(0.0, 0) == pytest.approx(156543.03, abs=0.01)
    assert gsd_m(60.0, 8) == pytest.approx(gsd_m(0.0, 8) / 2)
    assert gsd_m(0.0, 9) == pytest.approx(gsd_m(0.0, 8) / 2)


@pytest.mark.parametrize(("lat", "lon"), [(45.98, 7.66), (-77.8, 166.7), (64.1, -21.9)])
def test_pixels_have_the_metres_that_the_projection_gives(lat, lon):
    window = Window.around(Location(lat, lon), 11, 256)
    step, _, west, _, minus_step, north = window.transform
    x, y = to_px(Location(lat, lon), 11)
    metres = (west + (x - window.col_px) * step, north + (y - window.row_px) * minus_step)
    project = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    assert metres == pytest.approx(project.transform(lon, lat), abs=1e-6)
    assert window.bounds_3857 == pytest.approx((west, north - 256 * step, west + 256 * step, north))


@pytest.mark.parametrize("multiple", [8, 1, 64])
def test_windows_share_one_grid_and_hold_their_place_in_the_middle(multiple):
    place = Location(12.34, 56.78)
    window = Window.around(place, 12, 256, multiple_px=multiple)
    assert window.col_px % multiple == window.row_px % multiple == 0
    x, y = to_px(place, 12)
    assert abs(window.col_px + 128 - x) <= multiple / 2
    assert abs(window.row_px + 128 - y) <= multiple / 2


@pytest.mark.parametrize("lon", [180.0, -180.0, 179.9])
def test_a_window_may_lie_across_the_antimeridian(lon):
    window = Window.around(Location(-17.0, lon), 8, 256)
    assert 0 <= window.col_px < world_px(8) < window.col_px + window.width_px
    assert window.bounds.crosses_antimeridian
    assert abs(window.center.lon) > 179.5
    assert window.center.lat == pytest.approx(-17, abs=0.02)


def test_a_window_that_ends_at_the_antimeridian_does_not_cross_it():
    window = tile_window(8, 255, 100)
    assert window.bounds.east == 180
    assert not window.bounds.crosses_antimeridian


@pytest.mark.parametrize("lat", [90.0, -90.0, 85.06, math.degrees(1.5)])
def test_places_beyond_the_map_are_told_where_it_ends(lat):
    with pytest.raises(InvalidSpecError, match=r"beyond the edge .* 85\.0511"):
        Window.around(Location(lat, 0.0), 8, 256)


@pytest.mark.parametrize("lat", [85.0, -85.0])
def test_a_window_that_leaves_the_map_is_refused(lat):
    with pytest.raises(InvalidSpecError, match="leave the map"):
        Window.around(Location(lat, 0.0), 8, 256)


def test_windows_and_tiles_that_do_not_exist_are_refused():
    with pytest.raises(InvalidSpecError, match="no zoom level"):
        Window(23, 0, 0, 8, 8)
    with pytest.raises(InvalidSpecError, match="empty"):
        Window(3, 0, 0, 0, 8)
    with pytest.raises(InvalidSpecError, match="2/4/0 does not exist"):
        tile_window(2, 4, 0)
    with pytest.raises(InvalidSpecError, match="does not exist"):
        tile_window(-1, 0, 0)
