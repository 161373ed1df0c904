"""Satellite imagery out of files: any georeferenced raster, seen on the web-mercator grid.

A file is read window by window and warped on the way, so its size and its projection do not
matter. Nothing is fetched: a virtual raster may name only TIFF files that lie on this machine.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from generation.errors import InvalidSpecError, MissingFileError
from generation.geo.mercator import HALF_WORLD_M, Window, world_px

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MAX_FILES = 1000
_MAX_CREDIT = 500
_MAX_VRT_BYTES = 16 << 20
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SOURCE = re.compile(
    rb"<Source(?:Filename|Dataset)\b([^>]*)>\s*([^<]*?)\s*</Source(?:Filename|Dataset)\b",
    re.IGNORECASE,
)
_SOURCE_NAME = re.compile(rb"\bSource(?:Filename|Dataset)\b", re.IGNORECASE)
_WITHIN_VRT = re.compile(rb"relativeToVRT\s*=\s*[\"']\s*1", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What imagery shows of a window."""

    rgb: UInt8[np.ndarray, "height width 3"]
    """Values 0 to 255; black where nothing is seen."""
    seen: Bool[np.ndarray, "height width"]
    """Whether there is imagery."""

    @classmethod
    def blank(cls, window: Window) -> "Patch":
        """Give the patch of a window that nothing is seen of."""
        shape = window.height_px, window.width_px
        return cls(np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool))


@runtime_checkable
class Imagery(Protocol):
    """Anything that shows the ground."""

    @property
    def label(self) -> str:
        """What it is, for people."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from other imagery; the same only if every pixel is."""
        ...

    @property
    def attribution(self) -> str:
        """Whom it credits."""
        ...

    @property
    def synthetic(self) -> bool:
        """Whether it was generated and not taken."""
        ...

    @property
    def extent(self) -> str:
        """Where it lies, for people."""
        ...

    def reaches(self, window: Window) -> bool:
        """Whether any of a window may be shown; tells without reading a pixel."""
        ...

    def read(self, window: Window) -> Patch:
        """Show a window, over the antimeridian, too."""
        ...


