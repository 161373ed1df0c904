"""Panoramas rendered from real terrain and real imagery.

No open set of panoramas with known places is to be had, so these are drawn: rays from an eye above
the ground meet a raster of elevations on a round Earth and take their colour from satellite imagery
there, through shading, haze and sky. What belongs to one moment, the sun and the air, is one for a
whole set of panoramas. The geometry is exact, and a panorama depends on its place and moment alone.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from generation.errors import ConfigError
from generation.geo.location import EARTH_RADIUS_KM, Location, Region
from generation.geo.mercator import TILE_PX, world_px
from generation.geo.sphere import Band
from training.data import list_files, read_rows

LABEL = "rendered from terrain"
EYE_M = 1500.0
"""Height of every eye over the ground below it: nothing finer than half a kilometre is known."""
REACH_M = 160e3
"""How far a ray is followed."""
_NEAREST_M = 150.0
_STEPS = 240
_RADIUS_M = 1000 * EARTH_RADIUS_KM
_SEA = (11, 24, 51)
"""Colour where there is no tile: collections of land tiles leave the open sea out."""


@dataclass(frozen=True, slots=True)
class Elevation:
    """A raster of metres above the sea over a box in degrees, its first row in the north."""

    layers: Float[np.ndarray, "rows cols 3"]
    """Metres above the sea, and the rise per metre towards the east and towards the north."""
    bounds: Region

    @classmethod
    def of(cls, metres: Float[np.ndarray, "rows cols"], bounds: Region) -> "Elevation":
        """Add the slopes to heights; what lies below the sea is level."""
        metres = np.maximum(metres.astype(np.float32), 0.0)
        step = math.radians((bounds.north - bounds.south) / len(metres)) * _RADIUS_M
        south, east = np.gradient(metres, step)
        lat = bounds.north - (np.arange(len(metres)) + 0.5) / len(metres) * (
            bounds.north - bounds.south
        )
        shrunk = np.cos(np.radians(lat))[:, None]
        return cls(np.stack([metres, east / shrunk, -south], -1).astype(np.float32), bounds)

    @classmethod
    def open(cls, path: Path, bounds: Region, *, offset_m: float = 0.0) -> "Elevation":
        """Read a 16-bit PNG or TIFF whose values are metres plus an offset.

        Raises:
            ConfigError: It is no such raster.
        """
        from PIL import Image

        try:
            with Image.open(path, formats=("PNG", "TIFF")) as file:
                if file.mode not in ("I;16", "I", "F") or file.width * file.height > 4e8:
                    raise ConfigError(
                        f"{path} is a {file.width}x{file.height} raster of kind {file.mode} (give "
                        "16-bit metres)"
                    )
                values = np.asarray(file, np.float32)
        except ConfigError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"{path} is no readable raster: {error!s:.100}") from error
        return cls.of(values - offset_m, bounds)

    def at(
        self, lat: Float[np.ndarray, "*n"], lon: Float[np.ndarray, "*n"]
    ) -> Float[np.ndarray, "*n"]:
        """Give metres above the sea, bilinear; beyond the raster its edge goes on."""
        return _bilinear(self.layers[..., :1], *self._pixels(lat, lon))[..., 0]

    def slope(
        self, lat: Float[np.ndarray, "*n"], lon: Float[np.ndarray, "*n"]
    ) -> Float[np.ndarray, "*n 2"]:
        """Give the rise per metre towards the east and towards the north."""
        return _bilinear(self.layers[..., 1:], *self._pixels(lat, lon))

    def _pixels(
        self, lat: Float[np.ndarray, "*n"], lon: Float[np.ndarray, "*n"]
    ) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
        rows, cols, _ = self.layers.shape
        box = self.bounds
        row = (box.north - lat) / (box.north - box.south) * rows - 0.5
        return row, (lon - box.west) / (box.east - box.west) * cols - 0.5


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Satellite imagery of a part of the web-mercator map."""

    rgb: UInt8[np.ndarray, "rows cols 3"]
    covered: np.ndarray
    """Which tiles are there."""
    zoom: int
    col_px: int
    row_px: int

    @classmethod
    def of_tiles(cls, pattern: str, bounds: Region) -> "Mosaic":
        """Put the tiles that touch a box together; the sea's colour stands where there is none.

        Raises:
            ConfigError: No tile touches it, or they are of several zoom levels.
        """
        tiles = {}
        zooms = set()
        for tile in read_rows(list_files(pattern)):
            box, window = tile.window.bounds, tile.window
            if (
                box.west < bounds.east
                and box.east > bounds.west
                and box.south < bounds.north
                and box.north > bounds.south
            ):
                tiles[window.row_px // TILE_PX, window.col_px // TILE_PX] = tile.image
                zooms.add(window.zoom)
        if len(zooms) != 1:
            raise ConfigError(
                f"tiles of {len(zooms)} zoom levels lie in {bounds} (give tiles of one level)"
            )
        rows, cols = (sorted({key[axis] for key in tiles}) for axis in (0, 1))
        shape = rows[-1] - rows[0] + 1, cols[-1] - cols[0] + 1
        rgb = np.empty((shape[0] * TILE_PX, shape[1] * TILE_PX, 3), np.uint8)
        rgb[:] = _SEA
        covered = np.zeros(shape, bool)
        for (row, col), image in tiles.items():
            top, left = (row - rows[0]) * TILE_PX, (col - cols[0]) * TILE_PX
            rgb[top : top + TILE_PX, left : left + TILE_PX] = image
            covered[row - rows[0], col - cols[0]] = True
        return cls(rgb, covered, zooms.pop(), cols[0] * TILE_PX, rows[0] * TILE_PX)

    def pixels(
        self, lat: Float[np.ndarray, "*n"], lon: Float[np.ndarray, "*n"]
    ) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
        """Give rows and columns of points, in pixels from the upper left corner."""
        size = world_px(self.zoom)
        col = (lon + 180) / 360 * size - self.col_px
        row = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * size - self.row_px
        return row, col

    def _pixel(self, place: Location) -> tuple[float, float]:
        rows, cols = self.pixels(np.array([place.lat]), np.array([place.lon]))
        return float(rows[0]), float(cols[0])

    def at(
        self, lat: Float[np.ndarray, "*n"], lon: Float[np.ndarray, "*n"]
    ) -> Float[np.ndarray, "*n 3"]:
        """Give colours 0 to 1, bilinear."""
        row, col = self.pixels(lat, lon)
        return _bilinear(self.rgb, row - 0.5, col - 0.5) / 255

    def covers(self, place: Location, size: int) -> bool:
        """Tell whether every tile that a square of ``size`` pixels around a place touches is there.

        Open sea is filled with one colour, whose edge against real tiles would be seen.
        """
        row, col = self._pixel(place)
        top, left = (math.floor((part - size / 2) / TILE_PX) for part in (row, col))
        bottom, right = (math.floor((part + size / 2) / TILE_PX) for part in (row, col))
        rows, cols = self.covered.shape
        if top < 0 or left < 0 or bottom >= rows or right >= cols:
            return False
        return bool(self.covered[top : bottom + 1, left : right + 1].all())

    def crop(self, place: Location, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """Cut a square whose middle is exactly at a place, interpolated between the pixels."""
        row, col = self._pixel(place)
        steps = np.arange(size) + 0.5 - size / 2
        rows, cols = np.meshgrid(row + steps, col + steps, indexing="ij")
        return np.round(_bilinear(self.rgb, rows - 0.5, cols - 0.5)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Moment:
    """The sun and the air that the panoramas of a set share."""

    sun_azimuth_deg: float
    sun_elevation_deg: float
    haze_m: float
    """Distance at which a share of 1/e of the light gets through."""
    warmth: float
    """0: a blue noon sky, 1: an orange one."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Moment":
        """Draw a moment of some day."""
        elevation = float(rng.uniform(6, 62))
        low = max(0.0, 1 - elevation / 30)
        return cls(
            sun_azimuth_deg=float(rng.uniform(0, 360)),
            sun_elevation_deg=elevation,
            haze_m=float(np.exp(rng.uniform(np.log(20e3), np.log(100e3)))),
            warmth=float(np.clip(low + rng.normal(0, 0.12), 0, 1)),
        )

    def sun(self) -> Float[np.ndarray, "3"]:
        """Give the direction of the sun: east, north, up."""
        azimuth, elevation = np.radians([self.sun_azimuth_deg, self.sun_elevation_deg])
        level = np.cos(elevation)
        return np.array([level * np.sin(azimuth), level * np.cos(azimuth), np.sin(elevation)])

    def horizon(self) -> Float[np.ndarray, "3"]:
        """Give the colour of the air at the horizon, 0 to 1."""
        return _mix(np.array([0.76, 0.83, 0.90]), np.array([0.93, 0.74, 0.58]), self.warmth)

    def sky(
        self, azimuth_deg: Float[np.ndarray, "*n"], elevation_deg: Float[np.ndarray, "*n"]
    ) -> Float[np.ndarray, "*n 3"]:
        """Give the colour of the sky in a direction, 0 to 1."""
        zenith = _mix(np.array([0.20, 0.42, 0.78]), np.array([0.30, 0.38, 0.60]), self.warmth)
        climb = np.clip(elevation_deg / 60, 0, 1)[..., None] ** 0.6
        base = self.horizon() * (1 - climb) + zenith * climb
        azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
        level = np.cos(elevation)
        ray = np.stack([level * np.sin(azimuth), level * np.cos(azimuth), np.sin(elevation)], -1)
        towards = np.clip(ray @ self.sun(), -1, 1)
        apart = np.degrees(np.arccos(towards))[..., None]
        glow = 0.5 * np.exp(-apart / 22) + 0.9 * np.exp(-((apart / 4) ** 2))
        light = _mix(np.array([1.0, 0.98, 0.92]), np.array([1.0, 0.82, 0.55]), self.warmth)
        return base + (light - base) * np.clip(glow, 0, 1)


@dataclass(frozen=True, slots=True)
class RenderedPanorama:
    """A panorama whose middle looks north, with what is known of each pixel."""

    rgb: UInt8[np.ndarray, "rows cols 3"]
    depth_m: Float[np.ndarray, "rows cols"]
    """Along the ground; infinite in the sky."""
    altitude_m: float
    """Of the eye, above the sea."""


def render_panorama(
    elevation: Elevation,
    mosaic: Mosaic,
    place: Location,
    moment: Moment,
    band: Band,
    *,
    eye_m: float = EYE_M,
    finer: int = 2,
) -> RenderedPanorama:
    """Follow a ray for each pixel, on a grid ``finer`` times as fine, and average the colours.

    Args:
        elevation: The ground.
        mosaic: Its colours.
        place: Where the eye stands.
        moment: Sun and air.
        band: The grid of the panorama.
        eye_m: Height of the eye over the ground.
        finer: Rays along each side of a pixel.
    """
    fine = Band(band.height * finer, band.width * finer, band.top_deg, band.bottom_deg)
    azimuths, elevations = fine.azimuths_deg().double().numpy(), fine.elevations_deg().numpy()
    # Near steps are small and grow with the distance, as the footprint of a pixel does.
    distances = np.geomspace(_NEAREST_M, REACH_M, _STEPS)
    lat, lon = goes_to(place, azimuths[:, None], distances[None])
    altitude = float(elevation.at(np.array([place.lat]), np.array([place.lon]))[0]) + eye_m
    rise = elevation.at(lat, lon) - altitude - distances**2 / (2 * _RADIUS_M)
    slopes = rise / distances  # tangents of the angles under which the ground appears
    distance = _first_hit(slopes, distances, np.tan(np.radians(elevations.astype(np.float64))))
    colours = _colours(elevation, mosaic, place, moment, azimuths, elevations, distance)
    shape = band.height, finer, band.width, finer
    rgb = colours.reshape(*shape, 3).mean((1, 3))
    depth = distance.reshape(shape)[:, finer // 2, :, finer // 2]
    return RenderedPanorama(np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), depth, altitude)


def _first_hit(
    slopes: Float[np.ndarray, "cols steps"],
    distances: Float[np.ndarray, " steps"],
    rays: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, "rows cols"]:
    """Give the distance at which each ray first meets the ground; infinite where it does not."""
    highest = np.maximum.accumulate(slopes, axis=1)
    first = np.stack([np.searchsorted(column, rays) for column in highest], axis=1)
    steps = len(distances)
    at = np.clip(first, 1, steps - 1)
    cols = np.arange(len(slopes))[None]
    before, after = slopes[cols, at - 1], slopes[cols, at]
    share = np.clip((rays[:, None] - before) / np.maximum(after - before, 1e-9), 0, 1)
    hit = distances[at - 1] + share * (distances[at] - distances[at - 1])
    # Below the first step the ground is taken as level: the ray goes on to where it would meet it.
    steep = distances[0] * slopes[cols, 0] / np.minimum(rays[:, None], -1e-6)
    return np.where(first == 0, steep, np.where(first >= steps, np.inf, hit))


def _colours(
    elevation: Elevation,
    mosaic: Mosaic,
    place: Location,
    moment: Moment,
    azimuths: Float[np.ndarray, " cols"],
    elevations: Float[np.ndarray, " rows"],
    distance: Float[np.ndarray, "rows cols"],
) -> Float[np.ndarray, "rows cols 3"]:
    """Shade the ground, put the air before it, and the sky above."""
    azimuth = np.broadcast_to(azimuths[None], distance.shape)
    colours = moment.sky(azimuth, np.broadcast_to(elevations[:, None], distance.shape))
    ground = np.isfinite(distance)
    far = distance[ground]
    lat, lon = goes_to(place, azimuth[ground], far)
    slope = elevation.slope(lat, lon)
    upright = np.sqrt(1 + (slope**2).sum(-1))  # length of the normal (-east, -north, 1)
    towards = moment.sun()[2] - slope @ moment.sun()[:2]
    sun = np.clip(towards / upright, 0, 1)[:, None]
    light = _mix(np.array([1.0, 0.98, 0.95]), np.array([1.0, 0.80, 0.60]), moment.warmth)
    ambient = 0.45 * np.array([0.90, 0.96, 1.05])
    # The imagery is dark and its relief is baked in: brighten it, and add the sun of the moment.
    own = np.clip(mosaic.at(lat, lon), 0, 1) ** 0.75
    lit = own * (ambient + 0.95 * sun * light)
    through = np.exp(-far / moment.haze_m)[:, None]
    # Looking towards the sun the air is brighter.
    air = moment.sky(azimuth[ground], np.zeros(len(far)))
    colours[ground] = lit * through + air * (1 - through)
    return colours


def goes_to(
    place: Location, azimuth_deg: Float[np.ndarray, "*#n"], distance_m: Float[np.ndarray, "*#n"]
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """Go along great circles; see :func:`generation.geo.sphere.destination`."""
    lat, azimuth = np.radians(place.lat), np.radians(azimuth_deg)
    arc = distance_m / _RADIUS_M
    cosine, east = np.cos(arc), np.sin(arc) * np.cos(lat)
    sine = np.sin(lat) * cosine + east * np.cos(azimuth)
    turn = np.arctan2(np.sin(azimuth) * east, cosine - np.sin(lat) * sine)
    return np.degrees(np.arcsin(sine)), place.lon + np.degrees(turn)


def _bilinear(
    image: np.ndarray, row: Float[np.ndarray, "*n"], col: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n channels"]:
    rows, cols = image.shape[:2]
    row, col = np.clip(row, 0, rows - 1.001), np.clip(col, 0, cols - 1.001)
    top, left = row.astype(np.int64), col.astype(np.int64)
    down, right = (row - top)[..., None], (col - left)[..., None]
    flat, at = image.reshape(rows * cols, -1), top * cols + left
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    lower = flat[at + cols] * (1 - right) + flat[at + cols + 1] * right
    return upper * (1 - down) + lower * down


def _mix(
    a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"], share: float
) -> Float[np.ndarray, "3"]:
    return a * (1 - share) + b * share
