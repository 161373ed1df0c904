"""Losses that recipes share: functions of scores or of embeddings, each with its equation.

Contrastive losses take whole batches: row ``i`` of one side belongs to row ``i`` of the other, and
every other row is a negative. Across processes the embeddings are gathered before.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from generation.encoders.heads import Embedding, gaussian_distance, unit
from generation.errors import ConfigError

Scores = Sequence[Float[Tensor, "_batch 1 _rows _cols"]]
"""What a discriminator says of every patch, a map for each scale."""


def discriminator_hinge(real: Scores, drawn: Scores) -> Float[Tensor, ""]:
    """Ask that real patches score above one and drawn ones below minus one.

    Each scale has the same say, however many patches it has, and so has each side, however many
    images it has.

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


MAX_LOG_SCALE = math.log(100)
MAX_BOTTLENECK = 1e4
Square = Float[Tensor, "batch batch"]


def clamped_scale(log_scale: Float[Tensor, ""], least: float = 0.0) -> Float[Tensor, ""]:
    """Give the inverse temperature that a learned logarithm stands for, at most 100.

    Source:
        Radford et al., "Learning transferable visual models from natural language supervision"
        (2021), §2.5. GeoCLAP's code also keeps the logarithm above 1 (``least=1``), where its
        text speaks of a scale of 1.
    """
    return log_scale.clamp(least, MAX_LOG_SCALE).exp()