class FileImagery:
    """Imagery of georeferenced files: GeoTIFF, COG or virtual rasters (VRT) of such.

    Of several files the first that has a pixel gives it. A file that is finer than the window is
    averaged, a coarser one interpolated.

    Args:
        paths: Rasters with three bands (red, green, blue) of 8 bits, a fourth being their alpha.

    Raises:
        MissingFileError: A file is not there.
        InvalidSpecError: One is no such raster or has no place on Earth.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not 1 <= len(paths) <= MAX_FILES:
            raise InvalidSpecError(
                f"{len(paths)} files of imagery (1 to {MAX_FILES} are read; join them in one .vrt)"
            )
        self.paths = tuple(Path(path) for path in paths)
        stamps, owners, extents, synthetic = [], [], [], False
        for path in self.paths:
            stamps += [_stamp(file) for file in (path, *_sources(path))]
            with _opened(path) as dataset:
                _check(path, dataset)
                tags = dataset.tags()
                extents.append(_extent(dataset))
            owners.append(tags.get("ATTRIBUTION") or tags.get("TIFFTAG_COPYRIGHT") or "")
            synthetic |= tags.get("SYNTHETIC", "").lower() == "true"
        self.identity = hashlib.sha256("\n".join(stamps).encode()).hexdigest()
        self.label = ", ".join(path.name for path in self.paths[:3]) + (
            f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        )
        self.attribution = "; ".join(
            dict.fromkeys(" ".join(credit.split())[:_MAX_CREDIT] for credit in owners if credit)
        )
        self.extent = "; ".join(extents[:3])
        self.synthetic = synthetic

    def reaches(self, window: Window) -> bool:
        """Whether any file may reach into a window."""
        for path in self.paths:
            with _opened(path) as dataset:
                if any(_touches(dataset, part) for part, _ in _turned(window)):
                    return True
        return False

    def read(self, window: Window) -> Patch:
        """Show a window.

        Raises:
            InvalidSpecError: A file is damaged there.
        """
        patch = Patch.blank(window)
        for path in self.paths:
            if patch.seen.all():
                break
            with _opened(path) as dataset:
                for part, columns in _turned(window):
                    here = Patch(patch.rgb[:, columns], patch.seen[:, columns])
                    _fill(dataset, path, part, here)
        return patch


def cut_square(
    rgb: UInt8[np.ndarray, "height width 3"], x_px: float, y_px: float, side_px: int
) -> UInt8[np.ndarray, "side side 3"]:
    """Cut a square around any point of an image, between its pixels if need be (bilinear).

    Args:
        rgb: Values 0 to 255.
        x_px: The point, in pixels right of the image's left edge.
        y_px: In pixels below its upper edge.
        side_px: Side of the square.

    Raises:
        InvalidSpecError: The image does not reach as far.
    """
    steps = np.arange(side_px) - (side_px - 1) / 2
    cols, rows = x_px - 0.5 + steps, y_px - 0.5 + steps
    height, width = rgb.shape[:2]
    if min(cols[0], rows[0]) < 0 or cols[-1] > width - 1 or rows[-1] > height - 1:
        raise InvalidSpecError(
            f"an image of {width}x{height} px does not hold {side_px}x{side_px} px around "
            f"({x_px:.1f}, {y_px:.1f}) (give a larger one)"
        )
    left, top = np.floor(cols).astype(int), np.floor(rows).astype(int)
    across, down = (cols - left)[:, None], (rows - top)[:, None, None]
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    signal = rgb.astype(np.float64)
    upper = signal[top][:, left] * (1 - across) + signal[top][:, right] * across
    lower = signal[below][:, left] * (1 - across) + signal[below][:, right] * across
    return np.round(upper * (1 - down) + lower * down).astype(np.uint8)


def _on_the_map(window: Window) -> Iterator[tuple[Window, slice]]:
    """Cut a window where the map ends; give its parts on the map and their columns in it."""
    size, at = world_px(window.zoom), window.col_px
    end = window.col_px + window.width_px
    while at < end:
        until = min(end, (at // size + 1) * size)
        part = replace(window, col_px=at % size, width_px=until - at)
        yield part, slice(at - window.col_px, until - window.col_px)
        at = until


def _turned(window: Window) -> Iterator[tuple[Window, slice]]:
    """Give the parts of a window on the map, each also one turn further on.

    A file across the antimeridian runs on beyond the map.
    """
    for part, columns in _on_the_map(window):
        for turn in (0, 1):
            yield replace(part, col_px=part.col_px + turn * world_px(part.zoom)), columns


def _fill(dataset: "DatasetReader", path: Path, window: Window, patch: Patch) -> None:
    """Put what a file shows where nothing is seen yet."""
    from rasterio.enums import ColorInterp, Resampling
    from rasterio.errors import RasterioError
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT

    if patch.seen.all() or not _touches(dataset, window):
        return
    finer = _native_step_m(dataset) < 2 * HALF_WORLD_M / world_px(window.zoom) / 1.5
    alpha = ColorInterp.alpha in dataset.colorinterp
    try:
        with WarpedVRT(
            dataset,
            crs="EPSG:3857",
            transform=Affine(*window.transform),
            width=window.width_px,
            height=window.height_px,
            resampling=Resampling.average if finer else Resampling.bilinear,
            **({} if alpha else {"add_alpha": True}),
        ) as warped:
            rgb, seen = warped.read((1, 2, 3)), warped.dataset_mask() > 0
    except RasterioError as error:
        raise InvalidSpecError(
            f"imagery {path.name} cannot be read here ({f'{error}'[:100]}; it is cut off or "
            "damaged: copy it again)"
        ) from None
    new = seen & ~patch.seen
    patch.rgb[new] = np.moveaxis(rgb, 0, -1)[new]
    patch.seen[new] = True


def _touches(dataset: "DatasetReader", window: Window) -> bool:
    """Whether a file may reach into a window; warping from afar costs time, or fails."""
    if dataset.crs.to_epsg() == 3857:
        west, south, east, north = window.bounds_3857
        here = dataset.bounds
        return bool(
            here.left < east and here.right > west and here.bottom < north and here.top > south
        )
    if window.col_px >= world_px(window.zoom):
        return False  # degrees know no second turn
    west, south, east, north = _bounds_deg(dataset)
    region = window.bounds
    width, wanted = _width_deg(west, east), _width_deg(region.west, region.east)
    apart = (region.west - west) % 360 >= width and (west - region.west) % 360 >= wanted
    return south < region.north and north > region.south and not apart


def _bounds_deg(dataset: "DatasetReader") -> tuple[float, float, float, float]:
    """Give west, south, east, north of a file in degrees."""
    from rasterio.warp import transform_bounds

    west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    return west, south, east, north


def _native_step_m(dataset: "DatasetReader") -> float:
    """Give the size of a file's pixels in web-mercator metres."""
    if dataset.crs.to_epsg() == 3857:
        return float(abs(dataset.transform.a))
    west, _, east, _ = _bounds_deg(dataset)
    return _width_deg(west, east) / 180 * HALF_WORLD_M / dataset.width


