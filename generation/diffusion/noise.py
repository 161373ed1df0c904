"""Noise that belongs to a place: a pure function of a seed and an absolute position.

A sample drawn alone, in a batch or as a part of a larger area starts from the same numbers, on any
machine and for any number of workers, because no generator with a state is involved.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def position_noise(
    seed: int, level: int, rows: range, cols: range, channels: int, *, period: int | None = None
) -> Float[Tensor, "1 channels rows cols"]:
    """Draw standard normal noise for a rectangle of a global grid of latents.

    Args:
        seed: Any non-negative integer below 2**63.
        level: What tells grids apart, such as the zoom level.
        rows: Global rows of the grid.
        cols: Global columns.
        channels: Channels of a cell.
        period: Columns after which the grid begins anew, as a map of the world does.

    Returns:
        Independent standard normal numbers; a cell's values do not depend on the rectangle.

    Source:
        Counter hashing with the finaliser of Steele, Lea and Flood, "Fast splittable pseudorandom
        number generators" (OOPSLA 2014), Fig. 16; Box and Muller (1958) for the normal law.
    """
    start = seed ^ (((level + 1) * int(_GAMMA)) % 2**64)
    key = _mix(np.array([start], np.uint64))
    row = np.arange(rows.start, rows.stop, dtype=np.int64).astype(np.uint64)
    col = np.arange(cols.start, cols.stop, dtype=np.int64)
    col = (col if period is None else col % period).astype(np.uint64)
    cell = _mix(_mix(key + row * _GAMMA)[:, None] + col * _GAMMA)
    channel = np.arange(2 * channels, dtype=np.uint64).reshape(2, channels, 1, 1)
    bits = _mix(cell + (channel + np.uint64(1)) * _GAMMA) >> np.uint64(11)
    first, second = (bits + 0.5) / 2.0**53  # both inside (0, 1)
    normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return torch.from_numpy(normal.astype(np.float32))[None]


def _mix(x: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * _MIX[0]
        x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))
