"""Earlier results: back into the page, and the picture and the layout that belong to a file.

A person may open any one file of a render, from any folder. The others are looked for beside it
and among the results; each is taken only if its pixels are those that the record names.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError, TerrascapeError
from generation.geo.layout import Layout
from generation.geo.sources import open_source
from generation.media.artifact import Artifact, pixels_sha256, read_artifact, stem_of
from generation.media.image import open_rgb, read_bytes
from generation.spec import RunSpec
from generation.studio.form import SHARED, Form
from generation.studio.looks_controls import LOOK
from generation.studio.sounds import why_silent


@dataclass(frozen=True, slots=True)
class Restored:
    """The page's fields for a spec of an earlier render."""

    form: Form
    note: str = ""
    """What could not be brought back as it was."""


def restore(artifact: Artifact, out: Path) -> Restored:
    """Fill the page from a saved render.

    A layout or a sound is opened only if it lies among the results: a file from elsewhere must not
    make the page read whatever path it names. Nor does a file give leave to use the network. The
    copy of the layout that was saved with the render stands in for both.

    Raises:
        InvalidSpecError: It is no satellite image.
    """
    spec, note = artifact.spec, ""
    refuse_others(spec, "satellite")
    choice, file = spec.layout, None
    if spec.layout_path is not None or _was_online(artifact):
        file, note = _layout_in_reach(artifact, out)
        choice = "file" if file or spec.layout_path else "auto"
    heard, sound_file, of_sound = _sound_in_reach(spec, out)
    shared = {name: getattr(spec, name) for name in SHARED} | _looks_of(spec)
    form = Form(
        choice=choice,
        file=file,
        drawing=None,
        online=False,
        heard=heard,
        sound_file=sound_file,
        seed=str(spec.seed),
        style_on=spec.style_lat is not None,
        habitat_on=bool(spec.taxon.strip()),
        climate_on=spec.warmer_c is not None or spec.rain_percent is not None,
        **shared,
    )
    return Restored(form, "; ".join(each for each in (note, of_sound) if each))


def _looks_of(spec: RunSpec) -> dict[str, object]:
    """Give numbers to fields that are switched off, as the page's have some."""
    place = LOOK if spec.style_lat is None else (spec.style_lat, spec.style_lon)
    return {
        "style_lat": place[0],
        "style_lon": place[1],
        "warmer_c": spec.warmer_c or 0.0,
        "rain_percent": spec.rain_percent or 0.0,
    }


def refuse_others(spec: RunSpec, kind: str) -> None:
    """Take a render of one kind only.

    Raises:
        InvalidSpecError: It is of another kind.
    """
    if spec.kind != kind:
        is_one, wanted = (
            "a satellite image" if each == "satellite" else f"a {each}"
            for each in (spec.kind, kind)
        )
        raise InvalidSpecError(
            f"this is {is_one} (open it in the tab of its kind, or drop {wanted})"
        )


def find_picture(artifact: Artifact, out: Path) -> Path | None:
    """Give the PNG of a render, beside its file or among the results."""
    return _first(_beside_or_in(artifact, out, ".png"), artifact.record.get("pixels_sha256"))


def find_layout(artifact: Artifact, out: Path) -> UInt8[np.ndarray, "height width 3"] | None:
    """Give the layout that a render followed: its saved copy, or drawn again from its source.

    Returns:
        The layout as a picture; None if it followed none, or if it is not to be had as it was.
    """
    saved = _saved_layout(artifact, out)
    if saved is not None:
        return open_rgb(saved)
    if artifact.spec.layout_path is None:
        choice = None if _was_online(artifact) else artifact.spec.layout
    else:
        choice = among_results(artifact.spec.layout_path, out)
    try:
        again = _draw_again(artifact, choice)
    except TerrascapeError:
        return None
    if again is None or pixels_sha256(again.rgb()) != _layout_sha256(artifact):
        return None
    return again.rgb()


def _draw_again(artifact: Artifact, choice: str | None) -> Layout | None:
    source = None if choice is None else open_source(choice)
    return None if source is None else source.layout(artifact.spec.window())


