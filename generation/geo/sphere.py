"""The sphere around a viewer: panoramas, headings, and what is seen from somewhere else.

A panorama is equirectangular and covers all azimuths; its rows run from one elevation to another,
which :class:`Band` states. Azimuths are degrees clockwise from north, elevations degrees above the
horizontal. The boundary between the two middle columns looks at the panorama's heading. Everything
is circular in azimuth, and what takes tensors is differentiable.

Source:
    Snyder, "Map projections: a working manual" (USGS, 1987), §§12, 25 (equirectangular and
    azimuthal equidistant on the sphere) and §7 (mercator).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from generation.errors import InvalidSpecError
from generation.geo.location import EARTH_RADIUS_KM, Location, great_circle_km

EARTH_RADIUS_M = 1000 * EARTH_RADIUS_KM
CUBE_FACES: tuple[tuple[str, float, float], ...] = (
    ("front", 0.0, 0.0),
    ("right", 90.0, 0.0),
    ("back", 180.0, 0.0),
    ("left", 270.0, 0.0),
    ("up", 0.0, 90.0),
    ("down", 0.0, -90.0),
)
"""Name, yaw and pitch of the faces of a cube map, degrees."""


@dataclass(frozen=True, slots=True)
class Band:
    """The grid of a panorama: all azimuths, and elevations from ``top_deg`` to ``bottom_deg``."""

    height: int = 128
    width: int = 512
    top_deg: float = 45.0
    bottom_deg: float = -45.0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.width % 2:
            raise InvalidSpecError(
                f"a panorama of {self.width}x{self.height} px (give an even width, and at least "
                "one row)"
            )
        if not -90 <= self.bottom_deg < self.top_deg <= 90:
            raise InvalidSpecError(
                f"elevations from {self.bottom_deg:g} to {self.top_deg:g} degrees (give two from "
                "-90 to 90, the lower one first)"
            )

    @property
    def step_deg(self) -> float:
        """Degrees of azimuth that a column covers."""
        return 360 / self.width

    @property
    def row_deg(self) -> float:
        """Degrees of elevation that a row covers."""
        return (self.top_deg - self.bottom_deg) / self.height

    def coarser(self, factor: int) -> "Band":
        """Give the same band on a grid ``factor`` times coarser."""
        return Band(self.height // factor, self.width // factor, self.top_deg, self.bottom_deg)

    def azimuths_deg(self, heading_deg: float = 0.0) -> Float[Tensor, " width"]:
        """Give the azimuth of the middle of each column, not reduced to a full turn."""
        return heading_deg + (torch.arange(self.width) + 0.5 - self.width / 2) * self.step_deg

    def elevations_deg(self) -> Float[Tensor, " height"]:
        """Give the elevation of the middle of each row, the highest first."""
        return self.top_deg - (torch.arange(self.height) + 0.5) * self.row_deg


FULL = Band(256, 512, 90.0, -90.0)
"""The whole sphere on a small grid: two to one."""


def check_heading(heading_deg: float, name: str = "heading") -> float:
    """Give a heading as it was, if it is one.

    Raises:
        InvalidSpecError: It is not from 0 up to 360.
    """
    if not 0 <= heading_deg < 360:  # which NaN is not
        raise InvalidSpecError(
            f"{name}={heading_deg:g} is no heading (give degrees clockwise from north, 0 up to 360)"
        )
    return heading_deg


def bearing_deg(origin: Location, place: Location) -> float:
    """Give the initial bearing of the great circle from one point to another, 0 up to 360.

    Source:
        Snyder (1987), Eq. 5-4b.
    """
    lat_a, lat_b = math.radians(origin.lat), math.radians(place.lat)
    d_lon = math.radians(place.lon - origin.lon)
    east = math.cos(lat_b) * math.sin(d_lon)
    north = math.cos(lat_a) * math.sin(lat_b) - math.sin(lat_a) * math.cos(lat_b) * math.cos(d_lon)
    return math.degrees(math.atan2(east, north)) % 360


def offset_m(origin: Location, place: Location) -> tuple[float, float]:
    """Give how far east and north of a point another one lies, along the great circle, metres."""
    bearing = math.radians(bearing_deg(origin, place))
    distance = 1000 * great_circle_km(origin, place)
    return distance * math.sin(bearing), distance * math.cos(bearing)


def destination(
    lat_deg: Float[Tensor, "*#n"],
    lon_deg: Float[Tensor, "*#n"],
    azimuth_deg: Float[Tensor, "*#n"],
    distance_m: Float[Tensor, "*#n"],
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Go from a point along a great circle; give latitude and longitude, degrees.

    Source:
        Snyder (1987), Eqs. 5-5 and 5-6.
    """
    lat, lon, azimuth = lat_deg.deg2rad(), lon_deg.deg2rad(), azimuth_deg.deg2rad()
    arc = distance_m / EARTH_RADIUS_M
    sine = lat.sin() * arc.cos() + lat.cos() * arc.sin() * azimuth.cos()
    there = sine.clamp(-1, 1).asin()
    turn = torch.atan2(azimuth.sin() * arc.sin() * lat.cos(), arc.cos() - lat.sin() * sine)
    return there.rad2deg(), (lon + turn).rad2deg()


