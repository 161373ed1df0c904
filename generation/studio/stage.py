"""What the page shows of a render, as HTML: its progress, its picture and layout, the history."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from generation.errors import TerrascapeError
from generation.geo.layout import CLASSES, Layout
from generation.geo.mercator import Window
from generation.geo.overpass import TOTAL_S
from generation.media.artifact import Artifact
from generation.media.image import open_rgb, read_bytes
from generation.spec import RunSpec
from generation.studio.looks import styled_html
from generation.studio.map_widget import place_text, size_text
from generation.studio.pictures import data_uri, png_uri, preview_uri, thumb_uri
from generation.studio.plausible import card_html
from generation.studio.recall import find_layout, find_picture, latest
from generation.studio.worker import Progress

HISTORY = 12
"""How many results the strip shows."""
BADGE = '<span class="ts-badge" title="Made by a model; not a photograph">synthetic image</span>'
SOUND_BADGE = '<span class="ts-badge" title="Made by a model; not recorded">synthetic sound</span>'
_PHASES = {
    "waiting": "Waiting for another render",
    "loading": "Loading the model and the layout",
    "saving": "Saving",
}
ALLOW = "Allow OpenStreetMap"
"""The name of the control that lets the network be used."""
_CONTROLS = (
    ("or --online", f"or tick {ALLOW!r}"),
    ("leave out --online", f"untick {ALLOW!r}"),
    ("--layout auto", "'World layers'"),
    ("leave sound and sound_text out", "choose None under Sound"),
    ("give far=true, --far on the command line,", "tick 'Take far panoramas'"),
)
"""What messages call the options of the commands, and what these are on the page."""


def stage_html(image: str, layout: str, below: str, *, busy: bool = False) -> str:
    """Put a picture and its layout side by side, and what is told of them below."""
    state = ' aria-busy="true"' if busy else ""
    return (
        f'<section class="ts-stage" aria-label="Result"{state}><div class="ts-pair">'
        f"{image}{layout}</div>{below}</section>"
    )


def empty_stage() -> str:
    """Show what will be where, before the first render."""
    image = _figure(None, "Image", "Choose a place and press Render")
    layout = _figure(None, "Its layout", "The map that it follows")
    return stage_html(image, layout, "")


def running_stage(progress: Progress, layout: str | None) -> str:
    """Show a render on its way."""
    bar = progress_html(progress, doing(progress))
    source = None if progress.preview is None else preview_uri(progress.preview)
    image = _figure(source, "Image", "The first step is on its way", live=True)
    return stage_html(image, _layout_figure(layout, progress), bar, busy=True)


def progress_html(progress: Progress, text: str) -> str:
    """Show how many steps are drawn, and say what is being done."""
    share = progress.step / progress.steps if progress.steps else 0.0
    return (
        f'<div class="ts-progress" role="progressbar" aria-label="Steps drawn" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * share:.0f}">'
        f'<span style="width:{share:.0%}"></span></div>'
        f'<p class="ts-status" role="status">{text}…</p>'
    )


def stopped_stage(progress: Progress, layout: str | None, text: str) -> str:
    """Show where a render ended that was not finished."""
    source = None if progress.preview is None else preview_uri(progress.preview)
    caption = "Unfinished, not saved" if source else "Image"
    image = _figure(source, caption, "Nothing was drawn")
    return stage_html(image, _layout_figure(layout, progress), _note(text))


def finished_stage(picture: Path, layout: Path | None, spec: RunSpec, record: object) -> str:
    """Show a render that lies on disk; the picture in the page is the very file."""
    shown = None if layout is None else _source(layout)
    return _result(_source(picture), shown, spec, record)


def artifact_stage(artifact: Artifact, out: Path) -> str:
    """Show a render that was opened, and the layout that it followed if that is to be had.

    Raises:
        TerrascapeError: Its picture cannot be read.
    """
    if artifact.ending == ".tif":
        source: str | None = png_uri(artifact.pixels())
    else:
        picture = artifact.path if artifact.ending == ".png" else find_picture(artifact, out)
        source = None if picture is None else _source(picture)
    layout = find_layout(artifact, out)
    shown = None if layout is None else png_uri(layout)
    return _result(source, shown, artifact.spec, artifact.record.get("provenance"))


def layout_html(layout: Layout | None, note: str = "") -> str:
    """Show the layout that will be followed, with what its colours mean."""
    if layout is None:
        nothing = _figure(None, "No layout", "The model is free")
        return f'<div class="ts-layout">{nothing}</div>'
    figure = _figure(png_uri(layout.rgb()), f"Layout, {size_text(layout.window)}", "")
    told = "".join(_note(text) for text in (*layout.notes, note) if text)
    credit = _credit(layout.attribution)
    return f'<div class="ts-layout">{figure}{_legend(layout)}{told}{credit}</div>'


def refused_html(text: str) -> str:
    """Tell in the layout's place why there is none."""
    return (
        f'<div class="ts-layout">{_figure(None, "Layout", "Not to be had")}'
        f'<p class="ts-note ts-wrong" role="alert">{page_words(text)}</p></div>'
    )


