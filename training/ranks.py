"""How high a right answer stands: ranks, recalls and the controls beside them.

Row ``i`` of the queries belongs to row ``i`` of the gallery. A rank of one is the best; answers
that score the same share the mean of their ranks, so that an encoder that says the same of
everything stands in the middle, not on top.
"""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from generation.encoders.heads import Embedding, likeness
from generation.errors import ConfigError
from training.metrics import bootstrap, group_codes, group_draws, ratio

Ranks = Float[np.ndarray, " n"]
Rule = Literal["inclusive", "mvrl"]
"""``inclusive``: found within k means a rank of k or better. ``mvrl``: better than k, with k as a
fraction of the gallery left as it is, so that perfect embeddings have a recall at one of zero."""
AT = (1, 5, 10)
SHARE = 0.1
_TILE, _STEP = 1024, 64
"""Rows and columns that are compared at a time, so that their scores stay near the processor."""
_ROUNDS = 500


@torch.no_grad()
def both_ranks(one: Embedding, other: Embedding) -> tuple[Ranks, Ranks]:
    """Rank each row's partner on the other side among all of that side, both ways at once.

    A product of all pairs is taken tile by tile, once for both directions. Tiles are filled up to
    one size: products of one shape round alike, so that equal answers tie wherever they stand.

    Raises:
        ConfigError: The two do not belong together row by row, or hold less than two rows.
    """
    count = len(one)
    if count != len(other) or count < 2:
        raise ConfigError(
            f"{count} queries and a gallery of {len(other)} have no ranks (give two or more of "
            "each, row by row)"
        )
    side = math.ceil(count / math.ceil(count / _TILE) / _STEP) * _STEP
    starts = range(0, count, side)
    squares = {start: _tile(one, other, start, start, side) for start in starts}
    own = torch.cat([scores.diagonal() for scores in squares.values()])
    ahead = own.new_zeros((2, count), dtype=torch.float64)  # the better less the worse
    for row in starts:
        rows = slice(row, row + side)
        for col in starts:
            cols = slice(col, col + side)
            scores = squares[row] if row == col else _tile(one, other, row, col, side)
            ahead[0, rows] += _signs(scores, own[rows, None]).sum(1, dtype=torch.float32)
            ahead[1, cols] += _signs(scores, own[cols]).sum(0, dtype=torch.float32)
    # the better and half of the equal, itself among them, and a half
    first, second = ((count + 1 + ahead) / 2).cpu().numpy()
    return first, second


def ranks(queries: Embedding, gallery: Embedding) -> Ranks:
    """Rank each query's own answer among the whole gallery, as :func:`both_ranks` does."""
    return both_ranks(queries, gallery)[0]


def _tile(
    one: Embedding, other: Embedding, row: int, col: int, side: int
) -> Float[Tensor, "rows cols"]:
    """Compare some rows of each; near the end a tile is filled up from the start, then cut."""
    count, span = len(one), torch.arange(side, device=one.vector.device)
    scores = likeness(one[(span + row) % count], other[(span + col) % count])
    scores = scores[: count - row, : count - col]
    if not bool(torch.stack(scores.aminmax()).isfinite().all()):
        raise ConfigError(f"queries {row} and on have scores that are no numbers")
    return scores


def _signs(
    scores: Float[Tensor, "rows cols"], own: Float[Tensor, "#rows #cols"] | Float[Tensor, " cols"]
) -> Float[Tensor, "rows cols"]:
    """Say of each score whether it is better (1), equal (0) or worse (-1)."""
    return (scores - own).sign_()


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
