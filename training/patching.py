"""Multimodal patching: between a network as it was and as a modality has tuned it.

``theta = alpha theta_tuned + (1 - alpha) theta_before`` for every tensor, with the alpha that is
best on held-out data. Modalities are patched in one after the other, or all at once by their
differences.

Source:
    Sastry et al., "TaxaBind" (WACV 2025), §3.3; Ilharco et al., "Patching open-vocabulary models
    by interpolating weights" (NeurIPS 2022), Eq. 1 and §6 (sequential, parallel).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from generation.errors import ConfigError

ALPHAS = tuple(np.linspace(0, 1, 10).tolist())
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Patch:
    """What was chosen."""

    weights: Weights
    alpha: float
    scores: tuple[float, ...]
    """Of each of the alphas, in their order."""


def interpolated(before: Weights, tuned: Weights, alpha: float) -> dict[str, Tensor]:
    """Give the weights between two; whole numbers are those of before.

    Raises:
        ConfigError: The two are of different networks.
    """
    _same(before, tuned)
    return {
        name: value if not value.is_floating_point() else (1 - alpha) * value + alpha * tuned[name]
        for name, value in before.items()
    }


def patched(
    before: Weights,
    tuned: Weights,
    score: Callable[[Weights], float],
    alphas: Sequence[float] = ALPHAS,
) -> Patch:
    """Choose the alpha with the greatest score on held-out data; of equals the smallest."""
    scores = tuple(score(interpolated(before, tuned, alpha)) for alpha in alphas)
    best = int(np.argmax(scores))
    return Patch(interpolated(before, tuned, alphas[best]), float(alphas[best]), scores)


def sequential(
    before: Weights,
    tune: Mapping[str, Callable[[Weights], Weights]],
    score: Callable[[Weights], float],
    alphas: Sequence[float] = ALPHAS,
) -> dict[str, Patch]:
    """Patch modality after modality, each tuned from what the last one left.

    Args:
        before: The network as it was.
        tune: For each modality, what tunes weights with it.
        score: Of weights, on held-out data.
        alphas: What is tried.
    """
    found, weights = {}, before
    for name, step in tune.items():
        found[name] = patched(weights, step(weights), score, alphas)
        weights = found[name].weights
    return found


def parallel(
    before: Weights,
    tuned: Sequence[Weights],
    score: Callable[[Weights], float],
    alphas: Sequence[float] = ALPHAS,
) -> Patch:
    """Patch all modalities at once: each was tuned by itself, and their differences are added up.

    Raises:
        ConfigError: There is none, or they are of different networks.
    """
    if not tuned:
        raise ConfigError("nothing was tuned (give the weights of one modality or more)")
    for each in tuned:
        _same(before, each)
    moved = {
        name: value + sum(each[name] - value for each in tuned)
        if value.is_floating_point()
        else value
        for name, value in before.items()
    }
    return patched(before, moved, score, alphas)


def _same(before: Weights, tuned: Weights) -> None:
    differ = before.keys() ^ tuned.keys() or {
        name for name in before if before[name].shape != tuned[name].shape
    }
    if differ:
        raise ConfigError(
            f"the weights are of different networks: {', '.join(sorted(differ)[:3])} (tune a copy "
            "of the one that is patched)"
        )
