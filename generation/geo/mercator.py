"""Web mercator: tiles, global pixels and ground sample distance.

A window is a rectangle of global pixels at a zoom level: pixel (0, 0) is the north-west corner
of the map, x grows to the east and y to the south, and a tile is 256 pixels wide.

Source:
    EPSG:3857 (IOGP Guidance Note 7-2, §3.2.1.2 "Popular Visualisation Pseudo Mercator").
"""

import math
from dataclasses import dataclass

from generation.errors import InvalidSpecError
from generation.geo.location import Location, Region

TILE_PX = 256
MAX_ZOOM = 22
WGS84_RADIUS_M = 6378137.0
HALF_WORLD_M = math.pi * WGS84_RADIUS_M
"""Web-mercator metres from the null point to the edge of the map."""
MAX_LAT = math.degrees(math.atan(math.sinh(math.pi)))
"""Latitude of the map's upper edge, about 85.0511 degrees."""


def world_px(zoom: int) -> int:
    """Give the width of the whole map in pixels at a zoom level."""
    return TILE_PX << zoom


def to_px(location: Location, zoom: int) -> tuple[float, float]:
    """Project a point to global pixels.

    Args:
        location: A point no nearer to a pole than ``MAX_LAT``.
        zoom: Zoom level, 0 to ``MAX_ZOOM``.

    Returns:
        ``(x, y)`` in global pixels, y down.

    Raises:
        InvalidSpecError: The point lies outside the map.
    """
    if abs(location.lat) > MAX_LAT:
        raise InvalidSpecError(
            f"lat={location.lat:g} lies beyond the edge of the web-mercator map "
            f"(-{MAX_LAT:.4f} to {MAX_LAT:.4f} degrees; move away from the pole)"
        )
    size = world_px(zoom)
    lat = math.radians(location.lat)
    x = (location.lon + 180) / 360 * size
    y = (1 - math.asinh(math.tan(lat)) / math.pi) / 2 * size
    return x, y


def from_px(x: float | int, y: float | int, zoom: int) -> Location:
    """Turn global pixels back into a point; x is taken modulo the map's width."""
    size = world_px(zoom)
    lon = (x % size) / size * 360 - 180
    lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / size))))
    return Location(lat, lon)


def gsd_m(lat: float, zoom: int) -> float:
    """Give the ground sample distance: metres on the ground a pixel covers at a latitude.

    Source:
        2·pi·R·cos(lat) / (256·2^zoom); 156,543.03 m at the equator for zoom 0.
    """
    return 2 * HALF_WORLD_M * math.cos(math.radians(lat)) / world_px(zoom)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of global web-mercator pixels."""

    zoom: int
    col_px: int
    """Left edge."""
    row_px: int
    """Upper edge."""
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if not 0 <= self.zoom <= MAX_ZOOM:
            raise InvalidSpecError(
                f"zoom={self.zoom} is no zoom level (0 to {MAX_ZOOM}; choose one of these)"
            )
        if self.width_px < 1 or self.height_px < 1:
            raise InvalidSpecError(
                f"window of {self.width_px}x{self.height_px} px is empty (give at least 1x1)"
            )
        if self.row_px < 0 or self.row_px + self.height_px > world_px(self.zoom):
            raise InvalidSpecError(
                f"window rows {self.row_px} to {self.row_px + self.height_px} leave the map at "
                f"zoom {self.zoom} (web mercator ends at latitude {MAX_LAT:.2f}; move away "
                "from the pole)"
            )

    @classmethod
    def around(
        cls, location: Location, zoom: int, size_px: int, *, multiple_px: int = 8
    ) -> "Window":
        """Give the square window whose centre is nearest to a point.

        Its corner is a multiple of ``multiple_px`` so that windows share one grid of latents and
        overlapping renders agree; the centre is therefore off by at most half of that.
        """
        x, y = to_px(location, zoom)
        col = round((x - size_px / 2) / multiple_px) * multiple_px
        row = round((y - size_px / 2) / multiple_px) * multiple_px
        return cls(zoom, col % world_px(zoom), row, size_px, size_px)

    @property
    def center(self) -> Location:
        """The point in the middle."""
        return from_px(self.col_px + self.width_px / 2, self.row_px + self.height_px / 2, self.zoom)

    @property
    def gsd_m(self) -> float:
        """Ground metres per pixel at the centre."""
        return gsd_m(self.center.lat, self.zoom)

    @property
    def bounds(self) -> Region:
        """The box in degrees; over the antimeridian, west is greater than east."""
        north_west = from_px(self.col_px, self.row_px, self.zoom)
        south_east = from_px(self.col_px + self.width_px, self.row_px + self.height_px, self.zoom)
        east = 180.0 if south_east.lon == -180.0 else south_east.lon
        return Region(north_west.lon, south_east.lat, east, north_west.lat)

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine map (a, b, c, d, e, f) from pixel (x, y) to EPSG:3857 metres."""
        step = 2 * HALF_WORLD_M / world_px(self.zoom)
        return (
            step,
            0.0,
            self.col_px * step - HALF_WORLD_M,
            0.0,
            -step,
            HALF_WORLD_M - self.row_px * step,
        )

    @property
    def bounds_3857(self) -> tuple[float, float, float, float]:
        """West, south, east, north in EPSG:3857 metres; east may exceed the map's edge."""
        step, _, west, _, _, north = self.transform
        return west, north - self.height_px * step, west + self.width_px * step, north


def tile_window(zoom: int, x: int, y: int) -> Window:
    """Give the window of an XYZ tile.

    Raises:
        InvalidSpecError: There is no such tile at this zoom level.
    """
    if not (0 <= zoom <= MAX_ZOOM and 0 <= x < 1 << zoom and 0 <= y < 1 << zoom):
        raise InvalidSpecError(
            f"tile {zoom}/{x}/{y} does not exist (x and y run from 0 to 2^zoom - 1)"
        )
    return Window(zoom, x * TILE_PX, y * TILE_PX, TILE_PX, TILE_PX)
