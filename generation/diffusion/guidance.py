"""Guidance as a wrapper: a separate scale for each input.

The conditions are added one after the other, and each step away from nothing is stretched by its
own scale::

    v = v() + s_layout (v(L) - v()) + s_location (v(L,P) - v(L)) + s_text (v(L,P,T) - v(L,P))
            + s_sound (v(L,P,T,S) - v(L,P,T))

in the order of :data:`ORDER`; a condition whose scale is 0 is left out as if it were not given.

Collected by network evaluation this is a weighted sum whose weights vanish wherever two
neighbouring scales are equal, so equal scales cost two evaluations and scales of one cost one.

Source:
    Ho and Salimans, "Classifier-free diffusion guidance" (2022), Eq. 6; the chain follows Brooks
    et al., "InstructPix2Pix" (2023), Eq. 3, with more links. Interval: Kynkäänniemi et al.,
    "Applying guidance in a limited interval" (2024), Eq. 5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

ORDER: tuple[str, ...] = (
    *("layout", "location", "climate", "habitat", "style"),
    *("text", "sound", "satellite", "views"),
)
"""The order in which conditions are added."""
Velocity = Float[Tensor, "batch channels rows cols"]


@dataclass(frozen=True, slots=True)
class GuidanceScales:
    """How strongly each condition pulls; one is the plain conditional model."""

    layout: float = 1.0
    location: float = 1.0
    text: float = 1.0
    sound: float = 1.0
    satellite: float = 1.0
    views: float = 1.0
    climate: float = 1.0
    habitat: float = 1.0
    style: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    """Shares of noise between which guidance acts; elsewhere the plain model is used."""

    def terms(
        self, given: frozenset[str], noise_share: float
    ) -> list[tuple[frozenset[str], float]]:
        """List which conditions to evaluate with and the weight of each evaluation.

        Args:
            given: The conditions that the render has.
            noise_share: 1 at the start of sampling, 0 at its end.

        Returns:
            Pairs of a subset of ``given`` and a weight that is not zero; the weights sum to one.
        """
        chain = [name for name in ORDER if name in given and getattr(self, name)]
        low, high = self.interval
        if not low <= noise_share <= high:
            return [(frozenset(chain), 1.0)]
        scales = [1.0, *(getattr(self, name) for name in chain), 0.0]
        weighted = ((frozenset(chain[:i]), a - b) for i, (a, b) in enumerate(pairwise(scales)))
        return [(subset, weight) for subset, weight in weighted if weight]


def guided(
    evaluate: Callable[[Sequence[frozenset[str]]], Sequence[Velocity]],
    terms: list[tuple[frozenset[str], float]],
) -> Velocity:
    """Sum the weighted evaluations.

    Args:
        evaluate: Gives the velocity under each of several subsets of conditions, in their order;
            asked once, so that it may evaluate them as one batch.
        terms: What :meth:`GuidanceScales.terms` lists.
    """
    velocities = evaluate([subset for subset, _ in terms])
    weighted = [
        velocity if weight == 1 else weight * velocity
        for velocity, (_, weight) in zip(velocities, terms, strict=True)
    ]
    return sum(weighted[1:], start=weighted[0])
