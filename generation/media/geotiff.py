"""GeoTIFF: images that know where on Earth they lie."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError
from generation.geo.mercator import Window

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MAX_PIXELS = 50_000_000
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BLOCK_PX = 256
_DEFLATE_LEVEL = 6


def geotiff_bytes(
    rgb: UInt8[np.ndarray, "height width 3"], window: Window, tags: Mapping[str, str]
) -> bytes:
    """Encode an image as GeoTIFF in EPSG:3857; equal input gives equal bytes.

    Args:
        rgb: Values 0 to 255, one pixel for each of the window.
        window: Where it lies.
        tags: Texts for the TIFF's metadata.
    """
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine

    height, width = rgb.shape[:2]
    tiled = {"tiled": True, "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX}
    with MemoryFile() as file:
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