def asking_html(progress: Progress) -> str:
    """Tell in the layout's place that the map server is being asked."""
    return (
        f'<div class="ts-layout" aria-busy="true">{_figure(None, "Layout", "On its way")}'
        f'<p class="ts-note" role="status">{doing(progress)}…</p></div>'
    )


def size_html(window: Window) -> str:
    """Tell how large the picture will be on the ground."""
    return f'<p class="ts-caption">The picture is {escape(size_text(window))}.</p>'


def history_html(artifacts: Sequence[Artifact], shown: str = "") -> str:
    """List the latest results as thumbnails."""
    if not artifacts:
        return '<p class="ts-caption">Results appear here; press one to bring all of it back.</p>'
    thumbs = "".join(
        thumb_html(each, ".png", each.spec.prompt[:80] or _point(each.spec), shown)
        for each in artifacts
    )
    return f'<div class="ts-strip" role="group" aria-label="Latest results">{thumbs}</div>'


def recent(out: Path, limit: int = HISTORY) -> list[Artifact]:
    """Open the latest results of a folder, newest first; damaged ones are left out."""
    return latest(out, "satellite", ".png", limit)


def image_uri(layout: Layout | None) -> str | None:
    """Give a layout as a picture for the page."""
    return None if layout is None else png_uri(layout.rgb())


def page_words(text: str) -> str:
    """Escape a message for the page, and name the page's controls instead of the commands'."""
    for command, control in _CONTROLS:
        text = text.replace(command, control)
    return escape(text)


def doing(progress: Progress, loading: str = _PHASES["loading"]) -> str:
    """Say in a few words what is being done; ``loading`` is what is loaded."""
    if progress.phase == "asking":
        return f"Asking OpenStreetMap, {progress.waited_s} s of at most {TOTAL_S:.0f} s"
    if progress.phase != "drawing":
        return loading if progress.phase == "loading" else _PHASES[progress.phase]
    text = f"Step {progress.step} of {progress.steps}"
    return text if progress.left_s is None else f"{text}, about {progress.left_s:.0f} s left"


def _source(picture: Path) -> str:
    """Give a picture on disk for ``src``; a PNG as the very file that it is."""
    if picture.suffix == ".png":
        return data_uri(read_bytes(picture))
    return png_uri(open_rgb(picture))


def _result(picture: str | None, layout: str | None, spec: RunSpec, record: object) -> str:
    """Show a finished render beside its layout, with what is known of it."""
    size = f"Image, {size_text(spec.window())}"
    image = _figure(picture, size, "Press Render to draw it again", badge=picture is not None)
    empty = "Drawn without a layout" if spec.layout == "none" else "Its layout is not here"
    return stage_html(image, _figure(layout, "Its layout", empty), _facts(spec, record))


