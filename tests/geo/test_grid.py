import numpy as np
import pytest

from generation.errors import InvalidLocationError, InvalidSpecError
from generation.geo.grid import MapGrid, parse_region, window_of
from generation.geo.location import Region


def test_a_region_is_covered_by_whole_cells():
    grid = MapGrid.covering(Region(7.1, 45.2, 8.3, 46.1), cell_px=16)
    assert grid.bounds.west <= 7.1
    assert grid.bounds.east >= 8.3
    assert grid.bounds.south <= 45.2
    assert grid.bounds.north >= 46.1
    smaller = grid.window.width_px - 2 * 16, grid.window.height_px - 2 * 16
    tight = window_of(Region(7.1, 45.2, 8.3, 46.1), 8)
    assert smaller[0] < tight.width_px
    assert smaller[1] < tight.height_px


def test_centres_are_the_middles_of_cells():
    grid = MapGrid.covering(Region(7.1, 45.2, 8.3, 46.1))
    row, col = grid.window.row_px // 16, grid.window.col_px // 16
    lats, lons = grid.centers(np.array([row]), np.array([col]))
    lat, lon = lats.item(), lons.item()
    middle = window_of(Region(lon - 1e-6, lat - 1e-6, lon + 1e-6, lat + 1e-6), 8)
    assert abs(middle.col_px - grid.window.col_px - 8) <= 1
    assert abs(middle.row_px - grid.window.row_px - 8) <= 1


def test_over_the_antimeridian_columns_run_on():
    grid = MapGrid.covering(Region(179.0, -18.0, -179.0, -16.0))
    assert grid.cols == 2 * (MapGrid.covering(Region(179.0, -18.0, 180.0, -16.0)).cols)
    assert grid.bounds.crosses_antimeridian
    _, lon = grid.centers(np.zeros(2), np.array([grid.world_cells, 0]))
    assert lon[0] == pytest.approx(lon[1])


def test_views_are_clipped_at_the_poles():
    grid = MapGrid.covering(Region(0.0, 84.0, 1.0, 85.0), cell_px=16, view_px=128)
    window = grid.views(0, 0, 2, 2)
    assert (window.row_px, window.height_px) == (0, 16 + 128 - 56)
    assert (window.col_px, window.width_px) == (-56, 16 + 128)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("5,45,11", InvalidSpecError, "is no box"),
        ("5,45,11,x", InvalidSpecError, "is no box"),
        ("5,48,11,45", InvalidSpecError, "south 48 does not lie below"),
        ("5,45,11,95", InvalidLocationError, "lat must lie"),
        ("nan,45,11,48", InvalidLocationError, "no such place"),
    ],
)
def test_a_region_that_is_none_is_refused(text, error, said):
    with pytest.raises(error, match=said):
        parse_region(text)


@pytest.mark.parametrize(
    ("region", "options", "said"),
    [
        ((5, 45, 5, 48), {}, "is empty"),
        ((5, 45, 6, 89), {}, "beyond the edge"),
        ((5, -80, 4, 80), {}, "too large .* west and east swapped"),
        ((5, 45, 6, 46), {"cell_px": 10}, "cell=10 px is no cell"),
        ((5, 45, 6, 46), {"cell_px": 0}, "cell=0 px is no cell"),
        ((5, 45, 6, 46), {"view_px": 127}, "view=127"),
        ((5, 45, 6, 46), {"view_px": 4096}, "view=4096"),
        ((5, 45, 6, 46), {"zoom": 30}, "zoom=30"),
        ((5, 45, 6, 46), {"zoom": -1}, "zoom=-1"),
    ],
)
def test_a_grid_that_is_no_map_is_refused(region, options, said):
    with pytest.raises(InvalidSpecError, match=said):
        MapGrid.covering(Region(*map(float, region)), **options)