def _width_deg(west: float, east: float) -> float:
    return (east - west) % 360 or 360.0


def _extent(dataset: "DatasetReader") -> str:
    west, south, east, north = _bounds_deg(dataset)
    return f"lat {south:.2f} to {north:.2f}, lon {west:.2f} to {east:.2f}"


def _check(path: Path, dataset: "DatasetReader") -> None:
    kinds = set(dataset.dtypes[:3])
    if dataset.count not in (3, 4) or kinds != {"uint8"}:
        raise InvalidSpecError(
            f"imagery {path.name} has {dataset.count} bands of {', '.join(sorted(kinds))} (three "
            "of uint8 are needed, red, green and blue, or four with alpha; convert it)"
        )
    if dataset.crs is None or dataset.transform.is_identity:
        raise InvalidSpecError(
            f"imagery {path.name} does not say where on Earth it lies (give a file with a "
            "coordinate system, such as a GeoTIFF)"
        )


@contextmanager
def _opened(path: Path) -> "Iterator[DatasetReader]":
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused by _check
            dataset = rasterio.open(path, driver="GTiff" if _is_tiff(path) else "VRT")
    except RasterioError as error:
        raise InvalidSpecError(
            f"imagery {path.name} is no readable raster ({f'{error}'[:100]}; give a GeoTIFF, a COG "
            "or a .vrt of such)"
        ) from None
    with dataset:
        yield dataset


def _stamp(path: Path) -> str:
    """Give what changes when a file does."""
    about = path.stat()
    return f"{path.resolve()} {about.st_size} {about.st_mtime_ns}"


def _sources(path: Path) -> list[Path]:
    """Give the files that a virtual raster is made of, all of them TIFFs on this machine.

    Raises:
        MissingFileError: The raster, or a file that it names, is not there.
        InvalidSpecError: It is too large, or names what is no TIFF file.
    """
    if not path.is_file():
        raise MissingFileError(
            f"imagery {str(path)!r} is not there (give the path of a GeoTIFF, or generated; check "
            "the name)"
        )
    if _is_tiff(path):
        return []
    with path.open("rb") as file:
        text = file.read(_MAX_VRT_BYTES + 1)
    if len(text) > _MAX_VRT_BYTES:
        raise InvalidSpecError(
            f"imagery {path.name} is no TIFF, and too large for a .vrt (give a GeoTIFF)"
        )
    found = _SOURCE.findall(text)
    if len(_SOURCE_NAME.findall(text)) != 2 * len(found):  # an opening and a closing tag for each
        raise InvalidSpecError(
            f"imagery {path.name} names its sources in another way than gdalbuildvrt (build it "
            "with that, of TIFF files)"
        )
    sources = []
    for attributes, name in found:
        folder = path.parent if _WITHIN_VRT.search(attributes) else Path()
        sources.append(_tiff(folder / unescape(name.decode("utf-8", "replace")), path))
    return list(dict.fromkeys(sources))


def _tiff(source: Path, vrt: Path) -> Path:
    if not source.is_file():
        raise MissingFileError(
            f"imagery {vrt.name} is made of {str(source)!r}, which is no file here (download it, "
            "and build the .vrt of local TIFF files)"
        )
    if not _is_tiff(source):
        raise InvalidSpecError(
            f"imagery {vrt.name} is made of {source.name}, which is no TIFF (build the .vrt of "
            "TIFF files)"
        )
    return source


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _TIFF_MAGICS
