"""Layers embedded with the project: a layout for anywhere on Earth, offline.

Shores, lakes and rivers are GSHHG/WDBII at "high" resolution (about 200 m), ground cover is the
MODIS land cover of 2019 on a 0.05 degree grid. Good for zoom levels up to about 9; above that the
shapes stay true but coarse, which the layout's notes say.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16, Int32, Int64, UInt8
from PIL import Image

from generation.errors import LayoutError, MissingFileError
from generation.geo.layout import LAYERS, Feature, Layout, rasterize, to_unit_square
from generation.geo.mercator import Window, world_px

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "world"
QUANTUM_DEG = 1 / 2000
"""Coordinates are kept to the nearest 0.0005 degrees (55 m)."""
SHARP_ZOOM = 9
"""The highest zoom at which the embedded shapes are as fine as the pixels, roughly."""
ATTRIBUTION = (
    "Shores, lakes, rivers: GSHHG/WDBII (Wessel and Smith 1996), LGPL. "
    "Land cover: MODIS MCD12C1 v006 2019 (NASA LP DAAC)."
)
IGBP_LAYER: tuple[str, ...] = (
    "lake",  # 0 water
    "forest",  # 1 evergreen needleleaf
    "forest",  # 2 evergreen broadleaf
    "forest",  # 3 deciduous needleleaf
    "forest",  # 4 deciduous broadleaf
    "forest",  # 5 mixed
    "shrub",  # 6 closed shrubland
    "shrub",  # 7 open shrubland
    "savanna",  # 8 woody savanna
    "savanna",  # 9 savanna
    "grass",  # 10 grassland
    "wetland",  # 11 permanent wetland
    "crop",  # 12 cropland
    "urban",  # 13 urban
    "crop",  # 14 cropland and natural mosaic
    "glacier",  # 15 snow and ice
    "bare",  # 16 barren
)
"""The layer of each class of the International Geosphere-Biosphere Programme."""
_COVER = np.array([LAYERS.index(name) for name in IGBP_LAYER], dtype=np.uint8)
_LEVEL_LAYER = {1: "land", 5: "land", 2: "lake", -2: "river", 3: "land", 4: "lake"}
"""GSHHG levels: land, Antarctica, lakes, wide rivers, islands in lakes, ponds on those."""
HOLE = 0
"""The kind of a ring that is a hole in the shape before it (lines have this kind, too)."""


class Shapes:
    """Polygons or lines by their boxes; a shape is built when a window first needs it."""

    def __init__(self, name: str) -> None:
        with np.load(_asset(f"water_{name}.npz")) as data:
            first, delta, lengths = data["first"], data["delta"], data["lengths"]
            kinds = data["kinds"].astype(np.int16)
        if int(lengths.sum()) != len(delta) or len(lengths) != len(kinds):
            raise LayoutError(f"water_{name}.npz is damaged (reinstall the project)")
        self.areas = name == "areas"
        self._points = undo_deltas(first, delta, lengths)
        starts = np.cumsum(lengths) - lengths
        outer = np.flatnonzero(kinds != HOLE) if self.areas else np.arange(len(kinds))
        self.kinds: Int16[np.ndarray, " n"] = kinds[outer]
        self._rings = [*outer.tolist(), len(kinds)]
        self._starts = [*starts.tolist(), len(delta)]
        low = np.minimum.reduceat(self._points, starts)[outer]
        high = np.maximum.reduceat(self._points, starts)[outer]
        north_west = to_unit_square(np.stack([low[:, 0], high[:, 1]], axis=1) * QUANTUM_DEG)
        south_east = to_unit_square(np.stack([high[:, 0], low[:, 1]], axis=1) * QUANTUM_DEG)
        self._boxes = np.hstack([north_west, south_east])
        self._built: dict[int, object] = {}

    def within(
        self, west: float, north: float, east: float, south: float
    ) -> list[tuple[int, object]]:
        """Give kind and geometry of what may touch a box of the unit square, y down."""
        left, top, right, bottom = self._boxes.T
        hit = (left <= east) & (right >= west) & (top <= south) & (bottom >= north)
        return [(int(self.kinds[i]), self._geometry(i)) for i in np.flatnonzero(hit).tolist()]

    def _geometry(self, index: int) -> object:
        import shapely

        if index not in self._built:
            rings = [self._ring(i) for i in range(*self._rings[index : index + 2])]
            self._built[index] = (
                shapely.Polygon(rings[0], rings[1:]) if self.areas else shapely.LineString(rings[0])
            )
        return self._built[index]

    def _ring(self, index: int) -> Float[np.ndarray, "n 2"]:
        return to_unit_square(self._points[slice(*self._starts[index : index + 2])] * QUANTUM_DEG)


class EmbeddedSource:
    """Layouts from the layers that ship with the project."""

    def layout(self, window: Window) -> Layout:
        """Draw the layout of a window.

        Args:
            window: Any window; over the antimeridian, too.

        Returns:
            Ocean, ground cover, glaciers, lakes and rivers. Roads, rails and buildings are in no
            embedded layer.
        """
        cover = ground_cover(window)
        dry = _paint_water(window)
        classes = np.where(dry == LAYERS.index("land"), cover, dry)
        notes: tuple[str, ...] = ()
        if window.zoom > SHARP_ZOOM:
            notes = (
                f"embedded layers are coarse at zoom {window.zoom} (shores about 200 m, ground "
                "cover about 5 km); give a map file or --online for streets",
            )
        return Layout(classes, window, "embedded world layers", ATTRIBUTION, notes)


def _paint_water(window: Window) -> UInt8[np.ndarray, "height width"]:
    """Give land, ocean, lake or river for each pixel, islands in lakes being land."""
    out = np.full((window.height_px, window.width_px), LAYERS.index("ocean"), np.uint8)
    for part in _unwrapped(window):
        areas = _shapes("areas").within(*_unit_box(part))
        for levels in ((1, 5), (2, -2), (3,), (4,)):
            shapes = [
                Feature(geometry, _LEVEL_LAYER[kind], unit_square=True)
                for kind, geometry in areas
                if kind in levels
            ]
            out = rasterize(shapes, part, out)
        lines = _shapes("lines").within(*_unit_box(part))
        rivers = [Feature(geometry, "river", unit_square=True) for _, geometry in lines]
        wet = rasterize(rivers, part, np.zeros_like(out))
        out[(wet == LAYERS.index("river")) & (out == LAYERS.index("land"))] = LAYERS.index("river")
    return out


def ground_cover(window: Window) -> UInt8[np.ndarray, "height width"]:
    """Give the ground class of each pixel as if there were no water.

    The 0.05 degree cells vote with bilinear weights and the strongest class wins, which rounds the
    cells' corners off. Water cells vote only where there is nothing else.

    Args:
        window: What to cover.

    Returns:
        Class indices of :data:`generation.geo.layout.LAYERS`.
    """
    size = world_px(window.zoom)
    x = (window.col_px + np.arange(window.width_px) + 0.5) / size
    y = (window.row_px + np.arange(window.height_px) + 0.5) / size
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y))))
    grid = land_cover()
    rows, row_weight = _bilinear((90 - lat) / 0.05 - 0.5)
    cols, col_weight = _bilinear((x % 1.0) * grid.shape[1] - 0.5)
    rows = np.clip(rows, 0, grid.shape[0] - 1)
    cols %= grid.shape[1]
    names = sorted(set(_COVER.tolist()) - {LAYERS.index("lake")})
    corners = [
        (_COVER[grid[np.ix_(rows[i], cols[j])]], np.outer(row_weight[i], col_weight[j]))
        for i in (0, 1)
        for j in (0, 1)
    ]
    votes = np.stack([sum(np.where(c == k, w, 0.0) for c, w in corners) for k in names])
    winner = np.array(names, dtype=np.uint8)[votes.argmax(0)]
    return np.where(votes.max(0) > 0, winner, np.uint8(LAYERS.index("lake"))).astype(np.uint8)


def _bilinear(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.floor(position).astype(np.int64)
    weight = position - low
    return np.stack([low, low + 1]), np.stack([1 - weight, weight])


def _unwrapped(window: Window) -> list[Window]:
    """Give the window once for each copy of the map that it touches, shifted onto the map."""
    size = world_px(window.zoom)
    first, last = window.col_px // size, (window.col_px + window.width_px - 1) // size
    return [replace(window, col_px=window.col_px - turn * size) for turn in range(first, last + 1)]


def _unit_box(window: Window, pad_px: int = 4) -> tuple[float, float, float, float]:
    """Give west, north, east, south in the unit square, with room for the width of lines."""
    size = world_px(window.zoom)
    return (
        (window.col_px - pad_px) / size,
        (window.row_px - pad_px) / size,
        (window.col_px + window.width_px + pad_px) / size,
        (window.row_px + window.height_px + pad_px) / size,
    )


@cache
def land_cover() -> UInt8[np.ndarray, "3600 7200"]:
    """Give the class of land cover on a grid of 0.05 degree, row 0 in the north."""
    return np.asarray(Image.open(_asset("igbp_2019_0p05deg.png")))


@cache
def _shapes(name: str) -> Shapes:
    return Shapes(name)


def undo_deltas(
    first: Int32[np.ndarray, "n 2"],
    delta: Int16[np.ndarray, "points 2"],
    lengths: Int32[np.ndarray, " n"],
) -> Int64[np.ndarray, "points 2"]:
    """Rebuild quantised points from each shape's first point and the steps between the rest."""
    steps = delta.astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    total = np.cumsum(steps, axis=0)
    before = total[starts] - steps[starts]
    return total - np.repeat(before - first, lengths, axis=0)


def _asset(name: str) -> Path:
    path = ASSETS / name
    if not path.is_file():
        raise MissingFileError(
            f"{path} is not there (the world layers ship with the project; install it from a "
            "checkout, or rebuild them: python -m training.world_layers)"
        )
    return path
