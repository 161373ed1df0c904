"""What a satellite image looks like, as numbers that say nothing of where things lie in it.

The values of a retrieval database: colours, contrast at several sizes, directions, and which
colours occur together. They are computed in closed form, so a database can be built from any
imagery without weights, and averages of them over places have a meaning.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from generation.errors import InvalidSpecError

_OPPONENT = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Luminance, blueness and redness (ITU-R BT.601)."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEVELS = 5
"""Halvings of the image; each keeps the contrast of what is twice as large."""
_CHROMA_LEVELS = 3
_DIRECTIONS = 4
_DIRECTED_LEVELS = 3
_TONES = 3
"""Steps of each colour in the histogram of colours."""
_CHUNK = 64
SMALLEST_PX = 2 ** (_LEVELS + 1)
STATISTICS = (
    3 * (2 + len(_QUANTILES))
    + 2 * _LEVELS
    + 2 * _CHROMA_LEVELS
    + _DIRECTIONS * _DIRECTED_LEVELS
    + 3
    + _TONES**3
)
"""How many numbers describe an image."""


def tile_statistics(
    images: UInt8[np.ndarray, "n height width 3"],
) -> Float[Tensor, "n statistics"]:
    """Describe images.

    Args:
        images: Of one size, at least :data:`SMALLEST_PX` on each side.

    Returns:
        :data:`STATISTICS` numbers each: of luminance, blueness and redness the mean, the deviation
        and five quantiles; logarithms of the contrast of each size, and how spiky it is; shares of
        four directions; correlations of the three; roots of the shares of 27 colours.

    Raises:
        InvalidSpecError: The images are too small.

    Source:
        Portilla and Simoncelli, "A Parametric Texture Model Based on Joint Statistics of Complex
        Wavelet Coefficients", IJCV 40 (2000), for which moments make a texture; here with plain
        differences of halved images in place of wavelets.
    """
    height, width = images.shape[1:3]
    if min(height, width) < SMALLEST_PX:
        raise InvalidSpecError(
            f"images of {width}x{height} px are too small to be described (give {SMALLEST_PX} px "
            "or more on each side)"
        )
    parts = [_described(images[k : k + _CHUNK]) for k in range(0, len(images), _CHUNK)]
    return torch.cat([torch.empty(0, STATISTICS), *parts])


def _described(images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n statistics"]:
    tones = (torch.tensor(images).float() / 255).sqrt()
    tones = tones.permute(0, 3, 1, 2)  # most land is dark: roots spread it out
    planes = torch.einsum("ij,njhw->nihw", torch.tensor(_OPPONENT), tones)
    flat = planes.flatten(2)
    ordered = planes[..., ::2, ::2].flatten(2).sort(dim=2).values  # every fourth pixel will do
    at = (torch.tensor(_QUANTILES) * (ordered.shape[2] - 1)).round().long()
    deviation = flat.std(2).clamp_min(1e-4)
    normal = (flat - flat.mean(2, keepdim=True)) / deviation[..., None]
    across = torch.einsum("nip,njp->nij", normal, normal) / flat.shape[2]
    together = torch.stack([across[:, 0, 1], across[:, 0, 2], across[:, 1, 2]], 1)
    return torch.cat(
        [
            flat.mean(2),
            deviation,
            ordered[:, :, at].flatten(1),
            _contrasts(planes),
            together,
            _colours(tones),
        ],
        1,
    )


def _contrasts(planes: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n contrasts"]:
    found, low = [], planes
    for level in range(_LEVELS):
        low = low[..., : low.shape[2] // 2 * 2, : low.shape[3] // 2 * 2]
        half = F.avg_pool2d(low, 2)
        band = low - F.interpolate(half, scale_factor=2.0, mode="nearest")
        spread = band.flatten(2).std(2)
        spiky = band[:, 0].flatten(1).abs().mean(1) / spread[:, 0].clamp_min(1e-5)
        kept = spread if level < _CHROMA_LEVELS else spread[:, :1]
        found += [(kept + 1e-3).log(), spiky[:, None]]
        if level < _DIRECTED_LEVELS:
            found.append(_directions(low[:, 0]))
        low = half
    return torch.cat(found, 1)


def _directions(plane: Float[Tensor, "n height width"]) -> Float[Tensor, "n directions"]:
    """Give the share of each direction in the strength of edges; equal where there are none."""
    down = plane[:, 1:, :-1] - plane[:, :-1, :-1]
    along = plane[:, :-1, 1:] - plane[:, :-1, :-1]
    strength = (down.square() + along.square()).sqrt() + 1e-6
    angle = torch.atan2(down, along) * 2  # an edge has no sign
    shares = [
        ((1 + torch.cos(angle - 2 * torch.pi * k / _DIRECTIONS)) * strength).flatten(1).sum(1)
        for k in range(_DIRECTIONS)
    ]
    total = torch.stack(shares, 1)
    return total / total.sum(1, keepdim=True)


def _colours(tones: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n colours"]:
    """Give the root of the share of each colour, pixels between two steps counting for both."""
    spots = torch.linspace(0, 1, _TONES).view(1, 1, _TONES, 1, 1)
    near = (1 - (tones[:, :, None] - spots).abs() * (_TONES - 1)).clamp_min(0)
    joint = torch.einsum("nahw,nbhw,nchw->nabc", near[:, 0], near[:, 1], near[:, 2])
    shares = joint.flatten(1) / (tones.shape[2] * tones.shape[3])
    return shares.clamp_min(0).sqrt()
