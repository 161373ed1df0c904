"""BirdSAT's losses besides the contrastive one: filling in, and telling pairs.

Source:
    Sastry et al., "BirdSAT" (WACV 2024), §3, with the weights of its code.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from generation.encoders.birdsat import CvmMae
from generation.encoders.masked_vit import Images, MaskedVit, Masking, patchified
from generation.errors import ConfigError

CONTRAST = 0.3
"""Weight of the contrastive loss beside that of filling in."""
MASKED = 0.75
"""Share of the patches that are hidden."""


def filling_in(
    tower: MaskedVit, images: Sequence[Images], ratio: float = MASKED
) -> Float[Tensor, ""]:
    """Mask patches of all views together, and compare what a tower fills in with what was there.

    The mean square over the pixels of a patch, averaged over hidden patches of all views; pixels
    are not normalised patch by patch.

    Source:
        He et al., "Masked autoencoders are scalable vision learners" (2022), §3; BirdSAT's code.
    """
    masking = Masking.random(len(images[0]), sum(tower.counts), ratio, images[0].device)
    filled = tower.decode(tower.encode(images, masking), masking)
    apart = [
        (guess - patchified(each, patch)).square().mean(-1)
        for guess, each, (_, _, patch) in zip(filled, images, tower.sizes, strict=True)
    ]
    hidden = masking.hidden
    return (torch.cat(apart, 1) * hidden).sum() / hidden.sum()


def matching(
    model: CvmMae,
    ground: Images,
    satellite: Images,
    known: Sequence[Float[Tensor, "batch 2"]],
    false: int = 1,
) -> Float[Tensor, "kinds batch"]:
    """Give the logits of true pairs, and of those with the satellite image of another row.

    What is known belongs to the satellite image and goes with it.

    Args:
        model: What matches.
        ground: Views.
        satellite: The images around them.
        known: Places and dates of these.
        false: False pairs of each view: with the image of the row before, and so on.

    Raises:
        ConfigError: A batch has not so many other rows.
    """
    if len(ground) <= false:
        raise ConfigError(
            f"a batch of {len(ground)} has no {false} false pairs of each (give a larger "
            "loop.batch_size, or fewer)"
        )
    rolls = range(false + 1)
    others = [torch.cat([each.roll(by, 0) for by in rolls]) for each in (satellite, *known)]
    return model(torch.cat([ground for _ in rolls]), *others).unflatten(0, (false + 1, -1))


def told_apart(logits: Float[Tensor, "kinds batch"]) -> Float[Tensor, ""]:
    """Give the cross-entropy of saying which pairs are true, half of it for the first row."""
    return (F.softplus(-logits[0]).mean() + F.softplus(logits[1:]).mean()) / 2
