"""Layers embedded with the project: a layout for anywhere on Earth, offline.

Shores, lakes and rivers are GSHHG/WDBII at "high" resolution (about 200 m), ground cover is the
MODIS land cover of 2019 on a 0.05 degree grid. Good for zoom levels up to about 9; above that the
shapes stay true but coarse, which the layout's notes say.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16, Int32, UInt8
from PIL import Image

from generation.errors import MissingFileError
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


class Shapes(NamedTuple):
    """Ragged polylines with a spatial index."""

    geometries: np.ndarray
    kinds: Int16[np.ndarray, " n"]
    tree: object


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
    areas, lines = _shapes("areas"), _shapes("lines")
    for part in _unwrapped(window):
        hits = areas.tree.query(_unit_box(part))  # type: ignore[attr-defined]
        for levels in ((1, 5), (2, -2), (3,), (4,)):
            chosen = [i for i in hits if areas.kinds[i] in levels]
            shapes = [
                Feature(areas.geometries[i], _LEVEL_LAYER[int(areas.kinds[i])], unit_square=True)
                for i in chosen
            ]
            out = rasterize(shapes, part, out)
        streams = lines.tree.query(_unit_box(part))  # type: ignore[attr-defined]
        rivers = [Feature(lines.geometries[i], "river", unit_square=True) for i in streams]
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
    grid = _igbp()
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
    """Give the window and, where it crosses the antimeridian, its image west of the map."""
    if window.col_px + window.width_px <= world_px(window.zoom):
        return [window]
    shifted = Window(
        window.zoom,
        window.col_px - world_px(window.zoom),
        window.row_px,
        window.width_px,
        window.height_px,
    )
    return [window, shifted]


def _unit_box(window: Window, pad_px: int = 4) -> object:
    import shapely

    size = world_px(window.zoom)
    return shapely.box(
        (window.col_px - pad_px) / size,
        (window.row_px - pad_px) / size,
        (window.col_px + window.width_px + pad_px) / size,
        (window.row_px + window.height_px + pad_px) / size,
    )


@cache
def _igbp() -> UInt8[np.ndarray, "3600 7200"]:
    return np.asarray(Image.open(_asset("igbp_2019_0p05deg.png")))


@cache
def _shapes(name: str) -> Shapes:
    """Load polygons (``areas``) or lines, decode the deltas and index them."""
    import shapely

    with np.load(_asset(f"water_{name}.npz")) as data:
        first, delta, lengths = data["first"], data["delta"], data["lengths"]
        kinds = data["kinds"].astype(np.int16)
    points = to_unit_square(undo_deltas(first, delta, lengths) * QUANTUM_DEG)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if name == "areas":
        rings = shapely.linearrings(points, indices=np.repeat(np.arange(len(lengths)), lengths))
        geometries = shapely.polygons(rings)
        bad = ~shapely.is_valid(geometries)
        geometries[bad] = shapely.make_valid(geometries[bad])
    else:
        geometries = shapely.linestrings(
            points, indices=np.repeat(np.arange(len(lengths)), lengths)
        )
    if offsets[-1] != len(points):
        raise MissingFileError(f"water_{name}.npz is damaged (reinstall the project)")
    return Shapes(geometries, kinds, shapely.STRtree(geometries))


def undo_deltas(
    first: Int32[np.ndarray, "n 2"],
    delta: Int16[np.ndarray, "points 2"],
    lengths: Int32[np.ndarray, " n"],
) -> np.ndarray:
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
