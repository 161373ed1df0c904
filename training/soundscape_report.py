"""The report on a model of soundscapes: scores beside their controls, and answers."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generation.checkpoint import sha256_file
from generation.errors import ConfigError
from generation.pipelines.soundscape import SoundscapePipeline
from generation.registry import find, locate
from training.data import list_files
from training.evaluate_controls import Scores
from training.evaluate_soundscape import measure
from training.sound_tagger import DEPTH, FEATURES, MEL
from training.soundscape_cases import MADE, Settings, SoundscapeCases
from training.soundscape_data import read_waves
from training.soundscape_findings import Findings
from training.soundscape_hours import DAWN_H, NIGHT_H, WITHIN_H
from training.soundscape_loops import OWN, WITHIN
from training.soundscape_metrics import INDICES
from training.soundscape_places import PLACE, TOLD
from training.soundscape_sheet import save_sheet

YES, NO, UNKNOWN = "yes", "no", "no evidence"
LEAST_ACCURACY = 0.6
"""Of what the tagger names right in held-out recordings."""
MOST_ERRORS = 3.0
"""Standard errors that a score must stand above kinds dealt anew."""
LEAST_NEAREST = 0.9
"""Of how far held-out recordings lie from the nearest piece that was learnt from."""
NOTES = (
    "The tagger has no part in making sounds and learns from the learning side alone; recordings "
    "of that side, and so the copies, it names better than it could name new ones.",
    "The shared space conditions the model: what is found again in it is faithful to the ask, "
    "which is not to say that it sounds real.",
    "Features are standardised by the learning side, so distances compare with the controls "
    "beside them and with no published figure; those of Fréchet are too large for so few sounds.",
    "The recordings of dawn and night are of both sides: hours are learnt from the same day.",
    "With kinds dealt anew the sounds are the same: each is held against the ask of another.",
)
Answers = dict[str, dict[str, str]]


def measured(settings: Settings) -> tuple[dict[str, Any], Scores, Scores]:
    """Measure a model; :func:`lines` puts the answers of the report into words.

    Returns:
        The report without its command, the model's scores and the controls.

    Raises:
        TerrascapeError: The model, its shared space or the recordings are not here, or do not go
            together.
    """
    folder = Path(settings.model)
    if not folder.is_dir():
        if find(settings.model).kind != "soundscape":
            raise ConfigError(f"{settings.model} makes no sounds (see `terrascape models`)")
        folder = locate(settings.model)
    pipeline = SoundscapePipeline.from_pretrained(folder)
    encoder = pipeline.encoder()
    learnt, held = (
        read_waves(settings.clips, settings.day, rate=MEL.rate, test=test) for test in (False, True)
    )
    cases = SoundscapeCases(pipeline, encoder, learnt, held, settings)
    found = measure(cases, [wave for wave in (*learnt, *held) if wave.clip.hour is not None])
    report: dict[str, Any] = {
        "task": "soundscape",
        "kind": "soundscape",
        "data": _described(cases),
        "model": pipeline.sha256,
        "space": {"name": encoder.name, "sha256": encoder.sha256},
        "features": {
            "tagger": f"{FEATURES} features that the tagger's last layer reads, trained in this "
            f"run from spectrograms of {MEL.bands} bands, {20 * DEPTH / 2.302585:.0f} dB deep",
            "shared": f"embeddings of {encoder.name}, of unit length",
        },
        "settings": {
            "seed": settings.seed,
            "seconds": settings.seconds,
            "steps": settings.steps,
            "guidance": settings.guidance,
            "tagger_steps": settings.tagger_steps,
            "hour_seeds": settings.hour_seeds,
            "loop_seeds": settings.loop_seeds,
            "dawn_hour": DAWN_H,
            "night_hour": NIGHT_H,
            "within_hours": WITHIN_H,
        },
        "tables": found.tables,
        "answers": answers(found),
        "notes": list(NOTES),
        "metrics": found.metrics.values,
        "controls": found.controls.values,
        "intervals": {**found.controls.intervals, **found.metrics.intervals},
    }
    if settings.sheet is not None:
        save_sheet(cases, found, settings.sheet)
    return report, found.metrics, found.controls


def _described(cases: SoundscapeCases) -> dict[str, Any]:
    """Say what was measured on."""
    settings = cases.settings
    files = {
        file.name if part == "clips" else f"day/{file.name}": sha256_file(file)
        for part in ("clips", "day")
        for file in list_files(getattr(settings, part))
    }
    return {
        "files": files,
        "kinds": {
            name: {
                "held_out": int((cases.labels == number).sum()),
                "learnt": int((cases.learnt_labels == number).sum()),
            }
            for number, name in enumerate(cases.kinds)
        },
        "held_out": len(cases.held),
        "uploads": len(set(cases.groups.tolist())),
        "learnt": len(cases.learnt),
    }


def command_of(settings: Settings, out: Path) -> str:
    """Return the command line that gives this report."""
    words = ["terrascape", "evaluate", "soundscape"]
    for name in ("clips", "day"):
        words += [f"--{name}", f"DIR/{Path(getattr(settings, name)).name}"]
    words += ["--model", "DIR" if Path(settings.model).is_dir() else settings.model]
    if settings.tiles is not None:
        words += ["--tiles", "TILES", "--pairs", "PAIRS"]
    numbers = ("limit", "seconds", "steps", "guidance", "seed", "tagger_steps")
    for name in (*numbers, "hour_seeds", "loop_seeds"):
        value = getattr(settings, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", f"{value:g}"]
    return shlex.join([*words, "--out", out.name])


def answers(found: Findings) -> Answers:
    """Answer what a model is asked to reach: question -> score -> yes, no or no evidence.

    A tagger that does not name real recordings better than chance is no evidence.
    """
    values = found.metrics.values

    def least(name: str, limit: float) -> str:
        value = values.get(name)
        return UNKNOWN if value is None else YES if value >= limit else NO

    names = [f"{made}/accuracy_over_real" for made in MADE]
    lowest = found.controls.intervals.get("accuracy_real", (0.0, 0.0))[0]
    hears = lowest > (found.controls.values["accuracy_chance"] or 0.0)
    ratio = {name: least(name, LEAST_ACCURACY) if hears else UNKNOWN for name in names}
    above = {
        name: least(name, MOST_ERRORS)
        for name in values
        if name.endswith("_above_shuffled") and "recall" in name
    }
    nearer = {
        name: UNKNOWN if value is None else YES if value <= -MOST_ERRORS else NO
        for name, value in values.items()
        if name.endswith("_above_shuffled") and "kad" in name
    }
    new = {name: least(name, LEAST_NEAREST) for name in values if "nearest_ratio_" in name}
    return {
        f"an independent tagger names {LEAST_ACCURACY:.0%} or more of what it names in real "
        "recordings": ratio,
        f"found again, over {MOST_ERRORS:g} standard errors above kinds dealt anew": above,
        f"nearer to recordings of its kind, by over {MOST_ERRORS:g} standard errors, than with "
        "kinds dealt anew": nearer,
        "dawn differs from night as in the recordings": _hours(found),
        "sea, forest and city are told apart by the tagger, over "
        f"{MOST_ERRORS:g} standard errors above grounds dealt anew": {
            name: least(f"{name}_above_shuffled", MOST_ERRORS) for name in (f"{PLACE}/{TOLD}",)
        },
        "the step over a loop's end is within its own steps, as often as any other is": {
            name: _as_often(found, name) for name in (f"{MADE[1]}/{n}" for n in WITHIN.values())
        },
        f"as far as {LEAST_NEAREST:.0%} of held-out recordings or farther from what was learnt "
        "from": new,
    }


def _as_often(found: Findings, name: str) -> str:
    """Tell whether a share may be what it would be for any moment."""
    ends = found.metrics.intervals.get(name)
    return UNKNOWN if ends is None else YES if ends[1] >= OWN else NO


def _hours(found: Findings) -> dict[str, str]:
    """Tell where what was made moves to the side that the recordings move to, each for certain."""
    told = {}
    for made in MADE:
        for index in INDICES:
            own = found.metrics.intervals.get(f"{made}/dawn_less_night/{index}")
            real = found.controls.intervals.get(f"dawn_less_night/{index}_real")
            sides = [side(ends) for ends in (own, real)]
            answer = UNKNOWN if 0 in sides else YES if sides[0] == sides[1] else NO
            told[f"{made}/{index}"] = answer
    return told


def side(ends: tuple[float, float] | None) -> int:
    """Tell on which side of zero an interval lies: 1, -1, or 0 if it holds zero or is absent."""
    if ends is None:
        return 0
    return 1 if ends[0] > 0 else -1 if ends[1] < 0 else 0


def lines(report: Mapping[str, Any]) -> list[str]:
    """Put a report into lines for people: answers, and the scores that they rest on."""
    told = []
    for question, each in report["answers"].items():
        by_answer: dict[str, list[str]] = {}
        for name, answer in each.items():
            by_answer.setdefault(answer, []).append(name)
        said = "; ".join(f"{answer} ({', '.join(of)})" for answer, of in by_answer.items())
        told.append(f"{question}? {said}")
    for name in ("accuracy", "kad_tagger", "kad_shared", "kind_recall_at_1"):
        made = ", ".join(
            f"{m.replace('_', ' ')} {_shown(report, f'{m}/{name}', 'metrics')}" for m in MADE
        )
        beside = ", ".join(
            f"{part} {_shown(report, key, 'controls')}"
            for part, key in (
                ("real", f"{name}_real"),
                ("vocoded", f"{name}_vocoded"),
                ("learnt from", f"{name}_learnt"),
                ("copy", f"{MADE[1]}/{name}_copy"),
                ("dealt anew", f"{MADE[1]}/{name}_shuffled"),
                ("noise", f"{name}_noise"),
            )
            if key in report["controls"]
        )
        told.append(f"{name}: {made} ({beside})")
    return told


def _shown(report: Mapping[str, Any], name: str, part: str) -> str:
    value = report[part].get(name)
    if value is None:
        return "none"
    ends = report["intervals"].get(name)
    return f"{value:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")
