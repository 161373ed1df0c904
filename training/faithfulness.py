"""How far an image keeps to its layout, judged by its pixels alone.

The judge is a documented colour rule, not a network, so nothing that was trained on generated
images takes part in the verdict.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch.nn import functional as F

from generation.geo.layout import LAYERS
from training.metrics import LUMA, Images

Masks = Bool[np.ndarray, "n height width"]
Classes = UInt8[np.ndarray, "n height width"]
VISIBLE_WATER: tuple[int, ...] = (LAYERS.index("ocean"), LAYERS.index("lake"))
"""Rivers are left out: drawn at least a pixel wide, most of them cannot be seen at this scale."""


def layout_water(classes: Classes) -> Masks:
    """Return the pixels that the layout gives to the sea or a lake."""
    return np.isin(classes, VISIBLE_WATER)


def layout_roads(classes: Classes) -> Masks:
    """Return the pixels that the layout gives to roads."""
    return classes == LAYERS.index("road")


def water_mask(images: Images) -> Masks:
    """Return the pixels that look like water in a Blue Marble tile.

    Two rules, either of which is enough. Blue water: ``blue - red >= max(8, blue / 4)`` and blue at
    least 0.9 of green; the first is relative to brightness, since the shade of snow is bright and
    weakly blue where the sea is dark and strongly so, the second leaves shallow turquoise in and
    wet vegetation out. Black water, as of deep lakes: red and green at most 25 and blue at least
    2 above red.

    The numbers were chosen on real tiles against the embedded layout and then fixed. The rules miss
    silted estuaries, green salt lakes and lakes that have fallen dry since the map was drawn, so
    real tiles do not reach full agreement with their layout either: read scores beside theirs.
    """
    red, green, blue = (images[..., channel].astype(np.int16) for channel in range(3))
    blueness = blue - red
    bright = (blueness >= 8) & (4 * blueness >= blue) & (10 * blue >= 9 * green)
    return bright | ((np.maximum(red, green) <= 25) & (blueness >= 2))


def agreement_counts(found: Masks, wanted: Masks) -> Float[np.ndarray, "n 4"]:
    """Return pixels that are in both masks, only found, only wanted, in neither; by image."""
    both = (found & wanted).sum((1, 2))
    alone, missed = (found & ~wanted).sum((1, 2)), (~found & wanted).sum((1, 2))
    rest = wanted[0].size - both - alone - missed
    return np.stack([both, alone, missed, rest], 1).astype(np.float64)


def iou(sums: Float[np.ndarray, "r 4"]) -> Float[np.ndarray, " r"]:
    """Return intersection over union from sums of :func:`agreement_counts`."""
    return sums[:, 0] / sums[:, :3].sum(1)


def accuracy(sums: Float[np.ndarray, "r 4"]) -> Float[np.ndarray, " r"]:
    """Return the share of pixels on which both masks agree."""
    return (sums[:, 0] + sums[:, 3]) / sums.sum(1)


def road_contrast(
    images: Images, roads: Masks, water: Masks, near: int = 2, far: int = 6
) -> Float[np.ndarray, "n 2"]:
    """Return the luminance of road pixels minus that of the ground beside them, summed by image.

    The ground beside a road lies between ``near`` and ``far`` pixels from the closest road pixel
    (Chebyshev distance) and is no water in the layout; so is the road.

    Returns:
        For each image ``(contrast times road pixels, road pixels)`` in grey levels, whose ratio of
        sums is the mean contrast; an image without roads gives ``(0, 0)``.
    """
    rows = np.zeros((len(images), 2))
    for row, image, road, wet in zip(rows, images, roads, water, strict=True):
        on = road & ~wet
        beside = _grow(road, far) & ~_grow(road, near - 1) & ~wet
        if on.any() and beside.any():
            grey = image @ LUMA
            row[:] = (grey[on].mean() - grey[beside].mean()) * on.sum(), on.sum()
    return rows


def _grow(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    grid = torch.from_numpy(mask)[None, None].float()
    return F.max_pool2d(grid, 2 * radius + 1, 1, radius)[0, 0].bool().numpy()
