"""Losses that recipes share: functions of scores or of embeddings, each with its equation.

Contrastive losses take whole batches: row ``i`` of one side belongs to row ``i`` of the other, and
every other row is a negative, unless ``alike`` says that nothing tells the two apart. Across
processes the embeddings are gathered before.
"""

import math
from collections.abc import Sequence
from functools import partial
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
Alike = Bool[Tensor, "batch batch"]
"""Which rows and columns are the same in kind: no row is asked to be told from these."""
_NEVER = -1e4
"""The logit of what is not asked about."""


def clamped_scale(log_scale: Float[Tensor, ""], least: float = 0.0) -> Float[Tensor, ""]:
    """Give the inverse temperature that a learned logarithm stands for, at most 100.

    Source:
        Radford et al., "Learning transferable visual models from natural language supervision"
        (2021), §2.5. GeoCLAP's code also keeps the logarithm above 1 (``least=1``), where its
        text speaks of a scale of 1.
    """
    return log_scale.clamp(least, MAX_LOG_SCALE).exp()


def info_nce(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    scale: Float[Tensor, ""],
    alike: Alike | None = None,
) -> Float[Tensor, ""]:
    """Ask each row to find its partner among all, in both directions.

    Args:
        a: Vectors of any length; their directions count.
        b: Their partners.
        scale: Inverse temperature.
        alike: What is no negative.

    Source:
        Radford et al. (2021), Fig. 3; Khanal et al. (GeoCLAP, 2023). Leaving out what is alike:
        Huynh et al., "Boosting contrastive self-supervised learning with false negative
        cancellation" (WACV 2022), Eq. 3.

    Raises:
        ConfigError: A batch of one has no negatives.
    """
    return labelled(_asked(scale * unit(a) @ unit(b).T, alike), None)


def one_way_info_nce(
    given: Float[Tensor, "batch dim"],
    targets: Float[Tensor, "_more dim"],
    scale: Float[Tensor, ""],
    alike: Alike | None = None,
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
    count = len(given)
    logits = torch.cat([_asked(logits[:, :count], alike), logits[:, count:]], 1)
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
    alike: Alike | None = None,
) -> Float[Tensor, ""]:
    """Ask of all pairs of Gaussians whether they belong together.

    Args:
        a: Gaussians.
        b: Their partners.
        slope: Learned; a pair's logit is ``offset - slope * distance``.
        offset: Learned.
        pseudo: Weight of taking what fits as well as a partner for one.
        bottleneck: Weight of keeping near the standard normal law.
        alike: What is no negative; such pairs are not asked about.

    Source:
        Chun (PCME++, 2024), with the weights and the sums of PSM's code: twice the
        cross-entropy of the pairs, and that of pseudo-positives from either side.
    """
    if len(a) < 2:
        _refuse(len(a))
    logits = offset - slope * gaussian_distance(a, b)
    matches = torch.eye(len(logits), device=logits.device, dtype=logits.dtype)
    asked = torch.ones_like(matches) if alike is None else torch.maximum(matches, 1.0 - 1.0 * alike)

    def apart(side: Square, labels: Square) -> Tensor:
        each = F.binary_cross_entropy_with_logits(side, labels, reduction="none")
        return (each * asked).sum() / asked.sum()  # alike is symmetric

    loss = 2 * apart(logits, matches)
    for side in (logits, logits.T):
        also = torch.maximum(matches, pseudo_positives(side.detach()).to(logits.dtype))
        loss = loss + pseudo * apart(side, also)
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
    parts: Sequence[Float[Tensor, "batch dim"]],
    scales: Sequence[Float[Tensor, ""]],
    alike: Alike | None = None,
) -> Float[Tensor, ""]:
    """Give the mean of the contrastive loss over all pairs of modalities.

    Args:
        parts: Vectors of the same samples in each modality.
        scales: Inverse temperatures of the pairs, in the order of ``itertools.combinations``.
        alike: What is no negative.

    Source:
        Khanal et al. (GeoCLAP, 2023).
    """
    pairs = list(combinations(parts, 2))
    terms = [info_nce(a, b, scale, alike) for (a, b), scale in zip(pairs, scales, strict=True)]
    return torch.stack(terms).mean()


def softened_loss(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    scale: Float[Tensor, ""],
    *,
    pseudo: float = 0.1,
    alike: Alike | None = None,
) -> Float[Tensor, ""]:
    """Add to the contrastive loss the same against labels that hold pseudo-positives.

    Source:
        Khanal et al. (Sat2Sound, 2025), as in its code.
    """
    logits = _asked(scale * unit(a) @ unit(b).T, alike)
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
    alike: Alike | None = None,
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
        alike: What is no negative.

    Source:
        Khanal et al. (Sat2Sound, 2025), as in its code.
    """
    pairs = ((image, audio), (image, caption), (audio, caption))
    softened = partial(softened_loss, pseudo=pseudo, alike=alike)
    three = [softened(a, b, s) for (a, b), s in zip(pairs, scales, strict=False)]
    loss = torch.stack(three).mean()
    loss = loss + softened(image, audio + caption, scales[3])
    if image_caption is not None:
        loss = loss + described * softened(image, image_caption, scales[4])
    return loss


WINDOWS = (64, 128, 256, 512, 1024, 2048)
"""Samples of the spectra that sounds are compared by: from clicks to hums."""
Waves = Float[Tensor, "batch samples"]


def energy_distance(real: Waves, one: Waves, other: Waves) -> tuple[Tensor, Tensor]:
    """Compare a sound with two that were made of its spectrogram, and these with each other.

    Their distances to the real one are to be small and that between them large: the difference is
    least where all three are drawn from the same law. Asked for the first alone, noise comes out as
    a hum, which is nearer to every noise than another noise is.

    Args:
        real: As recorded.
        one: Made with some noise.
        other: Made with other noise.

    Returns:
        Twice the mean distance to the real one, and the distance between the two.

    Source:
        Gritsenko et al., "A spectral energy distance for parallel speech synthesis" (NeurIPS
        2020), Eq. 5 and 6.
    """
    size = real.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)
    attracted, repelled = real.new_zeros(()), real.new_zeros(())
    for width in WINDOWS:
        window = torch.hann_window(width, device=real.device)
        # A unit sound has unit power in each bin, whatever the window.
        unit_power = window.square().sum().sqrt()
        spectra = [
            torch.stft(each / size, width, width // 4, window=window, return_complex=True).abs()
            / unit_power
            for each in (real, one, other)
        ]
        logs = [(each + 1e-3).log() for each in spectra]

        def apart(a: int, b: int, spectra: list[Tensor], logs: list[Tensor]) -> Tensor:
            plain = (spectra[a] - spectra[b]).abs().mean()
            return plain + (logs[a] - logs[b]).square().mean(1).add(1e-8).sqrt().mean()

        attracted = attracted + apart(0, 1, spectra, logs) + apart(0, 2, spectra, logs)
        repelled = repelled + apart(1, 2, spectra, logs)
    return attracted / len(WINDOWS), repelled / len(WINDOWS)


def _asked(logits: Square, alike: Alike | None) -> Square:
    """Leave out what is no negative, but never a partner."""
    if alike is None:
        return logits
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return logits.masked_fill(alike & ~own, _NEVER)


def _refuse(count: int) -> None:
    raise ConfigError(
        f"a batch of {count} has nothing to tell a pair from (give loop.batch_size 2 or more)"
    )
