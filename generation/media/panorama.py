"""Panoramas as files: opened with distrust, brought to a grid, written so that viewers turn.

A file shows all azimuths. Which elevations it shows is told by its GPano tags; without them it is
the whole sphere, twice as wide as high.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError, shown
from generation.geo.layout import Layout
from generation.geo.location import Location
from generation.media.gpano import Coverage, jpeg_bytes, jpeg_texts, read_gpano, read_place
from generation.media.image import decode_photo, read_bytes
from generation.spec import RunSpec, ViewSpec

if TYPE_CHECKING:  # it needs torch, which reading a record must not
    import generation.geo.sphere

MAX_SIZE = (16_384, 8_192)
"""Width and height of the largest panorama that is opened."""
MIN_HEIGHT = 32
"""Rows below which there is nothing to be seen."""
GAP_DEG = 1.0
"""Elevations that may lack at an edge; the outermost row stands in for them."""
_ASPECT_TOLERANCE = 0.05
_LANCZOS_SUPPORT = 3
"""Source pixels to each side that a pixel is made of, at full size."""


@dataclass(frozen=True, slots=True, eq=False)
class PanoramaFile:
    """A panorama as its file tells it."""

    pixels: UInt8[np.ndarray, "height width 3"]
    band: "generation.geo.sphere.Band"
    """What its rows and columns mean."""
    heading_deg: float | None
    """Where its middle looks, if the file tells."""
    place: Location | None
    """Where it was taken, if the file tells."""
    notes: tuple[str, ...]
    """What was changed in opening it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PanoramaRender:
    """A finished panorama and all that is needed to make it again."""

    image: UInt8[np.ndarray, "height width 3"]
    """Its middle looks at the spec's heading."""
    spec: RunSpec
    band: "generation.geo.sphere.Band"
    """What its rows and columns mean."""
    place: Location
    crops: dict[str, UInt8[np.ndarray, "side side 3"]]
    """Perspective views, by where they look from the heading: front, right, back and left."""
    overlay: UInt8[np.ndarray, "rows cols 3"]
    """Which view and which part of the satellite image was used where."""
    satellite: UInt8[np.ndarray, "height2 width2 3"] | None
    """The satellite image that it knew, if any."""
    layout: Layout | None
    """What a generated satellite image follows, if any."""
    provenance: dict[str, object]


def open_panorama(path: Path) -> PanoramaFile:
    """Open a panorama, equirectangular and all around.

    Args:
        path: A PNG, JPEG, WebP or TIFF file, up to ``MAX_SIZE``.

    Returns:
        Its pixels, upright and 8-bit, and what they mean.

    Raises:
        MissingFileError: There is no such file.
        InvalidSpecError: It is no such image, damaged, too large or too small, not equirectangular,
            or not all around.
    """
    from generation.geo.sphere import Band

    name = str(path)
    photo = decode_photo(read_bytes(path), name, math.prod(MAX_SIZE), max(MAX_SIZE))
    height, width = photo.rgb.shape[:2]
    seen = read_gpano(photo.xmp, name)
    _check_shape(name, width, height, seen)
    pixels, notes = photo.rgb, list(photo.notes)
    if width % 2:
        pixels = _resized(pixels, (width - 1, height), (0.0, 0.0, float(width), float(height)))
        notes.append(f"it was made one pixel narrower: {width - 1}, for an even width")
    band = Band(height, pixels.shape[1], seen.top_deg, seen.bottom_deg)
    return PanoramaFile(pixels, band, seen.heading_deg, read_place(photo.gps), tuple(notes))


