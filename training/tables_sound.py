"""The tables of what is heard: shared spaces, steering by sounds, soundscapes."""

from collections.abc import Mapping, Sequence
from typing import Any

_WAYS = (
    ("satellite → sound", "image_to_audio"),
    ("sound → satellite", "audio_to_image"),
    ("text → satellite", "text_to_image"),
    ("text → sound", "text_to_audio"),
    ("sound → text", "audio_to_text"),
)
_BESIDE = (
    ("shuffled", "shuffled"),
    ("without place and time", "without_metadata"),
    ("ceiling", "ceiling"),
)
_SOUNDSCAPE_SCORES = (
    ("named right by the tagger", "accuracy"),
    ("kernel distance, tagger's features (lower is better)", "kad_tagger"),
    ("kernel distance, shared space (lower is better)", "kad_shared"),
    ("kind found again in the shared space", "kind_recall_at_1"),
)

_GROUND = "from_place/ground_told"
_LOOPS = ("from_caption/loop_{}_within", "loop_{}_within_unlooped", "loop_{}_within_real")


def rows_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table: its head, then its rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sound(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Make the table of several ``terrascape evaluate sound``, a row for each space and way."""

    def percent(value: float | None) -> str:
        return "none" if value is None else f"{value:.0%}"

    rows = []
    for name, report in reports.items():
        metrics, controls, spans = (report[k] for k in ("metrics", "controls", "intervals"))
        for label, way in _WAYS:
            key = f"{way}/recall_at_10_percent"
            low, high = spans[key]
            beside = "; ".join(
                f"{what} {percent(controls[f'{key}_{suffix}'])}"
                for what, suffix in _BESIDE
                if f"{key}_{suffix}" in controls
            )
            score = f"{percent(metrics[key])} ({percent(low)} to {percent(high)})"
            rows.append((name, label, score, beside))
    head = ("space", "way", "recall at 10 % (95 %)", "controls")
    data = next(iter(reports.values()))["data"]
    return rows_of(head, rows) + (
        f"\n{data['pairs']} pairs of {data['test_clips']} clips and of tiles in blocks that no "
        "training saw; chance is 10 %. Where the\nclips are heard is simulated "
        "(location_source=simulated).\n"
    )


def steering(report: Mapping[str, Any]) -> str:
    """Put in a few sentences what ``terrascape evaluate steering`` found."""
    metrics, controls = report["metrics"], report["controls"]
    each = sorted((value, name.partition("/")[2]) for name, value in metrics.items() if "/" in name)
    listed = ", ".join(f"{name} {value:.2f}" for value, name in reversed(each))
    steered, judge = report["sound_model"]["name"], report["judge"]["name"]
    count, own = report["data"]["pictures"], metrics["sound_contrast"]
    real, anew = (controls[f"sound_contrast_{name}"] for name in ("real", "shuffled"))
    return (
        f"A picture that `{steered}` steered towards a sound is more like the words for it than\n"
        f"one for another sound in {own:.0%} of all comparisons, as `{judge}` judges, which\n"
        f"did not steer ({count} pictures for unseen clips, told nothing else). Real tiles: "
        f"{real:.0%};\nsounds dealt out anew: {anew:.0%}; chance: 50%. By sound:\n{listed}.\n"
    )


def soundscape(report: Mapping[str, Any]) -> str:
    """Make the table of ``terrascape evaluate soundscape``, each score beside its controls."""
    values = {**report["controls"], **report["metrics"]}

    def shown(key: str) -> str:
        return f"{values[key]:.2f}" if values.get(key) is not None else ""

    columns = {
        "model, like a recording": "from_recording/{score}",
        "model, from a caption": "from_caption/{score}",
        "real, held out": "{score}_real",
        "the same through codec and vocoder": "{score}_vocoded",
        "nearest copy of what was learnt from": "from_caption/{score}_copy",
        "asked for another kind": "from_caption/{score}_shuffled",
        "noise": "{score}_noise",
    }
    rows = [
        (label, *(shown(key.format(score=score)) for key in columns.values()))
        for label, score in _SOUNDSCAPE_SCORES
    ]
    data = report["data"]
    return rows_of(("score", *columns), rows) + (
        f"\nOn {data['held_out']} held-out recordings; the tagger is a network of its own that "
        f"learns from the\n{data['learnt']} others.\n" + _places(report, values) + _loops(values)
    )


def _places(report: Mapping[str, Any], values: Mapping[str, float]) -> str:
    places = report["tables"].get("places")
    if places is None:
        return ""

    def listed(shares: Mapping[str, float | int], of: int) -> str:
        most = sorted(shares.items(), key=lambda each: -each[1])[:3]
        return ", ".join(f"{name} {share / of:.0%}" for name, share in most)

    rows = [
        (
            name,
            f"{each['tiles']}",
            listed(each["captions"], each["tiles"]),
            listed(each["tagger"], 1),
        )
        for name, each in places.items()
    ]
    return (
        "\n"
        + rows_of(("ground", "tiles", "first caption found", "the tagger says"), rows)
        + "\nFrom what the tagger says alone, the ground is told in "
        f"{values[_GROUND]:.0%} of these held-out tiles\n"
        f"({values[f'{_GROUND}_shuffled']:.0%} with grounds dealt anew).\n"
    )


def _loops(values: Mapping[str, float]) -> str:
    told = {
        part: [values.get(name.format(part)) for name in _LOOPS] for part in ("spectrum", "level")
    }
    if None in told["spectrum"] + told["level"]:
        return ""
    own, plain, real = (
        " and ".join(f"{told[part][n]:.0%}" for part in told) for n in range(len(_LOOPS))
    )
    return (
        f"\nThe step over a loop's end is no larger than 95 % of its other steps, in spectrum and "
        f"in level,\nin {own} of loops (95 % would be of any moment; asked for without a loop "
        f"{plain},\nrecordings cut at five seconds {real}).\n"
    )