def sample(
    panorama: Float[Tensor, "batch channels rows cols"],
    azimuth_deg: Float[Tensor, "#batch *#points"],
    elevation_deg: Float[Tensor, "#batch *#points"],
    band: Band,
    heading_deg: float = 0.0,
) -> Float[Tensor, "batch channels points"]:
    """Look up directions in panoramas, bilinear and circular; points are flattened.

    Elevations beyond the band give the value of its edge: see :func:`inside` for which those are.
    Directions in double precision are looked up in it, whatever the panoramas are in.

    Args:
        panorama: Panoramas on the grid of ``band``.
        azimuth_deg: Directions, any number of turns.
        elevation_deg: The same.
        band: What the rows and columns mean.
        heading_deg: Where the middle of the panoramas looks.
    """
    azimuth_deg, elevation_deg = torch.broadcast_tensors(azimuth_deg, elevation_deg)
    batch, rows, cols = len(panorama), panorama.shape[2], panorama.shape[3]
    col = ((azimuth_deg - heading_deg) / band.step_deg + cols / 2 - 0.5).remainder(cols)
    row = (band.top_deg - elevation_deg) / band.row_deg - 0.5
    wrapped = torch.cat([panorama, panorama[..., :1]], dim=3)  # a column more closes the circle
    x = col.reshape(batch, 1, -1) * (2 / cols) - 1
    y = row.reshape(batch, 1, -1) * (2 / max(rows - 1, 1)) - 1
    grid = torch.stack([x, y], dim=-1)
    pixels = wrapped.to(torch.promote_types(wrapped.dtype, grid.dtype))
    found = F.grid_sample(pixels, grid, align_corners=True, padding_mode="border")
    return found[:, :, 0].to(panorama.dtype)


def inside(elevation_deg: Float[Tensor, "*points"], band: Band) -> Bool[Tensor, "*points"]:
    """Tell which elevations a band covers."""
    return (elevation_deg <= band.top_deg) & (elevation_deg >= band.bottom_deg)


def turn(
    panorama: Float[Tensor, "batch channels rows cols"], from_deg: float, to_deg: float
) -> Float[Tensor, "batch channels rows cols"]:
    """Turn panoramas from one heading to another.

    Turns by whole columns move pixels and change none; others interpolate between two columns.
    """
    cols = panorama.shape[3]
    shift = (to_deg - from_deg) / 360 * cols
    whole = math.floor(shift)
    part = shift - whole
    if min(part, 1 - part) < 1e-6:
        return panorama.roll(-round(shift), dims=3)
    first = panorama.roll(-whole, dims=3)
    return torch.lerp(first, first.roll(-1, dims=3), part)


def ground_distance_m(
    elevation_deg: Float[Tensor, "*rows"], eye_m: float
) -> Float[Tensor, "*rows"]:
    """Give the distance along the ground at which a ray meets a smooth Earth.

    Args:
        elevation_deg: Of the ray.
        eye_m: Height of the eye over the ground.

    Returns:
        Metres along the ground; infinite for rays that pass over the horizon.

    Source:
        The triangle of the Earth's centre, the eye and the point, by the law of sines; refraction
        is left out.
    """
    zenith = (90 + elevation_deg.double()).deg2rad()  # angle at the eye, from the nadir
    sine = zenith.sin() * (1 + eye_m / EARTH_RADIUS_M)
    meets = (elevation_deg < 0) & (sine <= 1)
    arc = torch.asin(sine.clamp(max=1.0)) - zenith
    far = torch.full_like(arc, math.inf)
    return torch.where(meets, (arc * EARTH_RADIUS_M).clamp_min(0), far).to(elevation_deg.dtype)


