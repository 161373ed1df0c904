"""GeoTIFF: images that know where on Earth they lie."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.geo.mercator import Window

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MAX_PIXELS = 50_000_000
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BLOCK_PX = 256
_COG_BLOCK_PX = 128
_DEFLATE_LEVEL = 6


def geotiff_bytes(
    rgb: UInt8[np.ndarray, "height width 3"],
    window: Window,
    tags: Mapping[str, str],
    seen: UInt8[np.ndarray, "height width"] | None = None,
) -> bytes:
    """Encode an image as GeoTIFF in EPSG:3857; equal input gives equal bytes.

    Args:
        rgb: Values 0 to 255, one pixel for each of the window.
        window: Where it lies.
        tags: Texts for the TIFF's metadata.
        seen: 255 where there is an image and 0 where there is none; kept as the file's mask.
    """
    from rasterio.env import Env
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine

    height, width = rgb.shape[:2]
    tiled = {"tiled": True, "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX}
    with Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as file:
        with file.open(
            driver="GTiff",
            width=width,
            height=height,
            count=3,
            dtype="uint8",
            crs="EPSG:3857",
            transform=Affine(*window.transform),
            photometric="RGB",
            interleave="pixel",
            compress="deflate",
            zlevel=_DEFLATE_LEVEL,
            predictor=2,
            **(tiled if min(height, width) >= _BLOCK_PX else {}),
        ) as dataset:
            dataset.write(np.moveaxis(rgb, -1, 0))  # (3, height, width)
            dataset.update_tags(**tags)
            if seen is not None:
                dataset.write_mask(seen)
        return bytes(file.read())


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """One measured quantity of a raster."""

    name: str
    unit: str
    values: Float32[np.ndarray, "height width"]
    """NaN where there is none."""


def cog_bytes(
    bands: Sequence[Band],
    transform: tuple[float, float, float, float, float, float],
    tags: Mapping[str, str],
    crs: str = "EPSG:3857",
) -> bytes:
    """Encode measurements as a cloud-optimized GeoTIFF, with overviews.

    Equal input gives equal bytes.

    Args:
        bands: At least one; all of one size.
        transform: Affine map (a, b, c, d, e, f) from pixel (x, y) to coordinates of ``crs``.
        tags: Texts for the TIFF's metadata.
        crs: Of the transform; metres of web mercator by default.
    """
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine

    height, width = bands[0].values.shape
    with MemoryFile() as file:
        with file.open(
            driver="COG",
            width=width,
            height=height,
            count=len(bands),
            dtype="float32",
            nodata=float("nan"),
            crs=crs,
            transform=Affine(*transform),
            compress="deflate",
            level=_DEFLATE_LEVEL,
            predictor=3,  # for floating-point numbers
            blocksize=_COG_BLOCK_PX,
            overview_resampling="average",
        ) as dataset:
            dataset.write(np.stack([band.values for band in bands]))
            dataset.descriptions = [band.name for band in bands]
            dataset.units = [band.unit for band in bands]
            dataset.update_tags(**tags)
        return bytes(file.read())


def geotiff_tags(data: bytes) -> dict[str, str]:
    """Give the texts of a GeoTIFF.

    Raises:
        InvalidSpecError: It is no readable TIFF.
    """
    with _opened(data) as dataset:
        return dict(dataset.tags())


def geotiff_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a GeoTIFF of three 8-bit bands; values 0 to 255.

    Raises:
        InvalidSpecError: It is no readable TIFF, has other bands, or is too large.
    """
    with _opened(data) as dataset:
        if dataset.count != 3 or set(dataset.dtypes) != {"uint8"}:
            raise InvalidSpecError(
                f"the GeoTIFF has {dataset.count} bands of {', '.join(set(dataset.dtypes))} "
                "(give one with three of uint8)"
            )
        if dataset.width * dataset.height > max_pixels:
            raise InvalidSpecError(
                f"the GeoTIFF has {dataset.width}x{dataset.height} pixels, {max_pixels} are "
                "allowed (give a smaller one)"
            )
        return np.ascontiguousarray(np.moveaxis(dataset.read(), 0, -1))  # (height, width, 3)


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image that knows where on Earth it lies."""

    rgb: UInt8[np.ndarray, "height width 3"]
    center: Location
    gsd_m: float
    """Metres on the ground that a pixel covers, in the middle."""


def geotiff_image(data: bytes) -> PlacedImage:
    """Decode a GeoTIFF of three 8-bit bands with its place, in whatever projection it is.

    Raises:
        InvalidSpecError: It is no such TIFF, or lies nowhere.
    """
    rgb = geotiff_rgb(data)
    with _opened(data) as dataset:
        crs, transform = dataset.crs, dataset.transform
    if crs is None:
        raise InvalidSpecError(
            "the TIFF does not say where it lies (give a GeoTIFF with a coordinate system)"
        )
    from pyproj import Geod, Transformer

    col, row = rgb.shape[1] / 2, rgb.shape[0] / 2
    a, b, c, d, e, f = tuple(transform)[:6]
    ends = [(a * x + b * row + c, d * x + e * row + f) for x in (col, col + 1)]
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    (lon, lat), (next_lon, next_lat) = (to_degrees.transform(*end) for end in ends)
    if not (abs(lat) <= 90 and abs(next_lat) <= 90):  # which infinity and NaN are not
        raise InvalidSpecError("the TIFF lies outside the Earth (check its coordinate system)")
    metres = Geod(ellps="sphere").inv(lon, lat, next_lon, next_lat)[2]
    return PlacedImage(rgb, Location(lat, (lon + 180) % 360 - 180), float(metres))


@contextmanager
def _opened(data: bytes) -> "Iterator[DatasetReader]":
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    if not data.startswith(TIFF_MAGICS):
        raise InvalidSpecError("the file is no TIFF (give one that terrascape wrote)")
    try:
        with warnings.catch_warnings(), MemoryFile(data) as file:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with file.open(driver="GTiff") as dataset:
                yield dataset
    except RasterioError as error:
        raise InvalidSpecError(
            f"the TIFF is cut off or damaged ({f'{error}'[:100]}; copy it again, or render it anew)"
        ) from None
