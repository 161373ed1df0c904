"""What real ones get on the card of plausibility: measured, and kept beside what judges."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from generation.atomic import atomic_path
from generation.pipelines.plausibility import FLOOR

QUANTILES = (0.05, 0.5, 0.95)


def quantiles(figures: Mapping[str, Float[Tensor, " _n"]]) -> dict[str, list[float]]:
    """Give the 5th, 50th and 95th percentile of each figure."""
    marks = torch.tensor(QUANTILES)
    return {
        name: [round(value, 4) for value in each.quantile(marks).tolist()]
        for name, each in figures.items()
    }


def write_floor(floor: Mapping[str, list[float]], folder: Path) -> None:
    """Put it beside a model, where the card of plausibility reads it."""
    with atomic_path(folder / FLOOR) as temporary:
        temporary.write_text(json.dumps(dict(floor), indent=2) + "\n", encoding="utf-8")
