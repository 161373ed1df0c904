"""What a space of life is worth at places and for species that no training saw.

At real tiles of held-out blocks every species that was learnt from is ranked by its name against
the tile's image, its place, its environment, or several of them together; average precision over
who does live there. Species that were not learnt from are asked the other way round: how often a
tile where one lives ranks before one where it does not (area under the curve). Controls: the tile
or the name of another (shuffled), the most widespread first (prior), and who lives at the nearest
tile of training (neighbour).
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from generation.checkpoint import sha256_file
from generation.encoders.life_encoder import LifeEncoder, load_life
from generation.encoders.life_space import ENVIRONMENT, LOCATION, SATELLITE
from generation.encoders.retrieval import distances_km
from generation.encoders.retrieval_model import load_retrieval
from training.data import list_files
from training.evaluate_controls import Scores
from training.evaluate_tiles import Tiles, partners, read_tiles
from training.metrics import bootstrap, ratio
from training.range_metrics import average_precision
from training.ranges_data import LEARNT, UNSEEN_GENUS, UNSEEN_SPECIES, Ranges, read_ranges
from training.style_samples import nearest_cells

_BLOCK_DEG = 10
WAYS = {
    SATELLITE: (SATELLITE,),
    LOCATION: (LOCATION,),
    ENVIRONMENT: (ENVIRONMENT,),
    "satellite_location": (SATELLITE, LOCATION),
    "all": (SATELLITE, LOCATION, ENVIRONMENT),
}
SIDES = {"unseen_species": UNSEEN_SPECIES, "unseen_genera": UNSEEN_GENUS}
_LEAST_TILES = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a measurement of a space of life is told."""

    data: str
    """Pattern of Parquet files of real tiles that no training saw."""
    ranges: Path
    traits: Path
    model: str = "taxabind-nano"
    seed: int = 0


def measured(settings: Settings) -> tuple[dict[str, Any], Scores, Scores]:
    """Measure a model.

    Returns:
        The report without its command, the scores and the controls.

    Raises:
        TerrascapeError: The model or the data are not here, or are damaged.
    """
    files = list_files(settings.data)
    tiles, life = read_tiles(files, seed=settings.seed), load_life(settings.model)
    ranges = read_ranges(settings.ranges, settings.traits)
    latlon = torch.tensor(
        [(w.center.lat, w.center.lon) for w in tiles.windows], dtype=torch.float32
    )
    seen = {
        SATELLITE: life.satellite(tiles.images),
        LOCATION: life.location(latlon),
        ENVIRONMENT: life.environment(latlon),
    }
    lives = ranges.present[:, nearest_cells(ranges, latlon)]  # (species, tiles)
    metrics, controls = Scores(), Scores()
    _who(settings, tiles, life, ranges, seen, lives, latlon, (metrics, controls))
    for name, side in SIDES.items():
        _where(settings, life, ranges, seen, lives, (name, side), (metrics, controls))
    report = {
        "task": "taxabind",
        "model": life.sha256,
        "data": {
            "files": {f.name: sha256_file(f) for f in (*files, settings.ranges, settings.traits)},
            "tiles": len(tiles),
            "learnt": int((ranges.side == LEARNT).sum()),
        },
        "settings": {"seed": settings.seed},
    }
    return report, metrics, controls


