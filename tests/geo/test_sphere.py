"""The sphere around a viewer: known values, round trips, circles and exact geometry."""

import math

import pytest
import torch

from generation.errors import InvalidSpecError
from generation.geo.location import EARTH_RADIUS_KM, Location, great_circle_km
from generation.geo.mercator import gsd_m, to_px
from generation.geo.sphere import (
    CUBE_FACES,
    EARTH_RADIUS_M,
    FULL,
    Band,
    bearing_deg,
    check_heading,
    cube_map,
    destination,
    ground_distance_m,
    inside,
    lookup,
    offset_m,
    on_satellite,
    perspective,
    sample,
    seen_from,
    turn,
)

BAND = Band(16, 64)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def directions(band):
    """A panorama whose three channels are the direction of each pixel: east, north, up."""
    azimuth, elevation = band.azimuths_deg().deg2rad(), band.elevations_deg().deg2rad()[:, None]
    level = elevation.cos()
    planes = [level * azimuth.sin(), level * azimuth.cos(), elevation.sin().expand(-1, band.width)]
    return torch.stack(planes)[None]


# --- grids and headings --------------------------------------------------------------------------
def test_the_middle_of_a_panorama_is_its_heading():
    azimuths = Band(2, 4).azimuths_deg(90.0)
    assert azimuths.tolist() == [-45, 45, 135, 225]
    assert Band(2, 4, 30.0, -10.0).elevations_deg().tolist() == [20, 0]
    assert Band(128, 512).coarser(8) == Band(16, 64)


def test_impossible_grids_are_refused():
    for height, width in ((0, 64), (16, 63), (16, 0)):
        with pytest.raises(InvalidSpecError, match=f"{width}x{height} px .*give an even width"):
            Band(height, width)
    for top, bottom in ((45.0, 45.0), (-45.0, 45.0), (91.0, 0.0), (0.0, -91.0), (math.nan, 0.0)):
        with pytest.raises(InvalidSpecError, match="lower one first"):
            Band(16, 64, top, bottom)


@pytest.mark.parametrize("heading", [400.0, 360.0, -1.0, math.nan, math.inf])
def test_what_is_no_heading_is_refused(heading):
    with pytest.raises(InvalidSpecError, match="0 up to 360"):
        check_heading(heading)


def test_a_heading_is_given_back_as_it_was():
    assert [check_heading(value) for value in (0.0, 359.99)] == [0.0, 359.99]


# --- bearings and distances ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("origin", "place", "bearing"),
    [
        ((0.0, 0.0), (0.0, 90.0), 90.0),  # a quarter of the equator
        ((0.0, 0.0), (0.0, -90.0), 270.0),
        ((0.0, 0.0), (10.0, 0.0), 0.0),
        ((0.0, 179.5), (0.0, -179.5), 90.0),  # over the antimeridian
        ((89.0, 0.0), (89.0, 180.0), 0.0),  # over the pole
        ((45.0, 10.0), (-90.0, 50.0), 180.0),  # the south pole, whatever its longitude
        ((35.0, 45.0), (35.0, 135.0), 60.1625),  # by hand: atan2(sin 90, cos 35 tan 35)
    ],
)
def test_bearings_are_known(origin, place, bearing):
    assert bearing_deg(Location(*origin), Location(*place)) == pytest.approx(bearing, abs=1e-3)


def test_an_offset_has_the_length_and_the_bearing_of_the_way():
    here, there = Location(45.98, 7.66), Location(46.2, 7.4)
    east, north = offset_m(here, there)
    assert math.hypot(east, north) == pytest.approx(1000 * great_circle_km(here, there))
    assert east < 0 < north
    assert offset_m(here, here) == (0.0, 0.0)


@pytest.mark.parametrize("lat", [0.0, 45.98, -77.0, 89.9])
@pytest.mark.parametrize("lon", [7.66, 179.99])
@pytest.mark.parametrize("azimuth", [0.0, 33.0, 190.0, 271.0])
def test_a_destination_lies_where_distance_and_bearing_say(lat, lon, azimuth):
    there = destination(numbers(lat), numbers(lon), numbers(azimuth), numbers(20e3))
    east = (there[1].item() + 180) % 360 - 180
    place = Location(there[0].item(), east)
    assert great_circle_km(Location(lat, lon), place) == pytest.approx(20, rel=1e-6)
    apart = (bearing_deg(Location(lat, lon), place) - azimuth + 180) % 360 - 180
    assert apart == pytest.approx(0, abs=1e-4)