def info_nce(
    a: Float[Tensor, "batch dim"], b: Float[Tensor, "batch dim"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Ask each row to find its partner among all, in both directions.

    Args:
        a: Vectors of any length; their directions count.
        b: Their partners.
        scale: Inverse temperature.

    Source:
        Radford et al. (2021), Fig. 3; Khanal et al. (GeoCLAP, 2023).

    Raises:
        ConfigError: A batch of one has no negatives.
    """
    return labelled(scale * unit(a) @ unit(b).T, None)


def one_way_info_nce(
    given: Float[Tensor, "batch dim"],
    targets: Float[Tensor, "_more dim"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Ask each row to find its partner among targets that no gradient reaches.

    ``targets`` begins with the partners in order; what follows, say a queue of earlier targets, is
    more to be told from.

    Source:
        Dhakal et al., "GeoBind" (IGARSS 2024); the queue: He et al., "Momentum contrast"
        (2020), §3.2, as in Sat2Cap.
    """
    if len(targets) < 2:
        _refuse(len(targets))
    logits = scale * unit(given) @ unit(targets.detach()).T
    return F.cross_entropy(logits, torch.arange(len(given), device=logits.device))


def labelled(logits: Square, labels: Square | None) -> Float[Tensor, ""]:
    """Give the mean cross-entropy of rows and of columns against labels, by default the diagonal.

    Labels need not sum to one: Sat2Sound adds what looks right to what is right.

    Source:
        Khanal et al., "Sat2Sound" (2025), as in its code.
    """
    if len(logits) < 2:
        _refuse(len(logits))
    if labels is None:
        labels = torch.eye(len(logits), device=logits.device, dtype=logits.dtype)
    rows = -(labels * logits.log_softmax(1)).sum(1).mean()
    columns = -(labels * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


def pseudo_positives(scores: Square) -> Bool[Tensor, "batch batch"]:
    """Find what fits a row at least as well as its partner does.

    Source:
        Chun, "Improved probabilistic image-text representations" (PCME++, 2024).
    """
    return scores >= scores.diagonal()[:, None]


def gaussian_loss(
    a: Embedding,
    b: Embedding,
    slope: Float[Tensor, ""],
    offset: Float[Tensor, ""],
    *,
    pseudo: float = 0.1,
    bottleneck: float = 1e-4,
) -> Float[Tensor, ""]:
    """Ask of all pairs of Gaussians whether they belong together.

    Args:
        a: Gaussians.
        b: Their partners.
        slope: Learned; a pair's logit is ``offset - slope * distance``.
        offset: Learned.
        pseudo: Weight of taking what fits as well as a partner for one.
        bottleneck: Weight of keeping near the standard normal law.

    Source:
        Chun (PCME++, 2024), with the weights and the sums of PSM's code: twice the
        cross-entropy of the pairs, and that of pseudo-positives from either side.
    """
    if len(a) < 2:
        _refuse(len(a))
    logits = offset - slope * gaussian_distance(a, b)
    matches = torch.eye(len(logits), device=logits.device, dtype=logits.dtype)
    loss = 2 * F.binary_cross_entropy_with_logits(logits, matches)
    for side in (logits, logits.T):
        also = torch.maximum(matches, pseudo_positives(side.detach()).to(logits.dtype))
        loss = loss + pseudo * F.binary_cross_entropy_with_logits(side, also)
    return loss + bottleneck * (_bottleneck(a) + _bottleneck(b))


def _bottleneck(gaussians: Embedding) -> Float[Tensor, ""]:
    """Give the mean divergence from the standard normal law; one that has blown up is let go.

    Source:
        Alemi et al., "Deep variational information bottleneck" (2017).
    """
    log_variance = gaussians.log_variance
    if log_variance is None:
        raise ConfigError("a point has no variance (this loss needs the Gaussian head)")
    divergence = 0.5 * (gaussians.vector.square() + log_variance.exp() - 1 - log_variance).mean()
    return torch.where(divergence > MAX_BOTTLENECK, torch.zeros_like(divergence), divergence)


def pooled_loss(
    parts: Sequence[Float[Tensor, "batch dim"]], scales: Sequence[Float[Tensor, ""]]
) -> Float[Tensor, ""]:
    """Give the mean of the contrastive loss over all pairs of modalities.

    Args:
        parts: Vectors of the same samples in each modality.
        scales: Inverse temperatures of the pairs, in the order of ``itertools.combinations``.

    Source:
        Khanal et al. (GeoCLAP, 2023).
    """
    pairs = list(combinations(parts, 2))
    terms = [info_nce(a, b, scale) for (a, b), scale in zip(pairs, scales, strict=True)]
    return torch.stack(terms).mean()


def softened_loss(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    scale: Float[Tensor, ""],
    *,
    pseudo: float = 0.1,
) -> Float[Tensor, ""]:
    """Add to the contrastive loss the same against labels that hold pseudo-positives.

    Source:
        Khanal et al. (Sat2Sound, 2025), as in its code.
    """
    logits = scale * unit(a) @ unit(b).T
    eye = torch.eye(len(logits), device=logits.device, dtype=logits.dtype)
    also = torch.maximum(eye, pseudo_positives(logits.detach()).to(logits.dtype))
    return labelled(logits, eye) + pseudo * labelled(logits, also)


def codebook_loss(
    image: Float[Tensor, "batch dim"],
    audio: Float[Tensor, "batch dim"],
    caption: Float[Tensor, "batch dim"],
    image_caption: Float[Tensor, "batch dim"] | None,
    scales: Sequence[Float[Tensor, ""]],
    *,
    pseudo: float = 0.1,
    described: float = 1.0,
) -> Float[Tensor, ""]:
    """Bind image, sound and words; the image also to sound and words together, and to its caption.

    Args:
        image: Mixtures of codes, not scaled to unit length.
        audio: Of the sounds.
        caption: Of what is said of the sounds.
        image_caption: Of what is said of the images, where anything is.
        scales: Inverse temperatures: image-audio, image-caption, audio-caption, image-both,
            image-image caption.
        pseudo: Weight of pseudo-positives.
        described: Weight of the image's own caption.

    Source:
        Khanal et al. (Sat2Sound, 2025), as in its code.
    """
    pairs = ((image, audio), (image, caption), (audio, caption))
    three = [
        softened_loss(a, b, s, pseudo=pseudo) for (a, b), s in zip(pairs, scales, strict=False)
    ]
    loss = torch.stack(three).mean()
    loss = loss + softened_loss(image, audio + caption, scales[3], pseudo=pseudo)
    if image_caption is not None:
        loss = loss + described * softened_loss(image, image_caption, scales[4], pseudo=pseudo)
    return loss


def _refuse(count: int) -> None:
    raise ConfigError(
        f"a batch of {count} has nothing to tell a pair from (give loop.batch_size 2 or more)"
    )
