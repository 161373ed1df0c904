"""The layers that ship with the project: a layout for anywhere, offline."""

import time

import numpy as np
import pytest

from generation.errors import LayoutError, MissingFileError
from generation.geo import layers
from generation.geo.layers import EmbeddedSource, ground_cover
from generation.geo.layout import LAYERS
from generation.geo.location import Location
from generation.geo.mercator import Window, to_px, world_px

DRY = {name for name in LAYERS if name not in ("ocean", "lake", "river")}


def kind_at(lat, lon, zoom=8):
    place = Location(lat, lon)
    window = Window.around(place, zoom, 16)
    x, y = to_px(place, zoom)
    classes = EmbeddedSource().layout(window).classes
    return LAYERS[classes[int(y) - window.row_px, (int(x) - window.col_px) % world_px(zoom)]]


@pytest.mark.parametrize(
    ("lat", "lon", "kinds"),
    [
        (-80.0, 20.0, {"glacier"}),  # Antarctica is land, though a level of its own
        (-84.5, -120.0, {"glacier"}),
        (72.0, -40.0, {"glacier"}),  # Greenland
        (-1.0, 33.0, {"lake"}),  # Lake Victoria
        (30.0, -40.0, {"ocean"}),
        (0.0, 180.0, {"ocean"}),
        (23.0, 10.0, {"bare"}),  # the Sahara
        (-5.0, -66.0, {"forest"}),  # the Amazon
        (45.77, -82.2, DRY),  # Manitoulin, an island in a lake
        (-16.6, 179.2, DRY),  # Vanua Levu, west of the antimeridian
        (67.5, 179.0, DRY),  # Chukotka, on both its sides
        (67.0, -177.0, DRY),
        (71.2, -179.4, DRY),  # Wrangel
    ],
)
def test_known_places_are_what_they_are(lat, lon, kinds):
    assert kind_at(lat, lon) in kinds


def test_wide_rivers_and_streams_are_drawn():
    window = Window.around(Location(-3.3, -60.2), 8, 128)  # where the Negro meets the Amazon
    assert (EmbeddedSource().layout(window).classes == LAYERS.index("river")).mean() > 0.01


@pytest.mark.parametrize("lat", [-16.8, 67.3, 71.1])
def test_the_antimeridian_leaves_no_seam(lat):
    window = Window.around(Location(lat, 180.0), 8, 128)
    size = world_px(8)
    classes = EmbeddedSource().layout(window).classes
    left = Window(8, window.col_px, window.row_px, size - window.col_px, 128)
    right = Window(8, 0, window.row_px, window.col_px + 128 - size, 128)
    halves = [EmbeddedSource().layout(part).classes for part in (left, right)]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), classes)
    assert len(np.unique(classes)) > 1
    seam = left.width_px
    unlike = (classes[:, seam - 1] != classes[:, seam]).mean()
    usual = (classes[:, 1:] != classes[:, :-1]).mean()
    assert unlike < usual + 0.1


def test_columns_are_counted_around_the_world():
    size = world_px(6)
    same = [Window(6, col, 4000, 64, 64) for col in (size - 20, -20)]
    first, second = (EmbeddedSource().layout(window).classes for window in same)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(*(ground_cover(window) for window in same))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "place", [Location(41.0, 29.0), Location(60.2, 25.0), Location(-16.8, 179.9)]
)
def test_neighbouring_windows_agree_with_one_of_both(axis, place):
    near = Window.around(place, 8, 64)
    down, right = (64, 0) if axis == 0 else (0, 64)
    next_one = Window(8, near.col_px + right, near.row_px + down, 64, 64)
    both = Window(8, near.col_px, near.row_px, 64 + right, 64 + down)
    source = EmbeddedSource()
    parts = [source.layout(window).classes for window in (near, next_one)]
    np.testing.assert_array_equal(np.concatenate(parts, axis), source.layout(both).classes)


def test_coarse_layers_say_so_where_they_are_coarse():
    fine, coarse = (
        EmbeddedSource().layout(Window.around(Location(46.0, 7.0), z, 64)) for z in (8, 12)
    )
    assert fine.notes == ()
    assert "coarse at zoom 12" in coarse.notes[0]
    assert "GSHHG" in fine.attribution


def test_the_first_layout_does_not_keep_anyone_waiting():
    layers._shapes.cache_clear()
    began = time.process_time()
    EmbeddedSource().layout(Window.around(Location(46.0, 7.0), 8, 256))
    assert time.process_time() - began < 1.5


def test_layers_that_are_absent_or_damaged_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "ASSETS", tmp_path)
    layers._shapes.cache_clear()
    window = Window.around(Location(46.0, 7.0), 8, 64)
    with pytest.raises(MissingFileError, match=r"water_areas\.npz is not there"):
        layers._paint_water(window)
    np.savez(
        tmp_path / "water_areas.npz",
        first=np.zeros((1, 2), np.int32),
        delta=np.zeros((3, 2), np.int16),
        lengths=np.array([5], np.int32),
        kinds=np.array([1], np.int8),
    )
    with pytest.raises(LayoutError, match="damaged"):
        layers._paint_water(window)
    layers._shapes.cache_clear()