def seen_from(
    azimuth_deg: Float[Tensor, "*#n"],
    elevation_deg: Float[Tensor, "*#n"],
    distance_m: Float[Tensor, "*#n"],
    east_m: Float[Tensor, "*#n"],
    north_m: Float[Tensor, "*#n"],
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Tell where a point that one eye sees appears to another at the same height.

    Args:
        azimuth_deg: Direction from the first eye.
        elevation_deg: The same.
        distance_m: How far along the ground the point is from it.
        east_m: How far east of the first eye the second one stands.
        north_m: How far north.

    Returns:
        Azimuth and elevation from the second eye, degrees, and its distance along the ground.

    Source:
        Plane geometry in the azimuthal equidistant map around the first eye, with the fall of the
        Earth ``d² / 2R`` below each eye's horizontal; within 0.02 degrees up to 100 km.
    """
    azimuth = azimuth_deg.deg2rad()
    east = distance_m * azimuth.sin() - east_m
    north = distance_m * azimuth.cos() - north_m
    there = (east**2 + north**2 + 1.0).sqrt()  # a metre keeps the gradient finite at the eye
    rise = distance_m * elevation_deg.deg2rad().tan()
    rise = rise + (distance_m**2 - there**2) / (2 * EARTH_RADIUS_M)
    return torch.atan2(east, north).rad2deg(), torch.atan2(rise, there).rad2deg(), there


def on_satellite(
    azimuth_deg: Float[Tensor, "*#n"],
    distance_m: Float[Tensor, "*#n"],
    lat_deg: Float[Tensor, "*#n"],
    gsd_m: Float[Tensor, "*#n"],
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Tell where a point on the ground lies on a web-mercator image centred on the eye.

    Args:
        azimuth_deg: Direction of the point.
        distance_m: How far along the ground it is.
        lat_deg: Latitude of the eye.
        gsd_m: Ground metres a pixel at the eye.

    Returns:
        Pixels right of and below the middle of the image.

    Source:
        Snyder (1987), Eqs. 5-5, 5-6 and 7-2; the difference of two latitudes on the map is taken by
        the addition theorem of the inverse hyperbolic tangent, since both are large numbers that
        hardly differ.
    """
    lat, azimuth = lat_deg.deg2rad(), azimuth_deg.deg2rad()
    arc = distance_m / EARTH_RADIUS_M
    # How much the sine of the latitude falls on the way, free of cancellation.
    fall = 2 * lat.sin() * (arc / 2).sin() ** 2 - lat.cos() * arc.sin() * azimuth.cos()
    sine = lat.sin() - fall
    lon = torch.atan2(azimuth.sin() * arc.sin() * lat.cos(), arc.cos() - lat.sin() * sine)
    circle_px = EARTH_RADIUS_M * lat.cos() / gsd_m  # pixels of one radian
    return lon * circle_px, (fall / (1 - lat.sin() * sine)).atanh() * circle_px


def lookup(
    image: Float[Tensor, "batch channels rows cols"],
    right_px: Float[Tensor, "batch ..."],
    down_px: Float[Tensor, "batch ..."],
) -> tuple[Float[Tensor, "batch channels ..."], Bool[Tensor, "batch ..."]]:
    """Look up points of an image by their offset from its middle, bilinear.

    Returns:
        The values, those of the edge for points beyond it, and which points lie on the image.
    """
    rows, cols = image.shape[2:]
    x, y = right_px * (2 / cols), down_px * (2 / rows)
    grid = torch.stack([x, y], dim=-1).reshape(len(image), 1, -1, 2)
    found = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    found = found.reshape(len(image), image.shape[1], *right_px.shape[1:])
    return found, (x.abs() <= 1) & (y.abs() <= 1)


def perspective(
    panorama: Float[Tensor, "batch channels rows cols"],
    band: Band,
    *,
    yaw_deg: float,
    pitch_deg: float = 0.0,
    fov_deg: float = 90.0,
    size: tuple[int, int] = (256, 256),
    heading_deg: float = 0.0,
) -> tuple[Float[Tensor, "batch channels height width"], Bool[Tensor, "height width"]]:
    """Cut what a camera without distortion would see out of panoramas.

    Args:
        panorama: Panoramas on the grid of ``band``.
        band: What their rows mean.
        yaw_deg: Where the camera looks, clockwise from north.
        pitch_deg: How far up it looks.
        fov_deg: Its horizontal field of view, more than 0 and less than 180.
        size: Height and width of the picture, pixels.
        heading_deg: Where the middle of the panoramas looks.

    Returns:
        The pictures, and which of their pixels the band covers.

    Raises:
        InvalidSpecError: There is no such field of view.
    """
    if not 0 < fov_deg < 180:
        raise InvalidSpecError(f"fov={fov_deg:g} (give more than 0 and less than 180 degrees)")
    height, width = size
    half = math.tan(math.radians(fov_deg) / 2)
    right = ((torch.arange(width) + 0.5) / width * 2 - 1) * half
    up = (1 - (torch.arange(height) + 0.5) / height * 2) * half * height / width
    up, right = torch.meshgrid(up, right, indexing="ij")
    pitch = math.radians(pitch_deg)
    forward = math.cos(pitch) - up * math.sin(pitch)
    above = math.sin(pitch) + up * math.cos(pitch)
    azimuth = yaw_deg + torch.atan2(right, forward).rad2deg()
    elevation = torch.atan2(above, torch.hypot(forward, right)).rad2deg()
    count = len(panorama)
    found = sample(
        panorama,
        azimuth.to(panorama).expand(count, height, width),
        elevation.to(panorama).expand(count, height, width),
        band,
        heading_deg,
    )
    return found.reshape(count, -1, height, width), inside(elevation, band)


def cube_map(
    panorama: Float[Tensor, "batch channels rows cols"], band: Band, size: int
) -> dict[str, Float[Tensor, "batch channels size size"]]:
    """Give the six faces of a cube around the eye, each ``size`` pixels wide; front is north."""
    return {
        name: perspective(
            panorama, band, yaw_deg=yaw, pitch_deg=pitch, fov_deg=90.0, size=(size, size)
        )[0]
        for name, yaw, pitch in CUBE_FACES
    }