def _layout_figure(layout: str | None, progress: Progress) -> str:
    asked = progress.phase == "asking"
    return _figure(layout, "Its layout", "Not here yet" if asked else "No layout was given")


def _figure(
    source: str | None, caption: str, empty: str, *, badge: bool = False, live: bool = False
) -> str:
    mark = BADGE if badge or (live and source) else ""
    look = "ts-frame ts-live" if live else "ts-frame"
    inner = (
        f'<img src="{source}" alt="{escape(caption)}">'
        if source
        else f'<span class="ts-empty">{escape(empty)}</span>'
    )
    return (
        f'<figure><div class="{look}">{inner}{mark}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _legend(layout: Layout) -> str:
    counts = np.bincount(layout.classes.ravel(), minlength=len(CLASSES))
    order = [index for index in np.argsort(-counts).tolist() if counts[index]]
    entries = "".join(
        f'<li title="{escape(CLASSES[index].meaning)}">'
        f'<i style="background:rgb{CLASSES[index].rgb}"></i>{CLASSES[index].name} '
        f"<small>{_share(counts[index] / layout.classes.size)}</small></li>"
        for index in order
    )
    return f'<ul class="ts-legend">{entries}</ul>'


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "&lt; 1%"


def _facts(spec: RunSpec, record: object) -> str:
    place = [place_text(spec.lat, spec.lon), f"zoom {spec.zoom}"]
    prompt = f'<p class="ts-prompt">{escape(spec.prompt)}</p>' if spec.prompt else ""
    told = f"{prompt}{_heard(spec)}{styled_html(spec, record)}{facts_html(spec, record, place)}"
    return told + card_html(record)


def facts_html(spec: RunSpec, record: object, first: Sequence[str]) -> str:
    """Tell in a line how a render was made, and below it its notes and whom it credits.

    Args:
        spec: What was rendered.
        record: Its provenance.
        first: What the line begins with.
    """
    about = record if isinstance(record, dict) else {}
    seconds = about.get("seconds")
    facts = [
        *first,
        f"seed {spec.seed}",
        f"{spec.steps} steps",
        *([f"{seconds:.1f} s"] if isinstance(seconds, int | float) else []),
    ]
    told = about.get("notes")
    notes = notes_html([str(text) for text in told]) if isinstance(told, list | tuple) else ""
    line = " · ".join(escape(fact) for fact in facts)
    credit = _credit(str(about.get("attribution", "")))
    return f'<p class="ts-facts">{line}</p>{notes}{credit}'


def notes_html(texts: Sequence[str]) -> str:
    """Show what a person should know of a render."""
    return "".join(_note(text) for text in texts)


def _point(spec: RunSpec) -> str:
    return f"{spec.lat:.2f}, {spec.lon:.2f}"


def _heard(spec: RunSpec) -> str:
    if not spec.has_sound:
        return ""
    path = spec.sound_path
    sound = f"“{spec.sound_text}”" if path is None else path.name
    scale = f"guidance {spec.sound_guidance:g}, understood by {spec.sound_model}"
    return f'<p class="ts-facts">Sounds like {escape(sound)} ({escape(scale)})</p>'


def _note(text: str) -> str:
    return f'<p class="ts-note">{page_words(text)}</p>'


def _credit(text: str) -> str:
    return f'<p class="ts-credit">{escape(text)}</p>' if text else ""


def thumb_html(artifact: Artifact, ending: str, about: str, shown: str) -> str:
    """Show a render small, to be pressed; nothing if its picture cannot be read.

    Args:
        artifact: A manifest.
        ending: Of the picture.
        about: What it is of, read aloud.
        shown: Stem of the render that is on the stage.
    """
    name, words = artifact.path.stem, escape(about)
    current = ' aria-current="true"' if name == shown else ""
    try:
        source = thumb_uri(artifact.sibling(ending))
    except (TerrascapeError, OSError):
        return ""
    return (
        f'<button type="button" class="ts-thumb" data-pick="{escape(name)}" title="{words}"'
        f'{current}><img src="{source}" alt="{words}"></button>'
    )
