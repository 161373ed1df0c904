"""Points and boxes on Earth, in WGS84 degrees, latitude first."""

import math
from dataclasses import dataclass

from generation.errors import InvalidLocationError, InvalidSpecError

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth (IUGG), in kilometres."""


@dataclass(frozen=True, slots=True)
class Location:
    """A point on Earth in WGS84 degrees. Latitude comes first, everywhere."""

    lat: float
    lon: float

    def __post_init__(self) -> None:
        if not (-90 <= self.lat <= 90 and -180 <= self.lon <= 180):
            raise InvalidLocationError(self.lat, self.lon)


@dataclass(frozen=True, slots=True)
class Region:
    """A box in WGS84 degrees: west, south, east, north.

    A box across the antimeridian has ``west > east``.
    """

    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        for lat, lon in ((self.south, self.west), (self.north, self.east)):
            Location(lat, lon)
        if self.south >= self.north:
            raise InvalidSpecError(
                f"no such box: its south {self.south:g} does not lie below its north "
                f"{self.north:g} (give west, south, east, north in degrees)"
            )

    @property
    def crosses_antimeridian(self) -> bool:
        """Whether the box runs over longitude 180."""
        return self.west > self.east


def great_circle_km(a: Location, b: Location) -> float:
    """Distance along the sphere between two points.

    Uses the haversine form, which keeps its precision for points a few metres apart.

    Args:
        a: One end.
        b: The other end.

    Returns:
        Kilometres on a sphere of radius ``EARTH_RADIUS_KM``.

    Source:
        Sinnott, "Virtues of the Haversine", Sky & Telescope 68 (1984) 159.
    """
    lat_a, lat_b = math.radians(a.lat), math.radians(b.lat)
    d_lat, d_lon = lat_b - lat_a, math.radians(b.lon - a.lon)
    h = math.sin(d_lat / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(d_lon / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, h)))
