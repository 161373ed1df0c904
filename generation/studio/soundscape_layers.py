"""The sources of a soundscape as a list to edit: words or a recording, how loud, and where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from generation.errors import InvalidSpecError, shown
from generation.layer_spec import MAX_LAYERS, MAX_LEVEL_DB, MIN_LEVEL_DB, LayerSpec
from generation.spec import MAX_PROMPT
from generation.studio.rows import new_key, number_of, number_text, read_rows
from generation.studio.sounds import describe_recording

if TYPE_CHECKING:
    from generation.pipelines.soundscape_plan import Plan

KEPT_LISTS = 8
"""Earlier lists that can be brought back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenLayer:
    """A row of the list, with what is typed in it."""

    key: str
    """Tells it from the others of the list."""
    text: str = ""
    file: str | None = None
    """In the words' stead, where a recording lies."""
    name: str = ""
    """What the recording's file was called."""
    about: str = ""
    """What the recording is."""
    level_db: str = "0"
    """As typed."""
    pan: str = "0"
    origin: str = "given"
    """``given``, ``retrieved`` or ``written``, as of a caption."""
    score: float | None = None
    """Likeness to the place, where that is known."""

    def layer(self, number: int) -> LayerSpec:
        """Give it as a part of a RunSpec.

        Args:
            number: Its place in the list, from 1.

        Raises:
            InvalidSpecError: A number is none, or nothing is said of what is heard.
        """
        level, pan = number_of(self.level_db), number_of(self.pan)
        if level is None or pan is None:
            name, typed, allowed = (
                ("level", self.level_db, f"decibels, {MIN_LEVEL_DB:g} to {MAX_LEVEL_DB:g}")
                if level is None
                else ("pan", self.pan, "-1 left, 0 in the middle, 1 right")
            )
            raise InvalidSpecError(
                f"source {number}: {name}={shown(typed)} is no number (give {allowed})"
            )
        if self.file is None and not self.text.strip():
            raise InvalidSpecError(
                f"source {number} says nothing (write what is heard, or remove it)"
            )
        try:
            return LayerSpec(self.text if self.file is None else "", self.file, level, pan)
        except InvalidSpecError as error:
            raise InvalidSpecError(f"source {number}: {error}") from None


def typed_layers(given: Sequence[GivenLayer], rows: str | None) -> list[GivenLayer]:
    """Fill in what stands in the page's list; words that were changed are the person's own.

    Raises:
        InvalidSpecError: It is not what the page sends.
    """
    told = read_rows(rows, ("text", "level_db", "pan"), "sources")
    return [_typed(layer, told[layer.key]) if layer.key in told else layer for layer in given]


def _typed(layer: GivenLayer, told: dict[str, str]) -> GivenLayer:
    fresh = replace(layer, level_db=told["level_db"], pan=told["pan"])
    if layer.file is not None or _one_line(told["text"]) == _one_line(layer.text):
        return fresh
    return replace(fresh, text=told["text"], origin="given", score=None)


def _one_line(text: str) -> str:
    """Give words as a field of one line holds them."""
    return text.replace("\r", "").replace("\n", "").strip()


def planned_layers(plan: "Plan", before: Sequence[GivenLayer]) -> list[GivenLayer]:
    """Give the sources that a place suggests; no key is that of a row of before."""
    captions = {caption.text: caption for caption in plan.captions}
    rows: list[GivenLayer] = []
    for layer in plan.layers:
        told = captions.get(layer.text)
        row = spec_layer(layer, [*before, *rows])
        rows.append(row if told is None else replace(row, origin=told.origin, score=told.score))
    return rows


def spec_layer(layer: LayerSpec, others: Sequence[GivenLayer]) -> GivenLayer:
    """Give a layer of a RunSpec as a row of the list.

    Args:
        layer: In words, or with a recording that can be read.
        others: The rows that are there already.

    Raises:
        TerrascapeError: Its recording cannot be read any more.
    """
    path = None if layer.file is None else Path(layer.file)
    return GivenLayer(
        key=_key(others),
        text=layer.text,
        file=layer.file,
        name="" if path is None else path.name,
        about="" if path is None else describe_recording(path),
        level_db=number_text(layer.level_db),
        pan=number_text(layer.pan),
    )


