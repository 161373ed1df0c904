"""How high a right answer stands: ranks, recalls and the controls beside them.

Row ``i`` of the queries belongs to row ``i`` of the gallery. A rank of one is the best; answers
that score the same share the mean of their ranks, so that an encoder that says the same of
everything stands in the middle, not on top.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from generation.encoders.heads import Embedding, likeness
from generation.errors import ConfigError
from training.metrics import bootstrap, group_codes, group_draws, ratio

Ranks = Float[np.ndarray, " n"]
Rule = Literal["inclusive", "mvrl"]
"""``inclusive``: found within k means a rank of k or better. ``mvrl``: better than k, with k as a
fraction of the gallery left as it is, so that perfect embeddings have a recall at one of zero."""
AT = (1, 5, 10)
SHARE = 0.1
_BLOCK = 512
_ROUNDS = 500


@torch.no_grad()
def ranks(queries: Embedding, gallery: Embedding) -> Ranks:
    """Rank each query's own answer among the whole gallery, some hundred queries at a time.

    Raises:
        ConfigError: The two do not belong together row by row, or hold less than two rows.
    """
    count = len(queries)
    if count != len(gallery) or count < 2:
        raise ConfigError(
            f"{count} queries and a gallery of {len(gallery)} have no ranks (give two or more of "
            "each, row by row)"
        )
    found = []
    for start in range(0, count, _BLOCK):
        rows = slice(start, min(start + _BLOCK, count))
        scores = likeness(queries[rows], gallery)
        if not bool(scores.isfinite().all()):
            raise ConfigError(f"queries {start} and on have scores that are no numbers")
        own = scores[torch.arange(len(scores)), torch.arange(rows.start, rows.stop)][:, None]
        better, same = (scores > own).sum(1), (scores == own).sum(1)
        found.append(better + (same + 1) / 2)
    return torch.cat(found).double().cpu().numpy()


def recall(found: Ranks, k: float, rule: Rule = "inclusive") -> Ranks:
    """Say of each query whether its answer was found within the first ``k``."""
    return (found < k if rule == "mvrl" else found <= k).astype(np.float64)


def within(count: int, rule: Rule = "inclusive") -> dict[str, float]:
    """Name the depths that recalls are taken at, the last being a tenth of the gallery."""
    tenth = SHARE * count
    depths = {f"recall_at_{k}": float(k) for k in AT}
    return {**depths, "recall_at_10_percent": tenth if rule == "mvrl" else max(1.0, tenth // 1)}


def summary(
    found: Ranks, cells: Int[np.ndarray, " n"], *, seed: int = 0, rule: Rule = "inclusive"
) -> dict[str, tuple[float, float, float]]:
    """Give each recall and the median rank, with 95 % intervals.

    Args:
        found: What :func:`ranks` gave.
        cells: Which queries are no independent witnesses; the bootstrap draws whole cells.
        seed: Of the bootstrap.
        rule: What counts as found.
    """
    table = {}
    for name, k in within(len(found), rule).items():
        hits = np.stack([recall(found, k, rule), np.ones(len(found))], 1)
        table[name] = bootstrap(hits, cells, ratio, seed=seed)
    return {**table, "median_rank": _median(found, cells, seed)}


def _median(found: Ranks, cells: Int[np.ndarray, " n"], seed: int) -> tuple[float, float, float]:
    """Bootstrap the median: in each round a rank counts as often as its cell was drawn."""
    order = np.argsort(found, kind="stable")
    drawn = group_draws(cells, _ROUNDS, seed)[:, group_codes(cells)[order]]
    below = drawn.cumsum(1)
    middle = (below < below[:, -1:] / 2).sum(1)
    low, high = np.percentile(found[order][middle], [2.5, 97.5])
    return float(np.median(found)), float(low), float(high)


def chance(count: int, rule: Rule = "inclusive") -> dict[str, float]:
    """Give what guessing reaches in a gallery of so many."""
    every = np.arange(1.0, count + 1)
    table = {name: float(recall(every, k, rule).mean()) for name, k in within(count, rule).items()}
    return {**table, "median_rank": (count + 1) / 2}
