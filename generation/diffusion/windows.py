"""Windows around a circle, which shift from step to step: as much as one likes at a fixed size."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def circular_windows(
    columns: int, width: int, shift: int, *, overlap: float
) -> tuple[Int[Tensor, "windows width"], Float[Tensor, "windows width"]]:
    """Lay windows evenly around a circle.

    A circle that is shorter than a window goes around in it more than once.

    Args:
        columns: Columns of the circle.
        width: Of a window.
        shift: Where the first one begins.
        overlap: Share of a window that it has in common with the next, at least; 0 to below 1.

    Returns:
        Which columns each window sees, and how much its answer counts in each of them: less towards
        the ends of a window, above zero everywhere.
    """
    count = 1 if columns <= width else math.ceil(columns / (width * (1 - overlap)))
    starts = shift + torch.arange(count) * columns / count
    index = (starts.floor().long()[:, None] + torch.arange(width)) % columns
    slope = max(1.0, width * overlap)
    inside = torch.arange(width) + 0.5
    weight = torch.minimum(inside, width - inside).div(slope).clamp(max=1.0)
    return index, weight.expand(count, width)


def joined(
    answers: Float[Tensor, "windows *batch width"],
    index: Int[Tensor, "windows width"],
    weight: Float[Tensor, "windows width"],
    columns: int,
) -> Float[Tensor, "*batch columns"]:
    """Give the weighted mean of the windows' answers in every column of the circle.

    Args:
        answers: What each window says of the columns that it sees.
        index: What :func:`circular_windows` gives.
        weight: The same.
        columns: Columns of the circle.
    """
    sums = answers.new_zeros(*answers.shape[1:-1], columns)
    for answer, where, counts in zip(answers, index, weight, strict=True):
        sums.index_add_(-1, where, answer * counts)
    return sums / weight.new_zeros(columns).index_add(0, index.flatten(), weight.flatten())
