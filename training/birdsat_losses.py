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
AROUND = 1
"""How far satellite images are shifted in a batch to make pairs that do not belong together."""


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
    model: CvmMae, ground: Images, satellite: Images, known: Sequence[Float[Tensor, "batch 2"]]
) -> Float[Tensor, "two batch"]:
    """Give the logits of true pairs, and of those with the satellite image of another row.

    What is known belongs to the satellite image and goes with it.

    Args:
        model: What matches.
        ground: Views.
        satellite: The images around them.
        known: Places and dates of these.

    Raises:
        ConfigError: A batch of one has no other row.
    """
    if len(ground) < 2:
        raise ConfigError("a batch of 1 has no false pairs (give loop.batch_size 2 or more)")
    others = [torch.cat([each, each.roll(AROUND, 0)]) for each in (satellite, *known)]
    return model(torch.cat([ground, ground]), *others).unflatten(0, (2, -1))


def told_apart(logits: Float[Tensor, "two batch"]) -> Float[Tensor, ""]:
    """Give the cross-entropy of saying which pairs are true: the first row is."""
    labels = torch.zeros_like(logits)
    labels[0] = 1
    return F.binary_cross_entropy_with_logits(logits, labels)
