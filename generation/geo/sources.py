"""Where layouts come from: one interface over a map file, a map server and the embedded layers.

open_source("auto")                 the layers that ship with the project, anywhere, offline
open_source("auto", online=True)    streets from an Overpass server where they can be seen
open_source("none")                 no layout
open_source("town.osm.pbf")         a file: .osm .osm.pbf .geojson .json .parquet .gpkg .png
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from generation.errors import LayoutError, MissingFileError
from generation.geo.layout import Layout
from generation.geo.mercator import Window

if TYPE_CHECKING:
    from generation.geo.shapes import ShapeSet

ENDINGS = ".osm .osm.pbf .geojson .json .parquet .gpkg .png"
MAX_FILE_BYTES = 256 << 20

_MAX_CREDIT = 500


@runtime_checkable
class LayoutSource(Protocol):
    """Anything that can draw the layout of a window."""

    def layout(self, window: Window) -> Layout:
        """Draw the layout of a window.

        Raises:
            LayoutError: There is nothing to draw, or it is no map.
            NetworkError: A server was asked and did not answer.
        """
        ...


@dataclass
class FileSource:
    """Layouts from a map file; read once, drawn for any number of windows.

    Vector files are drawn over the embedded world layers (``base="embedded"``), since a street map
    seldom covers its ground without gaps; ``base="land"`` puts plain land there instead. A PNG is a
    finished map and must have the size of the window.
    """

    path: Path
    base: str = "embedded"
    repair: bool | None = None
    """Whether areas that cross themselves are repaired, with a note, or refused. By default files
    of data (OSM, GeoParquet, GeoPackage) are repaired and drawings (GeoJSON) refused."""

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        name = self.path.name
        if self.base not in ("embedded", "land"):
            raise LayoutError(
                f"base={self.base!r} is unknown (embedded or land; choose one of these)"
            )
        if not self.path.exists():
            raise MissingFileError(
                f"layout file {str(self.path)!r} is not there (give auto, none or the path of a "
                f"{ENDINGS} file; check the name)"
            )
        if not self.path.is_file():
            raise LayoutError(
                f"layout {str(self.path)!r} is a folder (a {ENDINGS} file is needed; name one)"
            )
        if self._ending not in [*ENDINGS.split(), ".pbf", ".geoparquet"]:
            raise LayoutError(
                f"layout file {name!r} has an unknown ending ({ENDINGS} are read; convert it)"
            )
        self._check_size()

    @property
    def _ending(self) -> str:
        return self.path.suffix.lower()

    def _check_size(self) -> None:
        size = self.path.stat().st_size
        if size == 0:
            raise LayoutError(
                f"layout file {self.path.name!r} is empty (0 bytes; a map is needed; export it "
                "again)"
            )
        if size > MAX_FILE_BYTES:
            raise LayoutError(
                f"layout file {self.path.name!r} has {size >> 20} MiB (at most "
                f"{MAX_FILE_BYTES >> 20} MiB; cut it to the place)"
            )

    @cached_property
    def _shapes(self) -> "ShapeSet":
        from generation.geo.files import READERS

        read, repair = READERS[self._ending]
        try:
            return read(self.path, repair=repair if self.repair is None else self.repair)
        except PermissionError as error:
            raise LayoutError(
                f"layout file {self.path.name!r} may not be read (it needs read permission; change "
                "its mode)"
            ) from error

    def layout(self, window: Window) -> Layout:
        """Draw the file's shapes for a window.

        Raises:
            LayoutError: The file is no map, or nothing of it lies in the window.
        """
        if self._ending == ".png":
            return read_png(self.path, window)
        shapes = self._shapes
        if not shapes.covers(window):
            west, south, east, north = shapes.bounds
            here = window.center
            raise LayoutError(
                f"{self.path.name}: nothing of it lies in the window around lat={here.lat:.4f}, "
                f"lon={here.lon:.4f} (it covers lat {south:.4f} to {north:.4f}, lon {west:.4f} to "
                f"{east:.4f}; choose a place in there or --layout auto)"
            )
        return shapes.draw(window, base=self.base)


def read_png(path: Path, window: Window) -> Layout:
    """Read a drawn map in the layout's palette, one pixel of it for each of the window.

    Whom the file itself credits (``Copyright``, as in the layouts saved beside results) is credited
    still.

    Raises:
        LayoutError: It is damaged, transparent, of another size or no map.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.size != (window.width_px, window.height_px):
                raise LayoutError(
                    f"{path.name}: {image.width}x{image.height} px (a drawn layout needs exactly "
                    f"the size of the image, {window.width_px}x{window.height_px} px; draw it anew "
                    "rather than scale it)"
                )
            pixels = np.asarray(image.convert("RGBA"))
            credit = str(image.info.get("Copyright", ""))[:_MAX_CREDIT]
    except LayoutError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LayoutError(
            f"{path.name}: not readable as PNG: {f'{error}'[:100]} (the file is damaged or of "
            "another kind; save it again as PNG)"
        ) from error
    if (pixels[..., 3] != 255).any():
        raise LayoutError(
            f"{path.name}: some pixels are transparent (every pixel needs a colour of the palette; "
            "fill the gaps and save without transparency)"
        )
    layout = Layout.from_rgb(np.ascontiguousarray(pixels[..., :3]), window, path.name)
    return replace(layout, attribution=" ".join(credit.split()))


class OnlineSource:
    """Streets from a map server where they are wide enough to be seen, else the world layers."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir

    def layout(self, window: Window) -> Layout:
        """Draw a window; the network is asked from zoom 13 on.

        Raises:
            NetworkError: The server was asked and did not answer.
        """
        from generation.geo.overpass import MIN_ZOOM, OverpassSource

        if window.zoom >= MIN_ZOOM:
            return OverpassSource(self.cache_dir).layout(window)
        from generation.geo.layers import EmbeddedSource

        return EmbeddedSource().layout(window)


def open_source(choice: str, *, online: bool = False) -> LayoutSource | None:
    """Give the source that a person named.

    Args:
        choice: ``auto``, ``none`` or the path of a map file.
        online: Whether the network may be used.

    Returns:
        The source; ``None`` for ``none``.

    Raises:
        MissingFileError: There is no such file.
        LayoutError: The file is empty or of no known kind.
    """
    if choice == "none":
        return None
    if choice == "auto":
        from generation.geo.layers import EmbeddedSource

        return OnlineSource(cache_folder()) if online else EmbeddedSource()
    if not choice or "\0" in choice:
        raise LayoutError(
            f"layout={choice!r} names nothing (auto, none or the path of a {ENDINGS} file; "
            "give one)"
        )
    return FileSource(Path(choice))


def cache_folder() -> Path:
    """Give the folder of kept map answers: below TERRASCAPE_HOME, else in the person's cache."""
    home = os.environ.get("TERRASCAPE_HOME")
    root = Path(home) / "cache" if home else Path.home() / ".cache" / "terrascape"
    return root / "overpass"
