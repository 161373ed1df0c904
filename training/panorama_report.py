"""The report on a model of panoramas: scores, curves, paired differences and verdicts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from generation.checkpoint import sha256_file
from generation.console import Progress
from generation.errors import ConfigError
from generation.pipelines.panorama import PanoramaPipeline
from generation.registry import find, locate
from training.evaluate_controls import Scores
from training.evaluate_panorama import Findings, PanoramaTest, heading_error
from training.metrics import bootstrap, ratio
from training.panorama_cases import BEYOND_KM, BINS_KM, bin_name
from training.panorama_data import MAX_VIEWS, ViewSet, open_sets
from training.panorama_metrics import BASES, GROUND, METRICS, higher_is_better
from training.panorama_sheet import save_sheet

CONTROLS = {
    "copy": "copy",
    "blend": "blend",
    "satellite_only": "views_0",
    "views_only": "views_only",
    "wrong_satellite": "wrong_satellite",
    "wrong_satellite_only": "wrong_satellite_only",
    "wrong_views": "wrong_views",
    "nothing": "nothing",
    "draft": "draft",
    "codec": "codec",
    "real": "real",
}
"""Name of a control in the report -> its table."""
BEYOND = f"beyond_{BEYOND_KM:g}"
YES, NO, UNKNOWN = "yes", "no", "no evidence"
LEAST_SETS = 5
"""Fewer sets tell nothing of others: one alone would have an interval without width."""
MOST_SEAM = 1.5
MOST_HEADING = 1e-5
JUDGED = tuple(f"{base}{part}" for part in ("", GROUND) for base in BASES[:3])
"""Scores that differences are judged by; the seam has a bound of its own."""
_PAIRS = {
    "one_view_minus_copy": ("one_view", "copy"),
    "three_views_minus_copy": ("three_views", "copy"),
    "three_views_minus_blend": ("three_views", "blend"),
}
_STEPS = {
    **{f"{n + 1}_minus_{n}_views": (f"views_{n + 1}", f"views_{n}") for n in range(MAX_VIEWS)},
    **{f"{n + 1}_minus_{n}_drawn_views": (f"any_{n + 1}", f"any_{n}") for n in range(MAX_VIEWS)},
    f"{MAX_VIEWS}_minus_0_views": (f"views_{MAX_VIEWS}", "views_0"),
    "right_minus_wrong_satellite": ("views_3", "wrong_satellite"),
    "right_minus_wrong_satellite_only": ("views_0", "wrong_satellite_only"),
    "right_minus_wrong_views": ("views_3", "wrong_views"),
    "with_minus_without_satellite": ("views_3", "views_only"),
    "finished_minus_draft": ("views_3", "draft"),
}

Summary = dict[str, dict[str, float | int | None]]
Table = Float[np.ndarray, "n metrics"]


def summary(table: Table, groups: Int[np.ndarray, " n"], seed: int = 0) -> Summary:
    """Give mean, 95 % interval and count of each score; rows without it do not count.

    There is no interval below ``LEAST_SETS`` sets.
    """
    return {
        name: _mean(column, groups, seed) for name, column in zip(METRICS, table.T, strict=True)
    }


def _mean(
    values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"], seed: int
) -> dict[str, float | int | None]:
    kept = np.isfinite(values)
    if not kept.any():
        return {"mean": None, "low": None, "high": None, "panoramas": 0}
    rows = np.stack([values[kept], np.ones(int(kept.sum()))], 1)
    point, low, high = bootstrap(rows, groups[kept], ratio, seed=seed)
    enough = len(np.unique(groups[kept])) >= LEAST_SETS
    return {
        "mean": point,
        "low": low if enough else None,
        "high": high if enough else None,
        "panoramas": int(kept.sum()),
    }


class Digest:
    """What findings come to."""

    def __init__(self, found: Findings, *, seed: int = 0) -> None:
        self.found, self.seed = found, seed
        self.groups = np.array([case.number for case in found.cases])
        self.absent = np.full((len(found.cases), len(METRICS)), np.nan)

    def table(self, name: str) -> Table:
        """Give the scores of a name; all NaN where no case had it."""
        return self.found.tables.get(name, self.absent)

    def metrics(self) -> Scores:
        """Give the scores of panoramas drawn from the nearest three."""
        return self._scores("", f"views_{MAX_VIEWS}")

    def controls(self) -> Scores:
        """Give the scores of everything else, named after the score."""
        scores = Scores()
        for name, table in CONTROLS.items():
            scores.update(self._scores(f"_{name}", table))
        return scores

    def _scores(self, suffix: str, table: str) -> Scores:
        scores = Scores()
        for name, told in summary(self.table(table), self.groups, self.seed).items():
            value = told["mean"]
            if value is not None:
                scores.add(f"{name}{suffix}", value, told["low"], told["high"])
            else:
                scores.values[f"{name}{suffix}"] = None
        return scores

    def curves(self) -> dict[str, Any]:
        """Give the scores over the number of panoramas, and over the distance of the nearest."""
        views, drawn = (
            {
                str(n): summary(self.table(f"{kind}_{n}"), self.groups, self.seed)
                for n in range(MAX_VIEWS + 1)
            }
            for kind in ("views", "any")
        )
        distance = {}
        for low, high in BINS_KM:
            name = bin_name(low, high)
            near = [c.within(low, high) for c in self.found.cases if (low, high) in c.bins]
            km = [found[1] for found in near if found is not None]
            distance[name] = {
                "nearest_km": float(np.mean(km)) if km else None,
                **{
                    kind: summary(self.table(f"{kind}/{name}"), self.groups, self.seed)
                    for kind in ("one_view", "three_views", "copy", "blend")
                },
            }
        return {"views": views, "drawn_views": drawn, "distance": distance}

    def differences(self) -> dict[str, Any]:
        """Give paired differences of panoramas of one target, first minus second."""
        told: dict[str, Any] = {}
        for name, (first, second) in _PAIRS.items():
            parts = {
                bin_name(*edges): self.table(f"{first}/{bin_name(*edges)}")
                - self.table(f"{second}/{bin_name(*edges)}")
                for edges in BINS_KM
            }
            told[name] = {key: summary(rows, self.groups, self.seed) for key, rows in parts.items()}
            far = [parts[bin_name(*edges)] for edges in BINS_KM if edges[0] >= BEYOND_KM]
            groups = np.tile(self.groups, len(far))
            told[name][BEYOND] = summary(np.concatenate(far), groups, self.seed)
        for name, (first, second) in _STEPS.items():
            rows = self.table(first) - self.table(second)
            told[name] = summary(rows, self.groups, self.seed)
        return told


def better(metric: str, told: Mapping[str, float | int | None]) -> str:
    """Tell whether a difference is an improvement, by which side of zero its interval lies on."""
    low, high = told["low"], told["high"]
    if low is None or high is None or not np.isfinite([low, high]).all():
        return UNKNOWN
    if not higher_is_better(metric):
        low, high = -high, -low
    return YES if low > 0 else NO if high < 0 else UNKNOWN


def _worst(verdicts: Sequence[str]) -> str:
    return next((v for v in (NO, UNKNOWN) if v in verdicts), YES)


def verdicts(report: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Answer what the model is asked to reach: question -> score -> yes, no or no evidence.

    Yes over several bins, or several steps, needs a yes in each.
    """
    apart = report["differences"]
    bins = [bin_name(*edges) for edges in BINS_KM if edges[0] >= BEYOND_KM]

    def over(name: str, keys: Sequence[str]) -> dict[str, str]:
        return {m: _worst([better(m, apart[name][k][m]) for k in keys]) for m in JUDGED}

    def of(*names: str) -> dict[str, str]:
        return {m: _worst([better(m, apart[name][m]) for name in names]) for m in JUDGED}

    beyond = f"beyond {BEYOND_KM:g} km"
    answers = {
        f"one panorama given: better than its copy in every bin {beyond}": over(
            "one_view_minus_copy", bins
        ),
        f"three given: better than a copy of the nearest in every bin {beyond}": over(
            "three_views_minus_copy", bins
        ),
        f"three given: better than their blend in every bin {beyond}": over(
            "three_views_minus_blend", bins
        ),
        f"better with each further panorama, 0 to {MAX_VIEWS}, the nearest first": of(
            *(f"{n + 1}_minus_{n}_views" for n in range(MAX_VIEWS))
        ),
        f"better with each further panorama, 0 to {MAX_VIEWS}, in an order of chance": of(
            *(f"{n + 1}_minus_{n}_drawn_views" for n in range(MAX_VIEWS))
        ),
        f"better with {MAX_VIEWS} panoramas than with none": of(f"{MAX_VIEWS}_minus_0_views"),
        "three given: better with the right satellite image than with a wrong one": of(
            "right_minus_wrong_satellite"
        ),
        "none given: better with the right satellite image than with a wrong one": of(
            "right_minus_wrong_satellite_only"
        ),
        "three given: better than with those of another place": of("right_minus_wrong_views"),
    }
    turned = report["heading_equivariance"]
    answers[f"seam at most {MOST_SEAM} of other steps"] = {
        key: UNKNOWN if value is None else YES if value <= MOST_SEAM else NO
        for key in ("seam_ratio", "border_ratio")
        for value in (report["metrics"][key],)
    }
    answers[f"turns with its heading to {MOST_HEADING:g}"] = {
        key: YES if turned[key] <= MOST_HEADING else NO
        for key in ("max_abs_velocity", "max_abs_latents")
    }
    return answers


