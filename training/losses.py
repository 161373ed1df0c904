"""Losses that recipes share: functions of scores, each with its equation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Scores = Sequence[Float[Tensor, "batch 1 _rows _cols"]]
"""What a discriminator says of every patch, a map for each scale."""


def relativistic(winner: Scores, loser: Scores) -> Float[Tensor, ""]:
    """Ask that each patch of one side scores above the same patch of the other.

    With the real images as winners it teaches the discriminator, with the drawn ones the generator.
    Each scale has the same say, however many patches it has.

    Source:
        Jolicoeur-Martineau, "The relativistic discriminator" (2018), §3.2, in the paired form of
        Huang et al., "The GAN is dead; long live the GAN!" (2024), Eq. 2.
    """
    gaps = [F.softplus(b - a).mean() for a, b in zip(winner, loser, strict=True)]
    return torch.stack(gaps).mean()


def slope_penalty(
    scores: Scores, images: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, ""]:
    """Give the squared slope of the scores with respect to the images, per pixel of a score map.

    Without it the two players circle around the solution instead of meeting in it.

    Source:
        Mescheder et al., "Which training methods for GANs do actually converge?" (2018), Eq. 9;
        the sum over patches is divided by their number.
    """
    total = torch.stack([s.sum() / s[0].numel() ** 0.5 for s in scores]).sum()
    (slope,) = torch.autograd.grad(total, images, create_graph=True)
    return slope.square().sum(dim=(1, 2, 3)).mean()
