"""What the soundscape tab shows: what a place suggests, the sound to hear, and what it rests on."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from generation.media.artifact import Artifact
from generation.media.image import read_bytes
from generation.media.sound_files import FLAC, WAV
from generation.media.soundscape import SPECTROGRAM
from generation.registry import SIMULATED_NOTE, find
from generation.spec import DEFAULT_MODELS, RunSpec
from generation.studio.map_widget import place_text
from generation.studio.pictures import data_uri, png_uri
from generation.studio.plausible import card_html
from generation.studio.recall import latest
from generation.studio.soundscape_form import when_text
from generation.studio.soundscape_layers import origin_text
from generation.studio.stage import (
    BADGE,
    HISTORY,
    SOUND_BADGE,
    doing,
    facts_html,
    notes_html,
    page_words,
    progress_html,
    thumb_html,
)
from generation.studio.worker import Progress

if TYPE_CHECKING:
    from generation.pipelines.overhead import Overhead

_SHOWN = {"asked": "Asked for", "place": "Place"}
"""What a sound is compared with, and how that is called."""
_FILE_URL = "gradio_api/file="
"""Where the page finds a result, relative to itself."""


def empty_stage(absent: str = "") -> str:
    """Show what will be where, before the first sound.

    Args:
        absent: Why nothing can be made; empty if it can.
    """
    if absent:
        return _stage(_frame(None, "No sound can be made here"), refused_html(absent))
    model = DEFAULT_MODELS["soundscape"]
    learnt = f"{model} has {find(model).learnt}; {SIMULATED_NOTE}."
    frame = _frame(None, "Choose a place, press Suggest or write what is heard, press Make sound")
    return _stage(frame, f'<p class="ts-caption">{escape(learnt)}</p>')


def running_stage(progress: Progress) -> str:
    """Show a sound on its way."""
    text = doing(progress, "Loading the models and the recordings")
    return _stage(_frame(None, "The sound is on its way"), progress_html(progress, text), busy=True)


def stopped_stage(text: str) -> str:
    """Say that there is no sound, and why."""
    return _stage(_frame(None, "No sound was made"), notes_html([text]))


def finished_stage(
    files: Mapping[str, Path], spec: RunSpec, record: Mapping[str, object], made: object
) -> str:
    """Show a sound that lies on disk: to be heard, seen, and what it rests on.

    Args:
        files: Its files by ending.
        spec: What was asked for.
        record: The record that it carries.
        made: Its provenance, with the seconds that it took where they are known.
    """
    about = made if isinstance(made, dict) else {}
    facts = [place_text(spec.lat, spec.lon), when_text(spec.month, spec.hour), _length(spec)]
    parts = (
        _player(files, spec)
        + facts_html(spec, made, facts)
        + card_html(made)
        + _sources(_dicts(record.get("layers")), about)
        + _satellite(files, about)
    )
    return _stage(_spectrogram(files, spec), parts)


def asking_html(progress: Progress) -> str:
    """Show that a place is being looked at."""
    text = doing(progress, "Loading the satellite model and the captions")
    return progress_html(progress, text)


def found_html(ground: "Overhead", spec: RunSpec, sources: int) -> str:
    """Show the satellite image that sources were found by, small."""
    where = f"{place_text(spec.lat, spec.lon)}, {when_text(spec.month, spec.hour)}"
    told = f"{sources} source{'s' * (sources != 1)} found for {where}"
    notes = notes_html(ground.notes)
    if ground.rgb is None:
        return f'<p class="ts-caption" role="status">{escape(told)}.</p>{notes}'
    mark = BADGE if ground.about.get("synthetic") is True else ""
    words = "The satellite image that they were found by"
    return (
        f'<div class="ts-found" role="status"><div class="ts-frame"><img '
        f'src="{png_uri(ground.rgb)}" alt="{words}">{mark}</div>'
        f'<p class="ts-caption">{escape(told)}, by what is like this image. {escape(_simulated())}'
        f"</p></div>{notes}"
    )


def refused_html(text: str) -> str:
    """Say beside a control what was not possible."""
    return f'<p class="ts-note ts-wrong" role="alert">{page_words(text)}</p>'


def history_html(artifacts: Sequence[Artifact], shown: str = "") -> str:
    """Show earlier sounds, each to be pressed.

    Args:
        artifacts: The latest first.
        shown: Stem of the one that is on the stage.
    """
    if not artifacts:
        return '<p class="ts-caption">Nothing has been made yet.</p>'
    thumbs = "".join(thumb_html(each, SPECTROGRAM, _about(each.spec), shown) for each in artifacts)
    return f'<div class="ts-strip ts-sounds" role="group" aria-label="Latest sounds">{thumbs}</div>'


def recent(out: Path) -> list[Artifact]:
    """Open the latest soundscapes of a folder, newest first; damaged ones are left out."""
    return latest(out, "soundscape", SPECTROGRAM, HISTORY)


def carding_html(progress: Progress) -> str:
    """Show that a postcard is made."""
    return progress_html(progress, doing(progress, "Loading the models"))


def postcard_html(page: Path, notes: Sequence[str]) -> str:
    """Tell of a postcard that was made."""
    name = escape(page.name)
    return f'<p class="ts-caption" role="status">Made: {name}</p>{notes_html(notes)}'


def _stage(above: str, below: str, *, busy: bool = False) -> str:
    state = ' aria-busy="true"' if busy else ""
    return f'<section class="ts-stage" aria-label="Sound"{state}>{above}{below}</section>'


def _frame(source: str | None, empty: str, about: str = "") -> str:
    inner = (
        f'<img src="{source}" alt="{escape(about)}">{SOUND_BADGE}'
        if source
        else f'<span class="ts-empty">{escape(empty)}</span>'
    )
    look = "ts-frame ts-seen" if source else "ts-frame ts-unheard"
    return f'<div class="{look}">{inner}</div>'


def _spectrogram(files: Mapping[str, Path], spec: RunSpec) -> str:
    if SPECTROGRAM not in files:
        return _frame(None, "Its spectrogram is not here: press Make sound to have it again")
    about = f"Spectrogram of {_length(spec)}: seconds to the right, pitch upwards"
    return _frame(data_uri(read_bytes(files[SPECTROGRAM])), "", about)


def _player(files: Mapping[str, Path], spec: RunSpec) -> str:
    sound = files.get(FLAC) or files.get(WAV)
    if sound is None:
        return notes_html(["its sound is not here: press Make sound to have it again"])
    source = _FILE_URL + quote(str(sound.resolve()))
    loop = " loop" if spec.loop else ""
    badge = "" if SPECTROGRAM in files else SOUND_BADGE
    return (
        f'<audio class="ts-player" controls preload="auto"{loop} src="{source}" '
        f'aria-label="The sound, {_length(spec)}">This browser plays no sound.</audio>{badge}'
    )


def _length(spec: RunSpec) -> str:
    return f"{spec.seconds:g} s" + (", as a loop" if spec.loop else "")


def _about(spec: RunSpec) -> str:
    where = place_text(spec.lat, spec.lon)
    return f"{where}, {when_text(spec.month, spec.hour)}, {_length(spec)}"


def _sources(layers: Sequence[dict[str, Any]], made: Mapping[str, object]) -> str:
    """List what was mixed: words or recordings, how loud, where, and how well each fits."""
    captions = {str(each.get("text")): each for each in _dicts(made.get("captions"))}
    tried = _dicts(made.get("candidates"))
    rows = "".join(
        _source(layer, captions.get(str(layer.get("text"))), tried[n] if n < len(tried) else {})
        for n, layer in enumerate(layers)
    )
    return (
        f'<h3 class="ts-sub ts-after">Sources</h3><ol class="ts-hits">{rows}</ol>' if rows else ""
    )


def _source(
    layer: Mapping[str, Any], caption: Mapping[str, Any] | None, tried: Mapping[str, Any]
) -> str:
    file = layer.get("file")
    name = str(layer.get("text")) if file is None else f"sounds like {Path(str(file)).name}"
    told = caption or {}
    origin = origin_text(str(told.get("origin", "given")), _number(told.get("score")))
    level, pan = _number(layer.get("level_db")) or 0.0, _number(layer.get("pan")) or 0.0
    side = "middle" if pan == 0 else f"{abs(pan):.0%} {'left' if pan < 0 else 'right'}"
    return (
        f'<li class="ts-hit ts-source"><div><p class="ts-hit-title"><b>{escape(name)}</b></p>'
        f'<p class="ts-facts">{escape(origin)} · {level:+g} dB · {side}</p>{_tried(tried)}'
        "</div></li>"
    )


def _tried(tried: Mapping[str, Any]) -> str:
    """Tell how alike the sound is to what was asked for and to the place, and the others too."""
    scores, kept = _dicts(tried.get("scores")), tried.get("kept")
    if not isinstance(kept, int) or not 0 <= kept < len(scores):
        return ""
    names = [name for name in _SHOWN if name in scores[0]]
    best = ", ".join(f"{_SHOWN[name].lower()} {_score(scores[kept].get(name))}" for name in names)
    told = f"Likeness to what was {best}".replace(", place", ", to the place")
    if len(scores) == 1:
        return f'<p class="ts-facts">{told}</p>'
    head = "".join(f'<th scope="col">{_SHOWN[name]}</th>' for name in names)
    rows = "".join(
        f"<tr{' class=ts-best' if number == kept else ''}>"
        f'<th scope="row">{number + 1}{" (kept)" if number == kept else ""}</th>'
        + "".join(f"<td>{_score(score.get(name))}</td>" for name in names)
        + "</tr>"
        for number, score in enumerate(scores)
    )
    return (
        f'<details class="ts-tried"><summary>{told}; the best of {len(scores)}</summary>'
        f'<table><thead><tr><th scope="col">Candidate</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></details>"
    )


def _score(value: object) -> str:
    number = _number(value)
    return "–" if number is None else f"{number:.2f}"  # noqa: RUF001 - a dash for people


def _satellite(files: Mapping[str, Path], made: Mapping[str, object]) -> str:
    path = files.get(".satellite.png")
    if path is None:
        return ""
    source = made.get("satellite")
    drawn = isinstance(source, dict) and source.get("synthetic") is True
    caption = "The satellite image it was made for" + (", drawn by a model" if drawn else "")
    return (
        f'<div class="ts-above"><figure><div class="ts-frame"><img '
        f'src="{data_uri(read_bytes(path))}" alt="{caption}">{BADGE if drawn else ""}</div>'
        f"<figcaption>{caption}</figcaption></figure></div>"
    )


def _simulated() -> str:
    return f"{SIMULATED_NOTE[0].upper()}{SIMULATED_NOTE[1:]}."


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