def test_a_quarter_of_a_great_circle_ends_where_it_should():
    quarter = EARTH_RADIUS_M * math.pi / 2
    lat, lon = destination(
        numbers(0, 0), numbers(0, 170), numbers(90, 0), numbers(quarter, quarter)
    )
    assert lat.tolist() == pytest.approx([0, 90], abs=1e-6)
    assert lon[0].item() == pytest.approx(90)


# --- rays to the ground --------------------------------------------------------------------------
def test_a_ray_straight_down_ends_at_the_foot():
    assert ground_distance_m(torch.tensor(-90.0), 1500.0).item() == pytest.approx(0, abs=0.5)


def test_near_rays_are_those_of_flat_ground():
    found = ground_distance_m(numbers(-45, -30), 1500.0)
    assert found[0].item() == pytest.approx(1500, rel=1e-3)
    assert found[1].item() == pytest.approx(1500 * math.sqrt(3), rel=1e-3)


def test_the_horizon_lies_at_the_square_root_of_twice_radius_and_height():
    dip = math.degrees(math.acos(1 / (1 + 1500 / EARTH_RADIUS_M)))
    found = ground_distance_m(numbers(-dip - 1e-5, -dip + 1e-5, 0.0, 10.0), 1500.0)
    assert found[0].item() == pytest.approx(math.sqrt(2 * EARTH_RADIUS_M * 1500), rel=1e-2)
    assert found[1:].isinf().all()


def test_steeper_rays_end_nearer():
    found = ground_distance_m(torch.linspace(-89, -2, 50), 1500.0)
    assert bool((found.diff() > 0).all())


# --- seen from elsewhere -------------------------------------------------------------------------
def test_a_point_between_two_eyes_is_seen_from_both():
    """The point lies 4 km north of the first eye and 6 km south of the second, 300 m below both."""
    fall = [d**2 / (2 * EARTH_RADIUS_M) for d in (4000, 6000)]
    first, second = (
        math.degrees(math.atan2(-300 - f, d)) for f, d in zip(fall, (4e3, 6e3), strict=True)
    )
    azimuth, elevation, distance = seen_from(
        numbers(0), numbers(first), numbers(4000), numbers(0), numbers(10e3)
    )
    assert abs(azimuth.item()) == pytest.approx(180, abs=1e-6)
    assert elevation.item() == pytest.approx(second, abs=1e-6)
    assert distance.item() == pytest.approx(6000, abs=0.01)


def on_the_globe(lat, lon, height):
    lat, lon = lat.deg2rad(), lon.deg2rad()
    up = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1)
    return up * (EARTH_RADIUS_M + torch.as_tensor(height))[..., None]


def look(lat, lon, height, point):
    """Azimuth and elevation of a point of space from an eye, by vectors."""
    ray = point - on_the_globe(lat, lon, height)
    a, o = lat.deg2rad(), lon.deg2rad()
    zero = torch.zeros_like(a)
    east = torch.stack([-o.sin(), o.cos(), zero], -1)
    north = torch.stack([-a.sin() * o.cos(), -a.sin() * o.sin(), a.cos()], -1)
    up = torch.stack([a.cos() * o.cos(), a.cos() * o.sin(), a.sin()], -1)
    parts = [(ray * axis).sum(-1) for axis in (east, north, up)]
    level = torch.hypot(parts[0], parts[1])
    return torch.atan2(parts[0], parts[1]).rad2deg(), torch.atan2(parts[2], level).rad2deg()


def test_what_is_seen_from_elsewhere_is_exact_to_a_fiftieth_of_a_degree():
    """Points up to 100 km away, eyes up to 30 km apart, against vectors on the sphere."""
    draw = torch.Generator().manual_seed(0)

    def uniform(low, high):
        return low + (high - low) * torch.rand(4000, generator=draw, dtype=torch.float64)

    lat, lon, eye = numbers(46).expand(4000), numbers(8).expand(4000), 3000.0
    bearing, apart = uniform(0, 360), uniform(1e3, 30e3)
    toward, far = uniform(0, 360), uniform(3e3, 100e3)
    ground = uniform(0, 4000)  # height of the point over the sea
    second = destination(lat, lon, bearing, apart)
    point = destination(lat, lon, toward, far)
    spot = on_the_globe(*point, ground)
    azimuth, elevation = look(lat, lon, eye, spot)
    expected = look(*second, eye, spot)
    east, north = apart * bearing.deg2rad().sin(), apart * bearing.deg2rad().cos()
    found = seen_from(azimuth, elevation, far, east, north)
    clear = found[2] > 3000  # nearer ones move fast
    turned = (found[0] - expected[0] + 180).remainder(360) - 180
    # Meridians meet: north at the second eye is not north at the first one.
    meeting = (second[1] - lon) * torch.sin((lat + second[0]).deg2rad() / 2)
    turned = (turned + meeting + 180).remainder(360) - 180
    assert (found[1] - expected[1])[clear].abs().max().item() < 0.02
    assert turned[clear].abs().max().item() < 0.02


