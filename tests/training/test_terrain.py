"""Panoramas rendered from terrain: exact geometry on worlds made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import write_tiles

from generation.errors import ConfigError
from generation.geo.location import EARTH_RADIUS_KM, Location, Region, great_circle_km
from generation.geo.mercator import tile_window
from generation.geo.sphere import Band, bearing_deg
from training.terrain import Elevation, Moment, Mosaic, goes_to, render_panorama

BOX = Region(5.0, 44.0, 9.0, 48.0)
HERE = Location(46.0, 7.0)
NOON = Moment(sun_azimuth_deg=180.0, sun_elevation_deg=45.0, haze_m=80e3, warmth=0.0)
RADIUS_M = 1000 * EARTH_RADIUS_KM
FINE = Band(256, 128, 8.0, -8.0)
"""A sixteenth of a degree a row."""
STEP = 1 / 120
"""Degrees of a cell of the raster."""


def flat(metres=0.0):
    return np.full((480, 480), metres)


def grey(level=120):
    """One colour all over: tiles 132 and 133 by 89 to 91 hold the place."""
    shape = 6, 6
    rgb = np.full((shape[0] * 256, shape[1] * 256, 3), level, np.uint8)
    return Mosaic(rgb, np.ones(shape, bool), 8, 130 * 256, 88 * 256)


def cone(heights, azimuth, distance, metres, width=4e3):
    """Raise a cone at a bearing and a distance from the place."""
    lat, lon = goes_to(HERE, np.array([azimuth]), np.array([distance]))
    rows = BOX.north - (np.arange(480) + 0.5) * STEP
    cols = BOX.west + (np.arange(480) + 0.5) * STEP
    north = np.radians(rows - lat)[:, None] * RADIUS_M
    east = np.radians(cols - lon)[None] * RADIUS_M * math.cos(math.radians(lat.item()))
    return np.maximum(heights, metres * (1 - np.hypot(north, east) / width))


def spot(lat):
    return np.array([lat]), np.array([7.0])


def render(heights, band=FINE, moment=NOON, **options):
    return render_panorama(Elevation.of(heights, BOX), grey(), HERE, moment, band, **options)


def skyline(depth, band):
    """Elevation of the lower edge of the sky in each column."""
    return band.top_deg - np.isinf(depth).sum(0) * band.row_deg


# --- geometry ------------------------------------------------------------------------------------
@pytest.mark.parametrize("ground", [0.0, 2000.0])
def test_over_flat_ground_the_horizon_dips_as_the_earth_is_round(ground):
    drawn = render(flat(ground))
    dip = math.degrees(math.acos(RADIUS_M / (RADIUS_M + 1500)))
    assert dip == pytest.approx(math.degrees(math.sqrt(2 * 1500 / RADIUS_M)), rel=1e-3)
    assert skyline(drawn.depth_m, FINE) == pytest.approx(-dip, abs=FINE.row_deg)
    assert drawn.altitude_m == ground + 1500


def test_depths_are_those_of_a_round_earth():
    band = Band(64, 16, 0.0, -64.0)
    drawn = render(flat(), band, finer=2)
    finer = Band(128, 32, 0.0, -64.0).elevations_deg().numpy()[1::2]  # the ray that is kept
    zenith = np.radians(90 + finer[2:].astype(float))
    expected = (np.arcsin(np.sin(zenith) * (1 + 1500 / RADIUS_M)) - zenith) * RADIUS_M
    assert drawn.depth_m[2:, 3] == pytest.approx(expected, rel=5e-3)
    assert np.isinf(drawn.depth_m[0]).all()


@pytest.mark.parametrize("azimuth", [0.0, 75.0, 180.0, 300.0])
def test_a_cone_stands_where_it_should(azimuth):
    """Its top is 1500 m above the eye, 20 km away; a raster of 900 m cuts the very tip off."""
    band = Band(256, 512, 8.0, -8.0)
    drawn = render(cone(flat(), azimuth, 20e3, 3000.0, width=15e3), band, finer=1)
    edge = skyline(drawn.depth_m, band)
    peak = int(edge.argmax())
    apart = (float(band.azimuths_deg()[peak]) - azimuth + 180) % 360 - 180
    assert apart == pytest.approx(0, abs=2.5)
    top = math.degrees(math.atan2(1500 - 20e3**2 / (2 * RADIUS_M), 20e3))
    assert top - 0.35 < edge.max() < top + band.row_deg
    highest = np.isfinite(drawn.depth_m[:, peak]).argmax()
    assert drawn.depth_m[highest, peak] == pytest.approx(20e3, rel=0.05)


def test_what_lies_behind_the_curve_of_the_earth_is_hidden():
    """Both eyes stand 100 m up: 300 m are to be seen at 30 km, and not at 130 km."""
    azimuth, band = 90.0, Band(256, 64, 2.0, -2.0)
    seen = [
        skyline(render(cone(flat(), azimuth, far, 300.0), band, eye_m=100.0, finer=1).depth_m, band)
        for far in (30e3, 130e3)
    ]
    dip = -math.degrees(math.sqrt(2 * 100 / RADIUS_M))
    assert seen[0].max() > dip + 0.1
    assert seen[1].max() == pytest.approx(dip, abs=2 * band.row_deg)


def test_the_near_hides_the_far():
    far = cone(flat(), 90.0, 40e3, 3000.0)
    both = cone(far, 90.0, 10e3, 2900.0)
    band = Band(256, 512, 8.0, -8.0)
    east = int(np.abs(band.azimuths_deg().numpy() - 90).argmin())
    depths = [render(heights, band, finer=1).depth_m[:, east] for heights in (far, both)]
    nearest = [column[np.isfinite(column)].max() for column in depths]
    assert nearest[0] > 35e3
    assert nearest[1] < 15e3


def test_going_somewhere_ends_at_its_distance_and_bearing():
    lat, lon = goes_to(HERE, np.array([10.0, 200.0]), np.array([5e3, 120e3]))
    for k, (azimuth, km) in enumerate([(10, 5), (200, 120)]):
        there = Location(float(lat[k]), float(lon[k]))
        assert great_circle_km(HERE, there) == pytest.approx(km, rel=1e-6)
        assert bearing_deg(HERE, there) == pytest.approx(azimuth, abs=1e-6)


# --- colours -------------------------------------------------------------------------------------
def test_the_same_place_and_moment_give_the_same_bytes():
    first, second = (render(cone(flat(), 30.0, 9e3, 2000.0)) for _ in range(2))
    assert first.rgb.tobytes() == second.rgb.tobytes()
    assert first.depth_m.tobytes() == second.depth_m.tobytes()
    later = render(cone(flat(), 30.0, 9e3, 2000.0), moment=replace(NOON, sun_azimuth_deg=90.0))
    assert later.depth_m.tobytes() == first.depth_m.tobytes()
    assert later.rgb.tobytes() != first.rgb.tobytes()


def test_a_slope_towards_the_sun_is_brighter():
    """A cone in the north: its near side looks south, where the sun is; and then it does not."""
    heights, band = cone(flat(), 0.0, 8e3, 2600.0, width=5e3), Band(64, 64, 8.0, -8.0)
    lit, dark = (
        render(heights, band, replace(NOON, sun_azimuth_deg=azimuth, sun_elevation_deg=25.0))
        for azimuth in (180.0, 0.0)
    )
    slope = lit.depth_m[:, 32] < 9e3
    assert lit.rgb[slope, 32].mean() > 1.3 * dark.rgb[slope, 32].mean()


def test_haze_takes_the_colour_of_the_air_with_distance():
    near, far = (
        render(flat(), Band(64, 16, 0.0, -64.0), replace(NOON, haze_m=haze))
        for haze in (5e3, 200e3)
    )
    air = 255 * NOON.horizon()
    assert np.abs(near.rgb[2, 8] - air).mean() < np.abs(far.rgb[2, 8] - air).mean()
    assert np.abs(near.rgb[60, 8].astype(int) - far.rgb[60, 8]).max() < 40


def test_the_sky_is_brightest_at_the_sun_and_shared_by_all_panoramas():
    sky = NOON.sky(np.array([180.0, 180.0, 0.0]), np.array([45.0, 10.0, 45.0])).mean(-1)
    assert sky.argmax() == 0
    assert np.linalg.norm(NOON.sun()) == pytest.approx(1)
    moment = Moment.draw(np.random.default_rng(3))
    assert moment == Moment.draw(np.random.default_rng(3))
    assert 6 <= moment.sun_elevation_deg <= 62
    assert 20e3 <= moment.haze_m <= 100e3


# --- elevations and imagery ----------------------------------------------------------------------
def test_slopes_are_metres_a_metre():
    lat = BOX.north - (np.arange(480) + 0.5) * STEP
    north = np.radians(lat - BOX.south)[:, None] * RADIUS_M * 0.01
    east = (
        np.arange(480)[None]
        * math.radians(STEP)
        * RADIUS_M
        * 0.02
        * np.cos(np.radians(lat))[:, None]
    )
    for heights, expected in ((north + np.zeros((480, 480)), (0, 0.01)), (east, (0.02, None))):
        found = Elevation.of(heights, BOX).slope(*spot(46.0))
        for value, wanted in zip(found[0], expected, strict=True):
            assert wanted is None or value == pytest.approx(wanted, abs=2e-4)


def test_heights_between_cells_are_interpolated_and_the_sea_is_level():
    heights = np.arange(480.0)[:, None] * 10 + np.zeros((480, 480)) - 100
    raster = Elevation.of(heights, BOX)
    row = (BOX.north - 46.0) / STEP - 0.5
    assert raster.at(*spot(46.0)) == pytest.approx(10 * row - 100, abs=0.01)
    assert raster.at(*spot(47.99)) == 0


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_raster_of_metres_is_read_with_its_offset(tmp_path, suffix):
    Image.fromarray(np.full((40, 40), 1700, np.uint16)).save(tmp_path / f"dem{suffix}")
    raster = Elevation.open(tmp_path / f"dem{suffix}", BOX, offset_m=500.0)
    assert raster.at(*spot(46.0)) == 1200


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda path: Image.new("RGB", (4, 4)).save(path),
            "4x4 raster of kind RGB .*16-bit metres",
        ),
        (lambda path: path.write_bytes(b""), "no readable raster"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n123"), "no readable raster"),
        (lambda path: None, "no readable raster"),
    ],
)
def test_what_is_no_raster_is_refused(tmp_path, make, told):
    make(tmp_path / "dem.png")
    with pytest.raises(ConfigError, match=told):
        Elevation.open(tmp_path / "dem.png", BOX)


def test_tiles_are_put_together_and_the_sea_fills_what_is_absent(tmp_path):
    file = write_tiles(tmp_path / "tiles.parquet")
    bounds = tile_window(8, 132, 86).bounds
    mosaic = Mosaic.of_tiles(str(file), bounds)
    assert (mosaic.zoom, mosaic.col_px, mosaic.row_px) == (8, 132 * 256, 86 * 256)
    assert mosaic.covered.shape == (1, 1)
    wide = Mosaic.of_tiles(str(file), Region(0.0, 30.0, 12.0, 52.0))
    assert wide.covered.sum() == 3
    assert wide.covered.size > 3
    assert wide.rgb[0, 0].tolist() == [11, 24, 51]
    middle = tile_window(8, 132, 86).center
    np.testing.assert_array_equal(wide.crop(middle, 256), mosaic.rgb)
    with pytest.raises(ConfigError, match="tiles of 0 zoom levels"):
        Mosaic.of_tiles(str(file), Region(100.0, 0.0, 101.0, 1.0))


def test_a_crop_between_pixels_is_their_mean():
    mosaic = grey()
    mosaic.rgb[:, ::2] = 0
    x = mosaic.col_px + 400
    lon = x / 65536 * 360 - 180  # the edge of a pixel, so the middle of an even crop
    crop = mosaic.crop(Location(46.0, lon), 4)
    assert set(crop[0, :, 0].tolist()) == {0, 120}
    between = mosaic.crop(Location(46.0, lon + 180 / 65536), 4)
    assert set(between.ravel().tolist()) == {60}
