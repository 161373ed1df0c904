"""Losses of range models. Each is the mean of what it says over a batch.

``seen`` are the scores of all taxa of a batch where one of them was seen, ``which`` says which one,
and ``elsewhere`` are scores at places drawn anywhere; nobody knows who lives there.

Source:
    Cole et al., "Spatial implicit neural representations for global-scale species mapping" (SINR,
    ICML 2023), Eqs. 2-4; Zhou et al., "Acknowledging the unknown for multi-label learning with
    single positive labels" (ECCV 2022), for the forms that maximise entropy.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

SEEN_WEIGHT = 2048.0
"""Of the one taxon that was seen against all that were not."""
_TINY = 1e-5
Scores = Float[Tensor, "batch taxa"]
Which = Int[Tensor, " batch"]


def _cost(p: Tensor) -> Tensor:
    return -(p + _TINY).log()


def _absent(p: Tensor, *, entropy: bool) -> Tensor:
    """Cost of a place where nobody looked: its absence, or that one is sure of anything."""
    if entropy:
        return -(p * _cost(p) + (1 - p) * _cost(1 - p))
    return _cost(1 - p)


def an_full(
    seen: Scores, which: Which, elsewhere: Scores, *, entropy: bool = False
) -> Float[Tensor, ""]:
    """Take every other taxon as absent where one was seen, and all of them elsewhere."""
    p, away = seen.sigmoid(), elsewhere.sigmoid()
    own = which[:, None]
    costs = _absent(p, entropy=entropy)
    costs = costs.scatter(1, own, SEEN_WEIGHT * _cost(p.gather(1, own)))
    return costs.mean() + _absent(away, entropy=entropy).mean()


def an_ssdl(
    seen: Scores, which: Which, elsewhere: Scores, *, entropy: bool = False
) -> Float[Tensor, ""]:
    """Same species, different location: each against itself at a place drawn anywhere."""
    own = which[:, None]
    here, away = (each.sigmoid().gather(1, own) for each in (seen, elsewhere))
    return _cost(here).mean() + _absent(away, entropy=entropy).mean()


def an_slds(
    seen: Scores, which: Which, _elsewhere: Scores, *, entropy: bool = False
) -> Float[Tensor, ""]:
    """Same location, different species: each against another one that is drawn."""
    p, taxa = seen.sigmoid(), seen.shape[1]
    step = torch.randint(1, max(taxa, 2), which.shape, device=which.device)
    other = ((which + step) % taxa)[:, None]
    return (
        _cost(p.gather(1, which[:, None])).mean()
        + _absent(p.gather(1, other), entropy=entropy).mean()
    )


def asymmetric(
    scores: Scores,
    present: Scores,
    *,
    gamma_present: float = 1.0,
    gamma_absent: float = 4.0,
    margin: float = 0.05,
    hill: float | None = None,
) -> Float[Tensor, ""]:
    """Let easy absences count little, and those below a margin not at all.

    Args:
        scores: Before the sigmoid.
        present: What is there, 0 or 1.
        gamma_present: How little easy presences count.
        gamma_absent: The same for absences.
        margin: Below this likelihood an absence costs nothing.
        hill: See :func:`robust_asymmetric`; without it no absence counts less for being doubted.

    Source:
        Ridnik et al., "Asymmetric loss for multi-label classification" (ASL, ICCV 2021), Eqs. 4-7.
    """
    p = scores.sigmoid()
    shifted = (p - margin).clamp_min(0)
    there = present * (1 - p) ** gamma_present * F.logsigmoid(scores)
    away = (1 - present) * shifted**gamma_absent * (1 - shifted).clamp_min(_TINY).log()
    if hill is not None:
        away = (hill - p) * away
    return -(there + away).mean()


def robust_asymmetric(scores: Scores, present: Scores, *, hill: float = 1.5) -> Float[Tensor, ""]:
    """Let absences of which the model is most sure that they are wrong count less as well.

    The cost of an absence is multiplied by ``hill - p``, so that a likely presence that nobody
    recorded pulls less.

    Source:
        Park et al., "Robust asymmetric loss for multi-label long-tailed learning" (RAL, ICCV
        workshops 2023), its Hill term; the Taylor terms are left out.
    """
    return asymmetric(scores, present, hill=hill)


def surveyed(
    own: Float[Tensor, "taxa places"],
    elsewhere: Float[Tensor, "taxa cells"],
    present: Float[Tensor, "taxa cells"],
    cell_weight: Float[Tensor, " cells"],
    share: Float[Tensor, " taxa"],
) -> Float[Tensor, ""]:
    """Give the cross-entropy over the globe where whole ranges are known, by samples of cells.

    Cells of the own range stand for that range, cells drawn anywhere for where the taxon is not.
    A taxon counts by the inverse of its share of the globe, so that all ranges count alike,
    however small.

    Args:
        own: Scores at cells of each taxon's own range.
        elsewhere: Scores at drawn cells, the same for all.
        present: Whether each taxon lives in those, 0 or 1.
        cell_weight: Share of the globe that each drawn cell stands for.
        share: Of the globe that each taxon lives in.
    """
    there = F.softplus(-own).mean(1)
    away = ((1 - present) * F.softplus(elsewhere) * cell_weight).sum(1) / share
    return (there + away).mean()