# --- satellite images ----------------------------------------------------------------------------
@pytest.mark.parametrize(("lat", "lon"), [(45.98, 7.66), (-60.0, 179.9), (0.0, 0.0)])
def test_a_point_on_the_satellite_image_is_where_the_map_has_it(lat, lon):
    azimuth, distance = numbers(10, 100, 200, 300), numbers(1e3, 10e3, 40e3, 70e3)
    eye = numbers(lat).expand(4)
    right, down = on_satellite(azimuth, distance, eye, numbers(gsd_m_sphere(lat)).expand(4))
    there = destination(eye, numbers(lon).expand(4), azimuth, distance)
    x0, y0 = to_px(Location(lat, lon), 8)
    for k in range(4):
        east = there[1][k].item() - (360 if there[1][k].item() > 180 else 0)
        x, y = to_px(Location(there[0][k].item(), east), 8)
        assert right[k].item() == pytest.approx((x - x0 + 32768) % 65536 - 32768, abs=1e-6)
        assert down[k].item() == pytest.approx(y - y0, abs=1e-6)


def test_single_precision_places_ground_to_a_small_part_of_a_pixel():
    azimuth, distance = numbers(*range(0, 360, 15)), numbers(9e3).expand(24)
    lat, gsd = numbers(46.0).expand(24), numbers(420.0).expand(24)
    exact = on_satellite(azimuth, distance, lat, gsd)
    single = on_satellite(*(value.float() for value in (azimuth, distance, lat, gsd)))
    for a, b in zip(exact, single, strict=True):
        assert (a - b).abs().max().item() < 2e-5


def gsd_m_sphere(lat):
    """Ground metres of a pixel of zoom 8 on the sphere that distances are measured on."""
    return 2 * math.pi * EARTH_RADIUS_M * math.cos(math.radians(lat)) / 65536


def test_the_two_radii_of_the_earth_are_apart_by_a_thousandth():
    """Web mercator is drawn on 6378 km, distances are measured on 6371 km."""
    assert gsd_m(46.0, 8) / gsd_m_sphere(46.0) == pytest.approx(6378.137 / EARTH_RADIUS_KM)


def test_points_of_an_image_are_looked_up_from_its_middle():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    right, down = torch.tensor([[0.5, -1.5, 0.0, 2.5]]), torch.tensor([[0.5, -1.5, 0.0, 0.5]])
    values, on_image = lookup(image, right, down)
    assert values[0, 0].tolist() == pytest.approx([10, 0, 7.5, 11])
    assert on_image[0].tolist() == [True, True, True, False]


# --- looking up panoramas ------------------------------------------------------------------------
def test_the_middle_of_a_pixel_gives_the_pixel():
    panorama = torch.rand(2, 3, 16, 64)
    azimuth = BAND.azimuths_deg(40.0)[None, None, :].expand(2, 16, -1)
    elevation = BAND.elevations_deg()[None, :, None].expand(2, -1, 64)
    found = sample(panorama, azimuth, elevation, BAND, 40.0)
    torch.testing.assert_close(found.reshape(panorama.shape), panorama, atol=2e-5, rtol=0)


def test_looking_up_is_circular_and_a_turn_more_changes_nothing():
    panorama = torch.rand(1, 1, 1, 8)
    band = Band(1, 8)
    edge = sample(panorama, torch.tensor([[180.0, -180.0, 540.0]]), torch.zeros(1, 3), band)
    middle = (panorama[..., 0] + panorama[..., 7]).item() / 2
    assert edge.flatten().tolist() == pytest.approx([middle] * 3, abs=1e-6)


def test_elevations_beyond_the_band_give_its_edge_and_are_told():
    panorama = torch.rand(1, 1, 16, 64)
    found = sample(panorama, torch.full((1, 2), 2.8125), torch.tensor([[80.0, -80.0]]), BAND)
    assert found.flatten().tolist() == pytest.approx(panorama[0, 0, [0, 15], 32].tolist())
    assert inside(torch.tensor([80.0, 45.0, -45.0, -46.0]), BAND).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_gradients_reach_the_panorama_and_the_direction():
    panorama = torch.rand(1, 1, 16, 64, requires_grad=True)
    azimuth = torch.tensor([[12.0, 181.0]], requires_grad=True)
    sample(panorama, azimuth, torch.tensor([[3.0, -3.0]]), BAND).sum().backward()
    assert (panorama.grad != 0).sum() == 8
    assert bool((azimuth.grad != 0).all())
    east = torch.zeros(1, requires_grad=True)
    found = seen_from(torch.zeros(1), torch.zeros(1), torch.zeros(1), east, torch.zeros(1))
    torch.stack(found).sum().backward()  # at the eye itself
    assert bool(east.grad.isfinite().all())


