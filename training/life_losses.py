"""TaxaBind's losses: names against places, environments, images and sounds.

Rows of both sides belong together; other rows of the same taxon are no negatives.

Source:
    Sastry et al., "TaxaBind" (WACV 2025), §3.2, with the weights of its code.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from generation.encoders.heads import unit

TO_PLACES, TO_NAMES = 0.4, 0.6
"""Weights of the two directions of the loss of places and environments."""
_NEVER = -1e4
"""The logit of what is not asked about."""


def with_random_places(
    names: Float[Tensor, "batch dim"],
    places: Float[Tensor, "batch dim"],
    random: Float[Tensor, "more dim"],
    scale: Float[Tensor, ""],
    same: Bool[Tensor, "batch batch"],
) -> Float[Tensor, ""]:
    """Ask each name for its place among all and random ones, and each place for its name.

    ``0.4 CE(name -> places and random places) + 0.6 CE(place -> names)``

    Args:
        names: Vectors of the hub.
        places: Of places, or environments, where they live.
        random: Of places drawn anywhere.
        scale: Inverse temperature.
        same: Which rows are of one taxon; the diagonal is.
    """
    logits = scale * unit(names) @ unit(places).T
    logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), _NEVER)
    away = scale * unit(names) @ unit(random).T
    forth = -torch.cat([logits, away], 1).log_softmax(1).diagonal().mean()
    back = -logits.T.log_softmax(1).diagonal().mean()
    return TO_PLACES * forth + TO_NAMES * back


def supervised(
    names: Float[Tensor, "batch dim"],
    images: Float[Tensor, "batch dim"],
    scale: Float[Tensor, ""],
    same: Bool[Tensor, "batch batch"],
) -> Float[Tensor, ""]:
    """Ask each row for all rows of its taxon: the sum over them, both directions alike.

    Source:
        Khosla et al., "Supervised contrastive learning" (2020), Eq. 2, without the division by the
        number of positives, as in TaxaBind's code for satellite images.
    """
    logits = scale * unit(names) @ unit(images).T
    both = [-(each.log_softmax(1) * same).sum(1).mean() for each in (logits, logits.T)]
    return (both[0] + both[1]) / 2


def random_places(
    count: int, generator: torch.Generator | None = None, *, compat: str = ""
) -> Float[Tensor, "count 2"]:
    """Draw places anywhere, degrees, latitude first.

    Args:
        count: How many.
        generator: Of the random numbers.
        compat: ``mvrl``: evenly in degrees, as in TaxaBind's code, which favours the poles; by
            default evenly on the sphere.
    """
    height, around = torch.rand(2, count, generator=generator)
    lat = 180 * height - 90 if compat == "mvrl" else torch.rad2deg(torch.asin(2 * height - 1))
    return torch.stack([lat, 360 * around - 180], 1)
