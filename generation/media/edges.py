"""Edges of a picture, as the edge-steered models were shown them.

The detector is Canny's, with the choices of OpenCV's ``Canny`` (integer gradients, their L1 norm,
no smoothing), whose pixels it reproduces exactly, so that no OpenCV is needed.
"""

import numpy as np
from jaxtyping import Bool, Int, UInt8

from generation.errors import InvalidSpecError

LOW, HIGH = 100, 200
"""Thresholds of the gradient that ControlNet's own preprocessing uses."""
_TAN_22_5 = 13573
"""tan(22.5 degrees) in units of 2^-15, as OpenCV rounds it."""


def canny_edges(
    rgb: UInt8[np.ndarray, "height width 3"], low: int = LOW, high: int = HIGH
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the edges of a picture, white on black.

    Args:
        rgb: Values 0 to 255.
        low: Gradient from which a pixel may continue an edge.
        high: Gradient from which a pixel starts one; not below ``low``.

    Returns:
        255 on edges and 0 elsewhere, the same in each channel.

    Raises:
        InvalidSpecError: The thresholds are out of order.

    Source:
        Canny, "A Computational Approach to Edge Detection" (1986), §VIII (hysteresis); Sobel
        gradients, and the direction sectors of OpenCV.
    """
    if not 0 <= low <= high:
        raise InvalidSpecError(
            f"low={low}, high={high}: no thresholds (0 <= low <= high; the usual ones are "
            f"{LOW} and {HIGH})"
        )
    dx, dy = _strongest_gradient(rgb)
    strength = np.abs(dx) + np.abs(dy)
    ridge = _ridges(dx, dy, strength) & (strength > low)
    edges = _connected(ridge, ridge & (strength > high))
    return np.repeat(edges[..., None].astype(np.uint8) * np.uint8(255), 3, axis=-1)


def _strongest_gradient(
    rgb: UInt8[np.ndarray, "height width 3"],
) -> tuple[Int[np.ndarray, "height width"], Int[np.ndarray, "height width"]]:
    """Take each pixel's Sobel gradient from the channel where it is largest."""
    padded = np.pad(rgb.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = padded[:, 2:] - padded[:, :-2]
    down = padded[2:] - padded[:-2]
    dx = across[:-2] + 2 * across[1:-1] + across[2:]
    dy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    best = (np.abs(dx) + np.abs(dy)).argmax(-1)[..., None]
    return np.take_along_axis(dx, best, -1)[..., 0], np.take_along_axis(dy, best, -1)[..., 0]


def _ridges(
    dx: Int[np.ndarray, "height width"],
    dy: Int[np.ndarray, "height width"],
    strength: Int[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Tell which pixels are maxima along their gradient; ties go to the left and the upper one."""
    around = np.pad(strength, 1)

    def neighbour(rows: int, cols: int) -> Int[np.ndarray, "height width"]:
        height, width = strength.shape
        return around[1 + rows : 1 + rows + height, 1 + cols : 1 + cols + width]

    x, y = np.abs(dx), np.abs(dy) << 15
    flat = y < x * _TAN_22_5
    steep = y > x * _TAN_22_5 + (x << 16)
    rising = (dx < 0) != (dy < 0)
    diagonal = np.where(
        rising,
        (strength > neighbour(-1, 1)) & (strength > neighbour(1, -1)),
        (strength > neighbour(-1, -1)) & (strength > neighbour(1, 1)),
    )
    along = (strength > neighbour(0, -1)) & (strength >= neighbour(0, 1))
    upright = (strength > neighbour(-1, 0)) & (strength >= neighbour(1, 0))
    return np.where(flat, along, np.where(steep, upright, diagonal))


def _connected(
    ridge: Bool[np.ndarray, "height width"], start: Bool[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Keep the ridges that touch a start, corners counting as touching."""
    from scipy.ndimage import label

    parts, count = label(ridge, np.ones((3, 3)))
    kept = np.zeros(count + 1, bool)
    kept[parts[start]] = True
    kept[0] = False
    return kept[parts]
