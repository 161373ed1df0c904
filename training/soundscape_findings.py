"""What a measurement of sounds found, and what a score comes to when kinds are dealt anew."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from training.evaluate_controls import Scores
from training.ranks import SHARE
from training.soundscape_cases import COPY, MADE
from training.soundscape_metrics import Labels, Sounds, balanced_mean

DEALS = 200
_INTERVAL_IN_ERRORS = 2 * 1.96
"""Standard errors from end to end of a 95 % interval of a normal law."""
Order = Int[np.ndarray, " n"]


@dataclass(slots=True)
class Findings:
    """Scores, their controls, and tables that are more than a score each."""

    metrics: Scores = field(default_factory=Scores)
    controls: Scores = field(default_factory=Scores)
    tables: dict[str, Any] = field(default_factory=dict)
    sounds: dict[str, Sounds] = field(default_factory=dict)

    def add(self, name: str, made: str, *value: float) -> None:
        """Record a score of a set; of what the model made its name leads, of others it follows."""
        of, copy = made.removesuffix(COPY), made.endswith(COPY)
        if made in MADE:
            self.metrics.add(f"{made}/{name}", *value)
        else:
            self.controls.add(f"{of}/{name}{COPY}" if copy else f"{name}_{made}", *value)

    def beside(self, name: str, made: str, deals: Float[np.ndarray, " deals"]) -> None:
        """Record what a score comes to with kinds dealt anew, and how far it stands above that.

        The distance is in standard errors, those of the score and of the deals put together; there
        is none where neither varies.
        """
        score, ends = f"{made}/{name}", np.percentile(deals, [2.5, 97.5]).tolist()
        self.controls.add(f"{score}_shuffled", float(deals.mean()), *ends)
        low, high = self.metrics.intervals.get(score, (0.0, 0.0))
        error = float(np.hypot((high - low) / _INTERVAL_IN_ERRORS, deals.std()))
        value = self.metrics.values[score]
        known = value is not None and error > 0
        apart = (value - float(deals.mean())) / error if known and value is not None else np.nan
        self.metrics.add(f"{score}_above_shuffled", float(apart))


@dataclass(frozen=True, slots=True)
class Way:
    """One way of looking for what a sound was asked with."""

    ranks: Float[np.ndarray, "n answers"]
    asked: Order
    """The right answer of each row."""
    within: float
    """The rank up to which it counts as found."""

    @classmethod
    def tenth(cls, ranks: Float[np.ndarray, "n answers"], asked: Order | None = None) -> "Way":
        """Count what is among the best tenth; each row is its own answer unless told."""
        right = np.arange(len(ranks)) if asked is None else asked
        return cls(ranks, right, max(1.0, float(SHARE * ranks.shape[1] // 1)))

    def hits(self, order: Order | None = None) -> Bool[np.ndarray, " n"]:
        """Say what is found, or would be, had the rows been asked for in another order."""
        asked = self.asked if order is None else self.asked[order]
        return np.asarray(self.ranks[np.arange(len(asked)), asked] <= self.within)

    def dealt(self, labels: Labels, seed: int) -> Float[np.ndarray, " deals"]:
        """Give the share that is found with rows dealt anew, mean over kinds, deal by deal."""

        def share(order: Order) -> float:
            return balanced_mean(self.hits(order), labels[order])

        return dealt(len(labels), share, seed)

    @property
    def chance(self) -> float:
        """What guessing finds."""
        return self.within / self.ranks.shape[1]


def ranked(scores: Float[np.ndarray, "n answers"]) -> Float[np.ndarray, "n answers"]:
    """Rank all answers of each row, 1 the best; those that score the same share their ranks."""
    better = (scores[:, None] > scores[:, :, None]).sum(2)
    equal = (scores[:, None] == scores[:, :, None]).sum(2)
    return np.asarray(better + (equal + 1) / 2)


def dealt(
    count: int, score: Callable[[Order], float], seed: int, rounds: int = DEALS
) -> Float[np.ndarray, " rounds"]:
    """Score so many orders of rows, each drawn at random."""
    rng = np.random.default_rng(seed)
    return np.array([score(rng.permutation(count)) for _ in range(rounds)])