def _who(
    settings: Settings,
    tiles: Tiles,
    life: LifeEncoder,
    ranges: Ranges,
    seen: Mapping[str, Tensor],
    lives: Bool[np.ndarray, "species tiles"],
    latlon: Float[Tensor, "tiles 2"],
    scores: tuple[Scores, Scores],
) -> None:
    """Rank the species learnt from at each tile."""
    rows = ranges.of(LEARNT)
    names = life.text([ranges.names[row] for row in rows])
    truth, groups = lives[rows], tiles.cells(_BLOCK_DEG)
    dealt = partners(groups, settings.seed)
    metrics, controls = scores

    def add(into: Scores, name: str, guess: Float[np.ndarray, "tiles species"]) -> None:
        each = [
            average_precision(guess[at], truth[:, at])
            for at in range(len(groups))
            if truth[:, at].any()
        ]
        kept = groups[truth.any(0)]
        table = np.stack([each, np.ones(len(each))], 1)
        into.add(name, *bootstrap(table, kept, ratio, seed=settings.seed))

    for way, parts in WAYS.items():
        guess = (life.together({part: seen[part] for part in parts}) @ names.T).numpy()
        add(metrics, f"who/{way}", guess)
        add(controls, f"who/{way}_shuffled", guess[dealt])
    widespread = ranges.present[rows].mean(1)
    add(controls, "who/prior", np.broadcast_to(widespread, (len(groups), len(rows))))
    add(controls, "who/neighbour", _neighbours(ranges, rows, latlon) + 1e-3 * widespread)


def _neighbours(
    ranges: Ranges, rows: Int[np.ndarray, " n"], latlon: Float[Tensor, "tiles 2"]
) -> Float[np.ndarray, "tiles n"]:
    """Say who lives at the nearest tile of training."""
    learnt = load_retrieval().encoder.database.latlon
    nearest = learnt[distances_km(latlon, learnt).argmin(1)]
    return ranges.present[rows][:, nearest_cells(ranges, nearest)].T.astype(float)


def _where(
    settings: Settings,
    life: LifeEncoder,
    ranges: Ranges,
    seen: Mapping[str, Tensor],
    lives: Bool[np.ndarray, "species tiles"],
    side: tuple[str, int],
    scores: tuple[Scores, Scores],
) -> None:
    """Rank the tiles for each species that was not learnt from; with less than two, score none."""
    name, number = side
    rows = ranges.of(number)
    counts = lives[rows].sum(1)
    rows = rows[(counts >= _LEAST_TILES) & (counts <= lives.shape[1] - _LEAST_TILES)]
    if len(rows) < 2:
        return
    names = life.text([ranges.names[row] for row in rows])
    groups = np.unique([ranges.taxa[row][2] for row in rows], return_inverse=True)[1]
    dealt = np.roll(np.random.default_rng(settings.seed).permutation(len(rows)), 1)
    metrics, controls = scores
    for way, parts in WAYS.items():
        guess = (names @ life.together({part: seen[part] for part in parts}).T).numpy()
        for into, ending, said in ((metrics, "", guess), (controls, "_shuffled", guess[dealt])):
            each = [area(said[at], lives[row]) for at, row in enumerate(rows)]
            table = np.stack([each, np.ones(len(each))], 1)
            into.add(
                f"where/{name}_{way}{ending}", *bootstrap(table, groups, ratio, seed=settings.seed)
            )


def area(scores: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> float:
    """Give the area under the curve of true against false positives.

    Source:
        Mann and Whitney (1947): the share of pairs that are in the right order, ties counting half.
    """
    from scipy.stats import rankdata

    positives, negatives = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(scores)[truth].sum() - positives * (positives + 1) / 2
    return float(ranks / (positives * negatives))


def command_of(settings: Settings, out: Path) -> str:
    """Return the command line that gives this report."""
    words = ["terrascape", "evaluate", "taxabind", "--data", f"DIR/{Path(settings.data).name}"]
    words += ["--ranges", f"DIR/{settings.ranges.name}", "--traits", f"DIR/{settings.traits.name}"]
    words += ["--model", settings.model, "--seed", f"{settings.seed}", "--out", out.name]
    return shlex.join(words)


def lines(metrics: Scores, controls: Scores) -> list[str]:
    """Put a report into lines for people."""
    told = [
        f"{name}: {value:.3f} (shuffled {controls.values[f'{name}_shuffled']:.3f})"
        for name, value in metrics.values.items()
    ]
    beside = ", ".join(f"{n} {controls.values[f'who/{n}']:.3f}" for n in ("prior", "neighbour"))
    return [*told, f"who lives here, without the model: {beside}"]
