"""Scores of panoramas against the real ones of their places: whole, and on the ground alone.

The sky is half of every panorama and easily had, so each score is taken a second time over what is
ground in the real panorama. Rows of a table are panoramas, columns are :data:`METRICS`.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from generation.diffusion.codec import to_signal
from training.metrics import Images, PerImage, lite0_weights, ssim_map
from training.perception import StageFeatures

BASES = ("psnr_db", "ssim", "lite0_distance", "seam_ratio", "border_ratio")
GROUND = "_ground"
METRICS = (*BASES, *(f"{name}{GROUND}" for name in BASES))
HIGHER_IS_BETTER = {
    "psnr_db": True,
    "ssim": True,
    "lite0_distance": False,
    "seam_ratio": False,
    "border_ratio": False,
}
MOST_DB = 60.0
"""Equal pictures have an infinite PSNR, of which there is no mean: they count as this much."""
PATCH_PX = 8
"""Side of the patches of the nano codec, and of JPEG's blocks."""
_SSIM_EDGE = 5

Ground = Bool[np.ndarray, "n height width"]


def higher_is_better(metric: str) -> bool:
    """Tell which way a score of :data:`METRICS` is read."""
    return HIGHER_IS_BETTER[metric.removesuffix(GROUND)]


def masked_psnr(a: Images, b: Images, mask: Ground) -> PerImage:
    """Return the peak signal-to-noise ratio over some pixels in dB; infinite where they are equal.

    A panorama without such pixels has none: NaN.
    """
    square = np.square(a.astype(np.float32) - b.astype(np.float32)).mean(-1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = (square * mask).sum((1, 2)) / mask.sum((1, 2))
        return 10 * np.log10(255**2 / error)


def masked_ssim(a: Images, b: Images, mask: Ground) -> PerImage:
    """Return the mean structural similarity over some pixels, of those with a whole window.

    See :func:`training.metrics.ssim`, which this is where the mask is everything.
    """
    rows = []
    inner = slice(_SSIM_EDGE, -_SSIM_EDGE)
    for x, y, kept in zip(a, b, mask[:, inner, inner], strict=True):
        found = ssim_map(x[None], y[None])[0].mean(0).double().numpy()
        rows.append(found[kept].mean() if kept.any() else np.nan)
    return np.array(rows, np.float64)


def seam_ratio(images: Images, mask: Ground | None = None, *, every: int = 1) -> PerImage:
    """Return how much larger the step over the edge is than that between neighbouring columns.

    The mean absolute difference of the first and the last column, over that of all adjacent ones.
    A picture whose edges do not meet lies above what others do. Where pictures are made of patches
    or were JPEG, all steps over borders are larger than those inside, and the edge is such a
    border: only the comparison with other borders tells a seam from that.

    A picture of equal columns has no step anywhere, at its edge neither: its ratio is 1.

    Args:
        images: The panoramas.
        mask: Pixels that count; steps between two of them are taken. All if absent. A panorama
            without such a step at its edge, or elsewhere, has no ratio: NaN.
        every: Compare with each so many-th step only, those over the borders of patches.
    """
    signal = images.astype(np.float64)
    step = np.abs(signal - np.roll(signal, 1, axis=2)).mean(-1)  # column 0: over the edge
    kept = np.ones(step.shape) if mask is None else (mask & np.roll(mask, 1, axis=2)).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        edge = (step * kept)[:, :, 0].sum(1) / kept[:, :, 0].sum(1)
        others = slice(every, None, every)
        inside = (step * kept)[:, :, others].sum((1, 2)) / kept[:, :, others].sum((1, 2))
        ratio = edge / inside
    return np.where((edge == 0) & (inside == 0), 1.0, ratio)


def stage_distance(
    a: list[Float[Tensor, "n _channels _rows _cols"]],
    b: list[Float[Tensor, "n _channels _rows _cols"]],
    weight: Float[Tensor, "n 1 height width"],
) -> Float[Tensor, " n"]:
    """Return the squared distance of feature directions, summed over stages.

    Cells are averaged by the weight of their pixels: with equal weights this is
    :func:`training.perception.unlikeness`.
    """
    total = torch.zeros(len(weight))
    for p, q in zip(a, b, strict=True):
        apart = (F.normalize(p, dim=1) - F.normalize(q, dim=1)).square().sum(1)
        cells = F.adaptive_avg_pool2d(weight, (apart.shape[-2], apart.shape[-1]))[:, 0]
        total = total + (apart * cells).sum((1, 2)) / cells.sum((1, 2))
    return total


class PanoramaRuler:
    """All scores of panoramas at once, with EfficientNet-Lite0 as the eyes of one of them."""

    def __init__(self) -> None:
        self.weights = lite0_weights()
        self._stages = StageFeatures("efficientnet-lite0", self.weights).eval()

    def __call__(
        self, images: Images, real: Images, ground: Ground
    ) -> Float[np.ndarray, "n metrics"]:
        """Return a row of :data:`METRICS` for each panorama; PSNR ends at ``MOST_DB``."""
        everything = np.ones_like(ground)
        columns = []
        for mask in (everything, ground):
            psnr = np.minimum(masked_psnr(images, real, mask), MOST_DB)  # keeps a NaN
            columns += [psnr, masked_ssim(images, real, mask)]
            columns += [self.distance(images, real, mask), seam_ratio(images, mask)]
            columns.append(seam_ratio(images, mask, every=PATCH_PX))
        return np.stack(columns, 1).astype(np.float64)

    @torch.inference_mode()
    def distance(self, images: Images, real: Images, mask: Ground) -> PerImage:
        """Return ``lite0_distance`` over some pixels."""
        rows = []
        for image, other, kept in zip(images, real, mask, strict=True):
            both = self._stages(to_signal(np.stack([image, other])))
            weight = torch.from_numpy(kept[None, None].astype(np.float32))
            rows.append(stage_distance([m[:1] for m in both], [m[1:] for m in both], weight))
        return torch.cat(rows).double().numpy()