def add_words(given: Sequence[GivenLayer], sentence: str | None) -> list[GivenLayer]:
    """Add the sources of a sentence, each beside those that are there.

    Raises:
        InvalidSpecError: It says nothing, or there would be too many.
    """
    from generation.pipelines.soundscape_plan import split, spread

    if not (sentence or "").strip():
        raise InvalidSpecError("nothing is written (say what is heard, such as: surf and gulls)")
    if len(str(sentence)) > MAX_PROMPT:
        raise InvalidSpecError(
            f"the sentence has {len(str(sentence))} characters, {MAX_PROMPT} are allowed (make it "
            "shorter)"
        )
    texts = split(str(sentence))
    _room(len(given) + len(texts))
    before = [("what is there already", 0.0)] * len(given)
    rows = list(given)
    for layer in spread([*before, *((text, 0.0) for text in texts)])[len(given) :]:
        rows.append(spec_layer(layer, rows))
    return rows


def add_recording(given: Sequence[GivenLayer], path: Path) -> list[GivenLayer]:
    """Add a recording that a source should sound like.

    Raises:
        AudioError: It is no sound, or too long.
        InvalidSpecError: There are too many sources already.
    """
    _room(len(given) + 1)
    return [*given, spec_layer(LayerSpec(file=str(path)), given)]


def remember(
    earlier: Sequence[Sequence[GivenLayer]], now: Sequence[GivenLayer]
) -> list[list[GivenLayer]]:
    """Keep a list that is about to be replaced; an empty one is not worth it."""
    kept = [list(each) for each in earlier if list(each) != list(now)]
    return [*kept, list(now)][-KEPT_LISTS:] if now else kept


def bring_back(
    earlier: Sequence[Sequence[GivenLayer]], now: Sequence[GivenLayer]
) -> tuple[list[GivenLayer], list[list[GivenLayer]]]:
    """Give the list of before, and keep the present one behind all others: nothing is lost."""
    *others, last = earlier
    kept = [list(each) for each in others]
    return list(last), [list(now), *kept] if now else kept


def list_html(given: Sequence[GivenLayer]) -> str:
    """Show the sources with fields for their words, levels and places."""
    if not given:
        return (
            '<p class="ts-caption">No source yet: press Suggest, write some, or drop a recording. '
            "Without any, the place alone decides.</p>"
        )
    rows = "".join(_row(number, layer) for number, layer in enumerate(given, start=1))
    return (
        f'<ol class="ts-views" aria-label="Sources of the sound">{rows}</ol>'
        '<p class="ts-caption">Level: 0 dB is equally loud for all. Pan: -1 left, 0 in the middle, '
        "1 right.</p>"
    )


def origin_text(origin: str, score: float | None) -> str:
    """Say where a caption is from, and how like the place it is."""
    known = score is not None and math.isfinite(score)
    return f"{origin}, likeness to the place {score:.2f}" if known else origin


def _row(number: int, layer: GivenLayer) -> str:
    if layer.file is None:
        head = (
            f'<input type="text" name="text" maxlength="{MAX_PROMPT}" value="{escape(layer.text)}" '
            f'aria-label="Words of source {number}">'
        )
        told = (
            f'<span class="ts-kept">{escape(origin_text(layer.origin, layer.score))}</span>'
            '<span class="ts-own">given</span>'
        )
    else:
        name = escape(layer.name)
        head = (
            f'<span title="{name}">Sounds like {name}</span><input type="hidden" name="text" '
            'value="">'
        )
        told = escape(f"given, {layer.about}")
    shown_name = escape(layer.text or layer.name)
    return (
        f'<li data-row="{escape(layer.key)}"><div class="ts-source-head"><b>{number}</b>{head}'
        f'<button type="button" class="ts-chip" data-remove="{escape(layer.key)}" '
        f'aria-label="Remove source {number}, {shown_name}">Remove</button></div>'
        f'<div class="ts-source-fields">'
        f"{_number(number, 'level_db', 'Level, dB', layer.level_db, '1')}"
        f"{_number(number, 'pan', 'Pan', layer.pan, '0.1')}"
        f'<p class="ts-caption">{told}</p></div></li>'
    )


def _number(row: int, name: str, label: str, value: str, step: str) -> str:
    return (
        f'<label>{label}<input type="number" step="{step}" name="{name}" value="{escape(value)}" '
        f'aria-label="{label} of source {row}"></label>'
    )


def _key(others: Sequence[GivenLayer]) -> str:
    return new_key("s", [each.key for each in others])


def _room(wanted: int) -> None:
    if wanted > MAX_LAYERS:
        raise InvalidSpecError(
            f"{wanted} sources would be given, {MAX_LAYERS} are allowed (remove some of them)"
        )