# --- turning -------------------------------------------------------------------------------------
def test_turning_by_whole_columns_moves_pixels_and_changes_none():
    panorama = torch.rand(1, 3, 4, 64)
    turned = turn(panorama, 0.0, 90.0)
    assert torch.equal(turned, panorama.roll(-16, dims=3))  # what was in the east is in the middle
    assert torch.equal(turn(turned, 90.0, 0.0), panorama)
    assert torch.equal(turn(panorama, 350.0, 350.0 + 7 * 5.625), panorama.roll(-7, dims=3))


def test_turning_by_half_a_column_is_the_mean_of_two():
    panorama = torch.rand(1, 3, 4, 64)
    turned = turn(panorama, 0.0, 5.625 / 2)
    torch.testing.assert_close(turned, (panorama + panorama.roll(-1, dims=3)) / 2)


def test_turning_is_looking_up_at_another_heading():
    panorama = torch.rand(1, 1, 16, 64)
    azimuth = BAND.azimuths_deg(33.0).expand(1, 16, 64)
    elevation = BAND.elevations_deg()[None, :, None].expand(1, 16, 64)
    found = sample(panorama, azimuth, elevation, BAND).reshape(panorama.shape)
    torch.testing.assert_close(turn(panorama, 0.0, 33.0), found, atol=2e-5, rtol=0)


# --- cameras -------------------------------------------------------------------------------------
def test_a_camera_sees_its_own_rays():
    band = Band(360, 720, 90.0, -90.0)
    camera = {"yaw_deg": 70.0, "pitch_deg": 20.0, "fov_deg": 80.0, "size": (9, 13)}
    picture, covered = perspective(directions(band), band, **camera)
    assert bool(covered.all())
    half = math.tan(math.radians(40))
    right = ((torch.arange(13) + 0.5) / 13 * 2 - 1) * half
    up = (1 - (torch.arange(9) + 0.5) / 9 * 2)[:, None] * half * 9 / 13
    yaw, pitch = math.radians(70), math.radians(20)
    forward = (math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch))
    side = (math.cos(yaw), -math.sin(yaw), 0.0)
    above = (-math.sin(yaw) * math.sin(pitch), -math.cos(yaw) * math.sin(pitch), math.cos(pitch))
    rays = torch.stack(
        [f + right * s + up * a for f, s, a in zip(forward, side, above, strict=True)]
    )
    rays = rays / rays.norm(dim=0)
    assert (picture[0] - rays).norm(dim=0).max().item() < 2e-3


def test_a_camera_tells_which_of_its_pixels_the_band_covers():
    panorama = torch.rand(1, 1, 16, 64)
    _, covered = perspective(panorama, BAND, yaw_deg=0.0, pitch_deg=45.0, size=(8, 8))
    assert not covered[0].any()
    assert bool(covered[-1].all())


@pytest.mark.parametrize("fov", [0.0, 180.0, -10.0, math.nan])
def test_impossible_fields_of_view_are_refused(fov):
    with pytest.raises(InvalidSpecError, match="more than 0 and less than 180"):
        perspective(torch.rand(1, 1, 16, 64), BAND, yaw_deg=0.0, fov_deg=fov)


def test_the_faces_of_a_cube_join():
    """Rays at the rims of neighbouring faces are half a pixel off the common edge, on each side."""
    faces = cube_map(directions(FULL), FULL, 64)
    assert list(faces) == [name for name, _, _ in CUBE_FACES]
    sides = ["front", "right", "back", "left"]
    pairs = [
        (faces[a][..., -1], faces[b][..., 0])
        for a, b in zip(sides, sides[1:] + sides[:1], strict=True)
    ]
    pairs += [(faces["up"][:, :, -1], faces["front"][:, :, 0])]
    pairs += [(faces["front"][:, :, -1], faces["down"][:, :, 0])]
    for a, b in pairs:
        assert (a - b).norm(dim=1).max().item() < 0.03
        assert (a - b.flip(-1)).norm(dim=1).max().item() > 0.5
