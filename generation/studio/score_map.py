"""The scores of all tiles of a gallery as cells of colour over the map of the world."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from generation.geo.mercator import TILE_PX, world_px
from generation.studio.pictures import overlay_uri

TILE_ZOOM = 8
"""The zoom level of the tiles that galleries are built from."""
COLS = world_px(TILE_ZOOM) // TILE_PX
ROWS = COLS // 2
CELL_DEG = 360 / COLS
"""Side of a cell: as wide as a tile. Towards the poles tiles are lower, so several share one."""
OPACITY = 0.85


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """What is laid over the map, and what its colours mean."""

    overlay: str
    """Source of a picture of the whole world, plate carrée, one pixel a cell."""
    low: float
    """The score from which downwards all cells have the first colour."""
    high: float
    """The score from which upwards all have the last."""
    tiles: int
    colours: tuple[str, ...]


def score_map(
    latlon: Float64[np.ndarray, "tiles 2"], scores: Float64[np.ndarray, " tiles"]
) -> ScoreMap:
    """Draw scores where their tiles lie; a cell has the colour of its best tile.

    Args:
        latlon: Centres of the tiles, degrees; at least one.
        scores: Higher is more alike.
    """
    from generation.pipelines.maps_image import LIKELY, colour_range

    cells = cells_of_scores(latlon, scores)
    ends = colour_range(cells)
    return ScoreMap(overlay_uri(_painted(cells, ends, LIKELY)), *ends, len(scores), LIKELY)


def cells_of_scores(
    latlon: Float64[np.ndarray, "tiles 2"], scores: Float64[np.ndarray, " tiles"]
) -> Float32[np.ndarray, "rows cols"]:
    """Give the best score in each cell, from north to south and west to east; NaN without one."""
    rows = np.floor((90 - latlon[:, 0]) / CELL_DEG).astype(int).clip(0, ROWS - 1)
    cols = np.floor((latlon[:, 1] + 180) / CELL_DEG).astype(int) % COLS
    cells = np.full((ROWS, COLS), -np.inf)
    np.maximum.at(cells, (rows, cols), scores)
    return np.where(np.isinf(cells), np.nan, cells).astype(np.float32)


def _painted(
    cells: Float32[np.ndarray, "rows cols"], ends: tuple[float, float], colours: Sequence[str]
) -> UInt8[np.ndarray, "rows cols 4"]:
    from generation.pipelines.maps_image import coloured

    alpha = np.where(np.isnan(cells), 0, round(255 * OPACITY)).astype(np.uint8)
    rgb = np.where(alpha[..., None] > 0, coloured(cells, ends, colours), np.uint8(0))
    return np.dstack([rgb, alpha])
