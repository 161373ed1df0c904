"""Points, boxes and distances."""

import math

import pytest

from generation.errors import InvalidLocationError, InvalidSpecError
from generation.geo.location import EARTH_RADIUS_KM, Location, Region, great_circle_km


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((51.5007, -0.1246), (40.6892, -74.0445), 5574.8),  # Big Ben to Liberty Island
        ((0.0, 179.5), (0.0, -179.5), 111.195),  # across the antimeridian
        ((90.0, 0.0), (90.0, 135.0), 0.0),  # every longitude meets at the pole
        ((90.0, 0.0), (-90.0, 0.0), math.pi * EARTH_RADIUS_KM),
        ((0.0, 0.0), (0.0, 180.0), math.pi * EARTH_RADIUS_KM),  # antipodes: no root of a negative
        ((45.0, 7.0), (45.00001, 7.0), 0.00111195),  # a metre keeps its digits
    ],
)
def test_great_circle_matches_known_distances(a, b, km):
    a, b = Location(*a), Location(*b)
    assert great_circle_km(a, b) == pytest.approx(km, rel=1e-4, abs=1e-9)
    assert great_circle_km(b, a) == great_circle_km(a, b)


@pytest.mark.parametrize(
    ("lat", "lon"), [(90.0, 180.0), (-90.0, -180.0), (0.0, 0.0), (-0.0, 179.999)]
)
def test_the_edges_of_the_earth_are_places(lat, lon):
    assert Location(lat, lon).lat == lat


@pytest.mark.parametrize(
    ("lat", "lon"),
    [(95.0, 0.0), (0.0, 181.0), (-90.01, 0.0), (math.nan, 0.0), (0.0, math.nan), (math.inf, 0.0)],
)
def test_impossible_coordinates_are_refused(lat, lon):
    with pytest.raises(InvalidLocationError, match="no such place"):
        Location(lat, lon)


def test_swapped_coordinates_are_refused_with_a_hint():
    with pytest.raises(InvalidLocationError, match=r"swapped\? try lat=37.8, lon=-122.4"):
        Location(lat=-122.4, lon=37.8)
    with pytest.raises(InvalidLocationError) as told:
        Location(lat=95.0, lon=170.0)  # 170 would be no latitude either
    assert "swapped" not in str(told.value)


def test_a_box_over_the_antimeridian_has_its_west_in_the_east():
    assert Region(west=170.0, south=-20.0, east=-170.0, north=-10.0).crosses_antimeridian
    assert not Region(west=-10.0, south=-20.0, east=10.0, north=-10.0).crosses_antimeridian


def test_a_box_upside_down_is_told_as_such():
    with pytest.raises(InvalidSpecError, match="south 20 does not lie below its north 10"):
        Region(west=0.0, south=20.0, east=10.0, north=10.0)
    with pytest.raises(InvalidLocationError):
        Region(west=0.0, south=-91.0, east=10.0, north=10.0)