def _layout_in_reach(artifact: Artifact, out: Path) -> tuple[str | None, str]:
    """Give the file that stands for a render's layout, and what is to be told of it."""
    there = among_results(artifact.spec.layout_path, out)
    if there is not None:
        return there, ""
    saved = _saved_layout(artifact, out)
    if saved is not None and saved.resolve().is_relative_to(out.resolve()):
        return str(saved), "its layout is the copy that was saved with the picture"
    if artifact.spec.layout_path is None:
        return None, "its streets came from OpenStreetMap: allow it to have them fetched again"
    name = artifact.spec.layout_path.name
    return None, f"its layout file {name!r} is not among the results: choose it again"


def _sound_in_reach(spec: RunSpec, out: Path) -> tuple[str, str | None, str]:
    """Give the switch and the file for a render's sound, and what is to be told of it."""
    if not spec.has_sound:
        return "none", None, ""
    silent = why_silent()
    if silent:
        return "none", None, f"its sound is left out: {silent}"
    path = spec.sound_path
    if path is None:
        return "words", None, ""
    there = among_results(path, out)
    if there is not None and file_sha256(path) == spec.sound_sha256:
        return "file", there, ""
    return "file", None, f"its sound {path.name!r} is not among the results: choose it again"


def latest(out: Path, kind: str, ending: str, limit: int) -> list[Artifact]:
    """Open the manifests of a folder's latest renders, newest first; damaged ones are left out.

    Args:
        out: The folder of the results.
        kind: Of the renders.
        ending: Of the file that must lie beside a manifest.
        limit: How many are wanted.
    """
    found: list[Artifact] = []
    manifests = out.glob(f"{kind}_*.json")
    for path in sorted(manifests, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            artifact = read_artifact(path)
        except TerrascapeError:
            continue
        if artifact.spec.kind == kind and artifact.sibling(ending).is_file():
            found.append(artifact)
        if len(found) == limit:
            break
    return found


def files_beside(path: Path, endings: Iterable[str]) -> dict[str, Path]:
    """Give the files that lie beside a render's file and share its stem, by ending."""
    stem, known = path.name, list(endings)
    for ending in sorted(known, key=len, reverse=True):
        if stem.endswith(ending):
            stem = stem.removesuffix(ending)
            break
    found = {ending: path.with_name(f"{stem}{ending}") for ending in known}
    return {ending: file for ending, file in found.items() if file.is_file()}


def files_among(artifact: Artifact, out: Path, endings: Iterable[str]) -> dict[str, Path]:
    """Give the files of an opened render: those among the results if they are the same render.

    Where they are not, the opened file alone, unless it is a manifest.
    """
    known = list(endings)
    for manifest in sorted(out.glob(f"{stem_of(artifact.spec)}*.json")):
        try:
            if read_artifact(manifest).record == artifact.record:
                return files_beside(manifest, known)
        except TerrascapeError:
            continue
    return {artifact.ending: artifact.path} if artifact.ending != ".json" else {}


def file_sha256(path: Path) -> str:
    """Give the fingerprint of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except TerrascapeError:  # too large to be one of ours, or gone meanwhile
        return ""


def among_results(path: Path | None, out: Path) -> str | None:
    """Give a file's path if it lies among the results."""
    try:
        inside = path is not None and path.resolve().is_relative_to(out.resolve())
        return str(path) if inside and path is not None and path.is_file() else None
    except OSError:  # a name that no system would take
        return None


def _saved_layout(artifact: Artifact, out: Path) -> Path | None:
    return _first(_beside_or_in(artifact, out, ".layout.png"), _layout_sha256(artifact))


def _layout_sha256(artifact: Artifact) -> object:
    layout = artifact.record.get("layout")
    return layout.get("pixels_sha256") if isinstance(layout, dict) else None


def _was_online(artifact: Artifact) -> bool:
    provenance = artifact.record.get("provenance")
    return isinstance(provenance, dict) and bool(provenance.get("online"))


def _beside_or_in(artifact: Artifact, out: Path, ending: str) -> list[Path]:
    """List where a render's file of an ending may lie; an upload keeps neither folder nor name."""
    return [artifact.sibling(ending), *sorted(out.glob(f"{stem_of(artifact.spec)}*{ending}"))]


def _first(paths: Iterable[Path], sha256: object) -> Path | None:
    """Give the first picture that has the pixels which a record names."""
    for path in paths:
        try:
            if path.is_file() and pixels_sha256(open_rgb(path)) == sha256:
                return path
        except TerrascapeError:
            continue
    return None
