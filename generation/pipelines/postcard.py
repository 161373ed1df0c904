"""Postcards: one place seen from above, seen all around, and heard, from one description."""

import calendar
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.media.artifact import Rendered, save_render, stem
from generation.media.folder import atomic_write, output_folder
from generation.media.image import png_bytes
from generation.media.panorama_files import PANORAMA
from generation.media.postcard_page import Card, card_page
from generation.media.sound_files import FLAC
from generation.media.soundscape import SPECTROGRAM, SoundscapeRender
from generation.pipelines.kinds import renderer_for
from generation.pipelines.overhead import DRAWN_PX, ZOOM
from generation.pipelines.panorama import OnStep
from generation.spec import DEFAULT_MODELS, RunSpec
from generation.spec_checks import HAVE_IT

ROOM_BYTES = 12_000_000
"""More than the files of a postcard with half a minute of sound take."""
_PARTS = ("satellite", "panorama", "soundscape")


@dataclass(frozen=True, slots=True)
class Postcard:
    """What was written."""

    page: Path
    """An HTML file that holds all it shows."""
    files: tuple[Path, ...]
    """The three renders' files; the page comes last."""
    notes: tuple[str, ...]


def make_postcard(
    fields: Mapping[str, object],
    out: Path,
    *,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    online: bool = False,
) -> Postcard:
    """Draw the satellite image of a place, and from it the panorama and the soundscape.

    The two are given the image as a file, so all three show one ground, and each of them can be
    made again by itself.

    Args:
        fields: Those of a RunSpec, of whichever kind they are; each part takes what it has.
        out: A folder; made if need be.
        on_step: Told ``(step, steps, preview)`` of the part at hand.
        cancelled: Asked before each step.
        online: Whether the layout may come from the network.

    Raises:
        TerrascapeError: Whatever the person can mend; what was finished before stays.
    """
    specs = {kind: part_of(fields, kind) for kind in _PARTS}
    renders, files = dict[str, Rendered](), dict[str, list[Path]]()
    with output_folder(out, needed_bytes=ROOM_BYTES):
        ground: dict[str, object] = {}
        for kind, spec in specs.items():
            if kind != "satellite":
                spec = part_of({**fields, **ground}, kind)
            render = renderer_for(kind)(
                spec.pinned(), on_step=on_step, cancelled=cancelled, online=online
            )
            renders[kind] = render
            files[kind] = save_render(render, out)
            if kind == "satellite":
                ground = {"satellite": str(_ending(files[kind], ".tif"))}
        page = out / _name(renders)
        atomic_write(page, card_page(_card(renders, files)))
    told = [note for render in renders.values() for note in _notes(render)]
    saved = [path for paths in files.values() for path in paths]
    return Postcard(page, (*saved, page), tuple(dict.fromkeys(told)))


def part_of(fields: Mapping[str, object], kind: str) -> RunSpec:
    """Give the spec of one part: the fields that its kind has.

    Raises:
        InvalidSpecError: One of them is wrong.
    """
    others = {name for name, kinds in HAVE_IT.items() if kind not in kinds}
    sound = {"sound", "sound_text", "sound_sha256"} if kind != "soundscape" else set()
    own: dict[str, Any] = {k: v for k, v in fields.items() if k not in others | sound}
    if kind == "panorama":
        own.pop("prompt", None)  # the image that it is given was drawn by it
    if kind == "satellite":
        own |= {"size": DRAWN_PX, "zoom": ZOOM}
    else:
        own |= {"layout": "none", "layout_sha256": None}
    return RunSpec.from_dict({**own, "kind": kind, "model": DEFAULT_MODELS[kind]})


def _name(renders: Mapping[str, Rendered]) -> str:
    """Name the page by its place and by what it was made of."""
    whole = "".join(render.spec.sha256() for render in renders.values())
    sha256 = hashlib.sha256(whole.encode()).hexdigest()
    return f"{stem('postcard', renders['satellite'].spec, sha256)}.html"


def _ending(files: Sequence[Path], ending: str) -> Path:
    return next(path for path in files if path.name.endswith(ending))


def _card(renders: Mapping[str, Rendered], files: Mapping[str, Sequence[Path]]) -> Card:
    sound = renders["soundscape"]
    assert isinstance(sound, SoundscapeRender)  # noqa: S101 - its renderer makes nothing else
    shown = {"satellite": ".tif", "panorama": PANORAMA, "soundscape": FLAC}
    main = {kind: _ending(files[kind], ending) for kind, ending in shown.items()}
    made = [
        (main[kind].name, f"{render.spec.model}, seed {render.spec.seed}")
        for kind, render in renders.items()
    ]
    spec = sound.spec
    return Card(
        title=f"{abs(spec.lat):.3f}° {'S' if spec.lat < 0 else 'N'}, "
        f"{abs(spec.lon):.3f}° {'W' if spec.lon < 0 else 'E'}",
        when=_when(spec),
        above=png_bytes(renders["satellite"].image),
        around=main["panorama"].read_bytes(),
        spectrogram=_ending(files["soundscape"], SPECTROGRAM).read_bytes(),
        sound=main["soundscape"].read_bytes(),
        loop=spec.loop,
        heard=[f"{layer.name} ({layer.level_db:+g} dB)" for layer in sound.layers],
        notes=[note for render in renders.values() for note in _notes(render)],
        made=made,
    )


def _when(spec: RunSpec) -> str:
    parts = []
    if spec.month is not None:
        parts.append(calendar.month_name[spec.month])
    if spec.hour is not None:
        minutes = round(spec.hour * 60)
        parts.append(f"{minutes // 60 % 24}:{minutes % 60:02}")
    return ", ".join(parts)


def _notes(render: Rendered) -> list[str]:
    notes = render.provenance.get("notes")
    credit = render.provenance.get("attribution")
    told = [str(note) for note in notes] if isinstance(notes, list) else []
    return [*told, *([str(credit)] if credit else [])]