def to_band(
    panorama: PanoramaFile, band: "generation.geo.sphere.Band", heading_deg: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Bring a panorama to a grid whose middle looks north, without a seam.

    Args:
        panorama: What was opened.
        band: The grid; what it lacks of its elevations must be less than ``GAP_DEG``.
        heading_deg: Where the middle of the panorama looks.

    Returns:
        Pixels that are averages of those they cover (a Lanczos filter as wide as a pixel).

    Raises:
        InvalidSpecError: The panorama does not show all elevations of the grid.
    """
    seen, pixels = panorama.band, panorama.pixels
    _check_elevations(seen, band)
    shift = -heading_deg / seen.step_deg  # columns from its left edge to where south is
    whole = math.floor(shift)
    scale_x, scale_y = seen.width / band.width, band.row_deg / seen.row_deg
    beside = _LANCZOS_SUPPORT * math.ceil(max(scale_x, 1)) + 1
    turned = np.take(
        pixels, np.arange(whole - beside, whole + seen.width + 1 + beside), 1, mode="wrap"
    )
    left = beside + shift - whole
    top = (seen.top_deg - band.top_deg) / seen.row_deg
    above = math.ceil(max(-top, 0))
    bottom = top + scale_y * band.height
    below = math.ceil(max(bottom - seen.height, 0))
    if above or below:
        turned = np.pad(turned, ((above, below), (0, 0), (0, 0)), mode="edge")
    box = (left, top + above, left + seen.width, min(bottom + above, float(turned.shape[0])))
    return _resized(turned, (band.width, band.height), box)


def panorama_jpeg(
    rgb: UInt8[np.ndarray, "height width 3"],
    band: "generation.geo.sphere.Band",
    *,
    heading_deg: float,
    place: Location | None,
    texts: Mapping[str, str] | None = None,
    quality: int = 95,
) -> bytes:
    """Encode a synthetic panorama as a JPEG that viewers recognise and turn.

    Args:
        rgb: Pixels on the grid of ``band``.
        band: What they mean; its pixels must be such that a whole number covers the sphere.
        heading_deg: Where the middle looks.
        place: Where it stands, for the EXIF.
        texts: Stored whole, however long, for :func:`panorama_texts`.
        quality: 1 to 100.

    Returns:
        The file; equal input gives equal bytes.

    Raises:
        InvalidSpecError: The grid and the pixels, or the grid and the sphere, do not fit.
    """
    if rgb.shape[:2] != (band.height, band.width):
        raise InvalidSpecError(
            f"a panorama of {rgb.shape[1]}x{rgb.shape[0]} px on a grid of "
            f"{band.width}x{band.height} (give pixels that fit)"
        )
    rows, top = 180 / band.row_deg, (90 - band.top_deg) / band.row_deg
    if max(abs(rows - round(rows)), abs(top - round(top))) > 1e-6:
        raise InvalidSpecError(
            f"rows of {band.row_deg:g} degrees below {band.top_deg:g} do not divide the sphere "
            "(give a grid whose rows do, from pole to pole)"
        )
    properties = {
        "ProjectionType": "equirectangular",
        "UsePanoramaViewer": "True",
        "FullPanoWidthPixels": str(band.width),
        "FullPanoHeightPixels": str(round(rows)),
        "CroppedAreaImageWidthPixels": str(band.width),
        "CroppedAreaImageHeightPixels": str(band.height),
        "CroppedAreaLeftPixels": "0",
        "CroppedAreaTopPixels": str(round(top)),
        "PoseHeadingDegrees": repr(float(heading_deg)),
    }
    return jpeg_bytes(rgb, properties=properties, place=place, texts=texts, quality=quality)


def panorama_texts(data: bytes) -> dict[str, str]:
    """Give the texts that :func:`panorama_jpeg` stored; empty where there are none.

    Raises:
        InvalidSpecError: It is no JPEG, cut off, or the texts are damaged.
    """
    return jpeg_texts(data)


def placed_view(view: ViewSpec, panorama: PanoramaFile | None = None) -> ViewSpec:
    """Give a view with its place and heading, taken from its file where they are not told.

    Args:
        view: What was given.
        panorama: Its file, where that is open already.

    Raises:
        InvalidSpecError: Neither the view nor its file tells them.
    """
    if view.place is not None:
        return view
    panorama = panorama or open_panorama(Path(view.file))
    place, heading = panorama.place, panorama.heading_deg
    if place is None or heading is None:
        lacks = {"where it was taken (EXIF GPS)": place, "where its middle looks (GPano)": heading}
        raise InvalidSpecError(
            f"view {shown(view.file, None)} does not tell "
            f"{' and '.join(what for what, value in lacks.items() if value is None)} (give "
            "FILE@LAT,LON,HEADING)"
        )
    return dataclasses.replace(view, lat=place.lat, lon=place.lon, heading=heading)


def _check_shape(name: str, width: int, height: int, seen: Coverage) -> None:
    if height < MIN_HEIGHT or height > MAX_SIZE[1]:
        raise InvalidSpecError(
            f"{name} is {height} px high, {MIN_HEIGHT} to {MAX_SIZE[1]} are allowed (give a "
            f"{'larger' if height < MIN_HEIGHT else 'smaller'} one)"
        )
    if abs(width / height / seen.aspect - 1) > _ASPECT_TOLERANCE:
        raise InvalidSpecError(
            f"{name} has {width}x{height} px, {width / height:.2f} times as wide as high: that is "
            f"not equirectangular, where it is {seen.aspect:.2f} (give the whole sphere at 2:1, "
            "or a crop all around with GPano tags that tell which)"
        )


def _check_elevations(
    seen: "generation.geo.sphere.Band", band: "generation.geo.sphere.Band"
) -> None:
    """Refuse what does not show enough.

    Raises:
        InvalidSpecError: More than ``GAP_DEG`` is missing.
    """
    missing = []
    if band.top_deg - seen.top_deg > GAP_DEG:
        missing.append(f"{band.top_deg:+g} to {seen.top_deg:+.1f}")
    if seen.bottom_deg - band.bottom_deg > GAP_DEG:
        missing.append(f"{seen.bottom_deg:+.1f} to {band.bottom_deg:+g}")
    if missing:
        raise InvalidSpecError(
            f"the panorama shows elevations from {seen.top_deg:+.1f} to {seen.bottom_deg:+.1f} "
            f"degrees, so {' and '.join(missing)} are missing (give one that shows "
            f"{band.top_deg:+g} to {band.bottom_deg:+g})"
        )


def _resized(
    pixels: UInt8[np.ndarray, "rows cols 3"],
    size: tuple[int, int],
    box: tuple[float, float, float, float],
) -> UInt8[np.ndarray, "height width 3"]:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=box))
