"""What predicted ranges are worth, for species and for genera that no training saw.

Beside the model: the mean range of the relatives that were learnt from, of the genus or else of the
family or the order; the model told the genus alone; ranges dealt out anew; and the mean of all
ranges, which knows no names. Intervals are 95 %, by bootstrap over genera.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from generation.checkpoint import load_part, sha256_file
from generation.console import Progress
from generation.encoders.range_encoder import RangeEncoder
from generation.encoders.ranges import RangeModel, logits
from generation.encoders.taxonomy import Taxonomy
from generation.errors import ConfigError
from training.evaluate_controls import Scores
from training.metrics import bootstrap, ratio
from training.range_metrics import CAP_KM, ProximityMetric, average_precision
from training.ranges_data import LEARNT, UNSEEN_GENUS, UNSEEN_SPECIES, Ranges, read_ranges

SIDES = {"unseen_species": UNSEEN_SPECIES, "unseen_genera": UNSEEN_GENUS}
MODEL = "model"
BESIDE = ("relatives", "genus_alone", "dealt", "all_ranges")
FIGURES = ("map", "pac_km", "commission_km", "omission_km")
YES, NO, UNKNOWN = "yes", "no", "no evidence"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a measurement of ranges is told."""

    ranges: Path
    traits: Path
    model: Path
    """A folder of weights."""
    limit: int = 400
    """Species of each side at most, evenly spread."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("limit", 4), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} is too few (give {least} or more)")


class RangeMaps:
    """A model on the cells of a grid, which it looks at once."""

    def __init__(self, folder: Path, ranges: Ranges) -> None:
        table = Taxonomy(ranges.taxa, (ranges.side == LEARNT).tolist())
        self.encoder = RangeEncoder(load_part(RangeModel, folder), table, folder)
        self.places = self.encoder.places(ranges.cells.latlon)

    def __call__(self, strings: list[str]) -> Float[np.ndarray, "taxa cells"]:
        """Say how likely each taxon is in each cell."""
        scores = logits(self.places, self.encoder.taxa(strings))
        return np.asarray(scores.sigmoid().T.numpy())


def measured(settings: Settings) -> tuple[dict[str, Any], Scores, Scores]:
    """Measure a model.

    Returns:
        The report without its command, the model's scores and the controls.

    Raises:
        TerrascapeError: The model or the ranges are not here, or do not go together.
    """
    ranges = read_ranges(settings.ranges, settings.traits)
    maps = RangeMaps(settings.model, ranges)
    metrics, controls, answers = Scores(), Scores(), dict[str, dict[str, str]]()
    for name, side in SIDES.items():
        rows = ranges.of(side)
        rows = rows[np.linspace(0, len(rows) - 1, min(settings.limit, len(rows))).astype(int)]
        figures = _figures(maps, ranges, rows, settings.seed, name)
        groups = np.unique([ranges.taxa[row][2] for row in rows], return_inverse=True)[1]
        _record(figures, groups, name, (metrics, controls), settings.seed)
        answers[name] = _answers(controls, name)
    report = {
        "task": "ranges",
        "model": maps.encoder.sha256,
        "data": {
            "files": {p.name: sha256_file(p) for p in (settings.ranges, settings.traits)},
            "learnt": int((ranges.side == LEARNT).sum()),
            **{name: int((ranges.side == side).sum()) for name, side in SIDES.items()},
        },
        "settings": {"limit": settings.limit, "seed": settings.seed, "cap_km": CAP_KM},
        "answers": answers,
    }
    return report, metrics, controls


def command_of(settings: Settings, model: str, out: Path) -> str:
    """Return the command line that gives this report."""
    words = ["terrascape", "evaluate", "ranges", "--ranges", f"DIR/{settings.ranges.name}"]
    words += ["--traits", f"DIR/{settings.traits.name}"]
    words += ["--model", "DIR" if Path(model).is_dir() else model]
    words += ["--limit", f"{settings.limit}", "--seed", f"{settings.seed}", "--out", out.name]
    return shlex.join(words)


def lines(report: dict[str, Any], metrics: Scores, controls: Scores) -> list[str]:
    """Put a report into lines for people."""
    told = []
    for name in SIDES:
        for figure in ("map", "pac_km"):
            beside = ", ".join(
                f"{each.replace('_', ' ')} {controls.values[f'{name}/{figure}_{each}']:.3g}"
                for each in BESIDE
            )
            told.append(
                f"{name.replace('_', ' ')}, {figure}: {metrics.values[f'{name}/{figure}']:.3g} "
                f"({beside}); better than the relatives: {report['answers'][name][figure]}"
            )
    return told


def relatives(ranges: Ranges, row: int) -> Float[np.ndarray, " cells"]:
    """Give the mean range of the nearest relatives that were learnt from."""
    learnt = ranges.of(LEARNT)
    for depth in (3, 2, 1):
        same = [each for each in learnt if ranges.taxa[each][:depth] == ranges.taxa[row][:depth]]
        if same:
            return np.asarray(ranges.present[same].mean(axis=0))
    return np.asarray(ranges.present[learnt].mean(axis=0))


def _figures(
    maps: RangeMaps, ranges: Ranges, rows: Int[np.ndarray, " n"], seed: int, name: str
) -> dict[str, Float[np.ndarray, "n figures"]]:
    metric = ProximityMetric(ranges.cells.latlon)
    every = ranges.present[ranges.of(LEARNT)].mean(axis=0)
    partner = np.roll(np.random.default_rng(seed).permutation(len(rows)), 1)
    progress, found = Progress(name.replace("_", " ")), []
    for number, row in enumerate(rows.tolist()):
        other = rows[partner[number]]
        genus = " ".join(ranges.taxa[row][:3])
        own, alone, dealt = maps([ranges.names[row], genus, ranges.names[other]])
        beside = (relatives(ranges, row), alone, dealt, every)
        guesses = dict(zip((MODEL, *BESIDE), (own, *beside), strict=True))
        present = ranges.present[row]
        found.append([_scored(metric, guess, present) for guess in guesses.values()])
        progress(number + 1, len(rows))
    table = np.array(found)
    return {guess: table[:, at] for at, guess in enumerate((MODEL, *BESIDE))}


def _scored(
    metric: ProximityMetric, p: Float[np.ndarray, " cells"], present: Bool[np.ndarray, " cells"]
) -> tuple[float, float, float, float]:
    far = metric(p, present)
    precision = average_precision(p, present)
    return precision, far.cost_km, far.commission_km, far.omission_km


def _record(
    figures: dict[str, Float[np.ndarray, "n figures"]],
    groups: Int[np.ndarray, " n"],
    name: str,
    scores: tuple[Scores, Scores],
    seed: int,
) -> None:
    metrics, controls = scores

    def mean(values: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
        return bootstrap(np.stack([values, np.ones(len(values))], 1), groups, ratio, seed=seed)

    for at, figure in enumerate(FIGURES):
        metrics.add(f"{name}/{figure}", *mean(figures[MODEL][:, at]))
        for beside in BESIDE:
            controls.add(f"{name}/{figure}_{beside}", *mean(figures[beside][:, at]))
        apart = figures[MODEL][:, at] - figures["relatives"][:, at]
        controls.add(f"{name}/{figure}_less_relatives", *mean(apart))


def _answers(controls: Scores, name: str) -> dict[str, str]:
    """Say whether the model beats the relatives, for certain."""
    told = {}
    for figure, better in (("map", 1), ("pac_km", -1)):
        low, high = controls.intervals[f"{name}/{figure}_less_relatives"]
        sides = sorted((better * low, better * high))
        told[figure] = YES if sides[0] > 0 else NO if sides[1] < 0 else UNKNOWN
    return told
