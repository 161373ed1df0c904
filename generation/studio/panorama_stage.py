"""What the panorama tab shows of a render: its steps, the panorama to look around in, its parts."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from generation.media.artifact import Artifact
from generation.media.image import read_bytes
from generation.registry import find
from generation.spec import DEFAULT_MODELS, RunSpec
from generation.studio.map_widget import place_text
from generation.studio.panorama_viewer import compass_text, flat_html, viewer_html
from generation.studio.pictures import data_uri, preview_uri
from generation.studio.plausible import card_html
from generation.studio.recall import latest
from generation.studio.stage import (
    BADGE,
    HISTORY,
    doing,
    facts_html,
    notes_html,
    progress_html,
    thumb_html,
)
from generation.studio.worker import Progress

CROPS = (
    ("front", "Ahead", 0),
    ("right", "Right", 90),
    ("back", "Behind", 180),
    ("left", "Left", 270),
)
"""Name in the file, for people, and how far right of the heading each perspective view looks."""
_USED = (
    "Which panorama, by its number in the list, and which part of the satellite image, was used "
    "where"
)


def empty_stage(absent: str = "") -> str:
    """Show what will be where, before the first render.

    Args:
        absent: Why nothing can be drawn; empty if it can.
    """
    flat = flat_html(None, absent or "Choose a place, drop panoramas if you have any, press Draw")
    model = DEFAULT_MODELS["panorama"]
    return _stage(flat, f'<p class="ts-caption">{model} has {escape(find(model).learnt)}.</p>')


def running_stage(progress: Progress) -> str:
    """Show a render on its way."""
    source = None if progress.preview is None else preview_uri(progress.preview)
    text = doing(progress, "Opening the panoramas, the model and the satellite image")
    # A step without a preview is one of the satellite image that is drawn first.
    empty = "The satellite image comes first" if progress.step else "The first step is on its way"
    flat = flat_html(source, empty, BADGE if source else "")
    return _stage(flat, progress_html(progress, text), busy=True)


def stopped_stage(progress: Progress, text: str) -> str:
    """Show where a render ended that was not finished."""
    source = None if progress.preview is None else preview_uri(progress.preview)
    flat = flat_html(source, "Nothing was drawn", BADGE if source else "")
    return _stage(flat, notes_html([text]))


def finished_stage(files: Mapping[str, Path], spec: RunSpec, record: object) -> str:
    """Show a render that lies on disk; the pictures in the page are the very files.

    Args:
        files: Its files by ending: ``.jpg``, and ``.overlay.png`` and the rest where there are any.
        spec: What was rendered.
        record: Its provenance.
    """
    if ".jpg" not in files:
        flat = flat_html(None, "The panorama is not here: press Draw to draw it again")
        return _stage(flat, _facts(spec, record))
    from generation.media.panorama import open_panorama

    band = open_panorama(files[".jpg"]).band  # what the file itself says that it covers
    viewer = viewer_html(_source(files[".jpg"]), band, spec.heading, BADGE)
    look = (
        f'<p class="ts-caption"><span class="ts-pano-look">Looking {compass_text(spec.heading)}'
        "</span> · drag, or use the arrow keys; plus and minus zoom</p>"
    )
    parts = f"{_crops(files, spec.heading)}{_overlay(files)}{_satellite(files, record)}"
    return _stage(viewer, f"{look}{_facts(spec, record)}{parts}")


def history_html(artifacts: Sequence[Artifact], shown: str = "") -> str:
    """Show earlier panoramas, each to be pressed.

    Args:
        artifacts: The latest first.
        shown: Stem of the one that is on the stage.
    """
    if not artifacts:
        return '<p class="ts-caption">Nothing has been drawn yet.</p>'
    thumbs = "".join(thumb_html(each, ".jpg", _about(each.spec), shown) for each in artifacts)
    return (
        f'<div class="ts-strip ts-wide" role="group" aria-label="Latest panoramas">{thumbs}</div>'
    )


def recent(out: Path) -> list[Artifact]:
    """Open the latest panoramas of a folder, newest first; damaged ones are left out."""
    return latest(out, "panorama", ".jpg", HISTORY)


def _stage(above: str, below: str, *, busy: bool = False) -> str:
    state = ' aria-busy="true"' if busy else ""
    return f'<section class="ts-stage" aria-label="Panorama"{state}>{above}{below}</section>'


def _about(spec: RunSpec) -> str:
    return f"{place_text(spec.lat, spec.lon)}, looking {compass_text(spec.heading)}"


def _facts(spec: RunSpec, record: object) -> str:
    about = [f"heading {compass_text(spec.heading)}", f"{len(spec.views)} given"]
    return facts_html(spec, record, [place_text(spec.lat, spec.lon), *about]) + card_html(record)


def _crops(files: Mapping[str, Path], heading_deg: float) -> str:
    figures = "".join(
        _figure(files[f".{name}.jpg"], f"{words}, {compass_text((heading_deg + turn) % 360)}")
        for name, words, turn in CROPS
        if f".{name}.jpg" in files
    )
    if not figures:
        return ""
    return (
        '<h3 class="ts-sub">Four views without distortion</h3><p class="ts-caption">90 degrees '
        "wide each; grey lies beyond what was drawn.</p>"
        f'<div class="ts-crops">{figures}</div>'
    )


def _overlay(files: Mapping[str, Path]) -> str:
    if ".overlay.png" not in files:
        return ""
    figure = _figure(files[".overlay.png"], _USED, badge=False)
    return f'<h3 class="ts-sub">Where it was found</h3><div class="ts-attention">{figure}</div>'


def _satellite(files: Mapping[str, Path], record: object) -> str:
    if ".satellite.png" not in files:
        return ""
    source = record.get("satellite") if isinstance(record, dict) else None
    drawn = isinstance(source, dict) and source.get("synthetic") is True
    caption = "The satellite image it was given" + (", drawn by a model" if drawn else "")
    return f'<div class="ts-above">{_figure(files[".satellite.png"], caption, badge=drawn)}</div>'


def _figure(path: Path, caption: str, *, badge: bool = True) -> str:
    mark = BADGE if badge else ""
    return (
        f'<figure><div class="ts-frame"><img src="{_source(path)}" alt="{escape(caption)}">{mark}'
        f"</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _source(picture: Path) -> str:
    kind = "jpeg" if picture.suffix == ".jpg" else "png"
    return data_uri(read_bytes(picture), kind)
