"""Losses that recipes share: functions of scores, each with its equation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Scores = Sequence[Float[Tensor, "batch 1 _rows _cols"]]
"""What a discriminator says of every patch, a map for each scale."""


def discriminator_hinge(real: Scores, drawn: Scores) -> Float[Tensor, ""]:
    """Ask that real patches score above one and drawn ones below minus one.

    Each scale has the same say, however many patches it has.

    Source:
        Lim and Ye, "Geometric GAN" (2017), Eq. 16; Miyato et al., "Spectral normalization for
        generative adversarial networks" (2018), Eq. 16.
    """
    gaps = [F.relu(1 - r).mean() + F.relu(1 + d).mean() for r, d in zip(real, drawn, strict=True)]
    return torch.stack(gaps).mean()


def generator_hinge(drawn: Scores) -> Float[Tensor, ""]:
    """Ask that drawn patches score high.

    Source:
        Miyato et al. (2018), Eq. 17.
    """
    return -torch.stack([scores.mean() for scores in drawn]).mean()