def lines(report: Mapping[str, Any]) -> list[str]:
    """Put a report's verdicts into lines for people."""
    told = []
    for question, answers in report["verdicts"].items():
        by_answer: dict[str, list[str]] = {}
        for metric, answer in answers.items():
            by_answer.setdefault(answer, []).append(metric)
        said = "; ".join(f"{answer} ({', '.join(of)})" for answer, of in by_answer.items())
        told.append(f"{question}? {said}")
    for key, what in (
        ("seam_ratio", "step over the edge to all others"),
        ("border_ratio", "the same, to those over other borders of patches"),
    ):
        beside = ", ".join(
            f"{name} {_shown(report['controls'][f'{key}_{name}'], '.2f')}"
            for name in ("copy", "codec", "real")
        )
        told.append(f"{what}: {_shown(report['metrics'][key], '.2f')} ({beside})")
    turned = report["heading_equivariance"]
    told.append(
        f"another heading changes velocities by at most {turned['max_abs_velocity']:.1e}, and "
        f"latents up to {turned['largest_latent']:.0f} by {turned['max_abs_latents']:.1e}"
    )
    return told


def _shown(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


def measured(
    data: str,
    model: Path | str,
    *,
    limit: int,
    targets: int,
    steps: int,
    seed: int,
    batch: int,
    sheet: Path | None = None,
) -> tuple[dict[str, object], Scores, Scores]:
    """Measure a model; :func:`lines` puts the verdicts of the report into words.

    Args:
        data: A pattern of Parquet files of sets, or a CSV file of real panoramas.
        model: A name of the registry, or a folder of weights.
        limit: Sets at most.
        targets: Targets of each set.
        steps: Steps of the sampler.
        seed: Chooses noise and intervals.
        batch: Panoramas drawn at once.
        sheet: Where a contact sheet is written, if anywhere.

    Returns:
        The report without its command, the model's scores and the controls.
    """
    if isinstance(model, str) and find(model).kind != "panorama":
        raise ConfigError(f"{model} draws no panoramas (see `terrascape models`)")
    pipeline = PanoramaPipeline.from_pretrained(locate(model) if isinstance(model, str) else model)
    files, sets = open_sets(data, pipeline.views.band)
    test = PanoramaTest(
        pipeline, sets, limit=limit, targets=targets, steps=steps, seed=seed, batch=batch
    )
    found = test.measure(Progress("panoramas", every_s=30.0))
    digest = Digest(found, seed=seed)
    metrics, controls = digest.metrics(), digest.controls()
    report: dict[str, Any] = {
        "task": "panorama",
        "data": {**_described(files, sets, found), "pattern": Path(data).name},
        "model": pipeline.sha256,
        "feature_network": {
            "name": "EfficientNet-Lite0",
            "sha256": sha256_file(test.ruler.weights),
        },
        "settings": {"seed": seed, "steps": steps, "noise": "one seed for each target"},
        "curves": digest.curves(),
        "differences": digest.differences(),
        "heading_equivariance": heading_error(pipeline, test.some_surroundings(), steps=steps),
        "metrics": metrics.values,
        "controls": controls.values,
    }
    report["verdicts"] = verdicts(report)
    if sheet is not None:
        save_sheet(found, sheet, report["data"]["label"])
    return report, metrics, controls


def _described(
    files: Sequence[Path], sets: Sequence[ViewSet], found: Findings
) -> dict[str, object]:
    """Say what was measured on; rendered sets say so in every row."""
    import pyarrow.parquet as pq

    labels, splits = ["panoramas of a table"], ["not stated"]
    if files[0].suffix.lower() != ".csv":
        told = [pq.read_table(file, columns=["source", "split"]).to_pydict() for file in files]
        labels, splits = (
            sorted({v for part in told for v in part[k]}) for k in ("source", "split")
        )
    numbers = sorted({case.number for case in found.cases})
    return {
        "files": {file.name: sha256_file(file) for file in files},
        "sets": len(numbers),
        "targets": sum(case.full for case in found.cases),
        "label": ", ".join(labels),
        "split": ", ".join(splits),
        "first_set": sets[numbers[0]].name,
        "last_set": sets[numbers[-1]].name,
    }
