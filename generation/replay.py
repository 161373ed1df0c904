"""Make a saved render again, and say whether it comes out the same, and if not, why."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generation.checkpoint import sha256_file
from generation.errors import LayoutError, MissingFileError, shown
from generation.media.artifact import Artifact, manifest_mistakes
from generation.media.image import read_bytes
from generation.media.record import (
    Content,
    Rendered,
    Renderer,
    as_saved,
    content_key,
    encode,
    make_record,
    pixels_sha256,
)
from generation.spec import LayerSpec, RunSpec

MAX_THREADS = 256
CLOSE_DB = {np.dtype(np.uint8): 30.0, np.dtype(np.int16): 50.0}
"""PSNR from which two pictures, or two sounds, are called close."""
_MACHINE = ("provenance.versions", "provenance.device", "provenance.threads")
"""Parts of the record that may differ while the picture is still the same."""
_MAKER = ("model", "model_sha256", "versions", "device", "threads", "seconds")
"""Parts of a provenance that tell who rendered, not what."""


@dataclass(frozen=True)
class Verdict:
    """How a replay compares with the file."""

    equal: bool
    text: str
    """One line: equal, close with PSNR, or why not."""
    psnr_db: float | None
    """None where the pictures are the same or have different sizes."""
    differences: tuple[str, ...]
    """Where the records differ: ``name: recorded -> now``."""


def render_again(artifact: Artifact, renderer: Renderer, **options: object) -> Rendered:
    """Render an artefact's spec anew.

    A layout file that is gone or changed is replaced by the layout saved beside the artefact, and
    so is one that came from the network, since maps change. Views, recordings and satellite images
    out of files must be there as they were, or lie beside the artefact, as they do when a folder
    was moved.

    Args:
        artifact: What was read from disk.
        renderer: What makes the render.
        options: Handed on to it.

    Raises:
        LayoutError: Neither the layout nor its saved copy is there.
        MissingFileError: A view or the satellite image of a panorama is gone.
        InvalidSpecError: It has changed.
    """
    spec = _found_again(artifact)
    saved = _saved_layout(artifact, spec)
    with _recorded_threads(artifact):
        if saved is None:
            return _as_described(renderer(spec, **options), artifact.spec)
        spec = dataclasses.replace(spec, layout=str(saved), layout_sha256=None).pinned()
        return _as_recorded(renderer(spec, **options), artifact)


def compare(artifact: Artifact, render: Rendered) -> Verdict:
    """Say whether a render is what the artefact holds."""
    damage = manifest_mistakes(artifact.path) if artifact.ending == ".json" else []
    if damage:
        return Verdict(False, f"not equal: {'; '.join(damage)}", None, tuple(damage))
    pixels, record, drawn = artifact.pixels(), make_record(render), as_saved(render)
    differences = tuple(_differences(artifact.record, record))
    if np.array_equal(pixels, drawn):
        return _compare_files(artifact, render, differences)
    reason = _reason(artifact, pixels, differences)
    if pixels.shape != drawn.shape:
        sizes = " and ".join(f"{each.shape[1]}x{each.shape[0]}" for each in (pixels, drawn))
        return Verdict(False, f"not equal: sizes {sizes}; {reason}", None, differences)
    psnr = psnr_db(pixels, drawn)
    word = "close" if psnr >= CLOSE_DB[pixels.dtype] else "not equal"
    return Verdict(False, f"{word}: PSNR {psnr:.1f} dB; {reason}", psnr, differences)


def psnr_db(a: Content, b: Content) -> float:
    """Give the peak signal-to-noise ratio of two images or sounds, decibels; infinite if equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    peak = float(np.iinfo(a.dtype).max)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


@contextmanager
def _recorded_threads(artifact: Artifact) -> Iterator[None]:
    """Compute with as many threads as the original: sums split otherwise round otherwise."""
    provenance = artifact.record.get("provenance")
    threads = provenance.get("threads") if isinstance(provenance, dict) else None
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _found_again(artifact: Artifact) -> RunSpec:
    """Give the spec with its views and its satellite image where they lie now.

    Raises:
        MissingFileError: One of them is gone.
        InvalidSpecError: It has changed.
    """
    spec, changes = artifact.spec, dict[str, object]()
    if spec.kind == "satellite":
        return spec
    if spec.kind == "soundscape":
        changes |= _sounds_found(artifact)
    if spec.satellite_path is not None:
        there = _beside(artifact, "satellite", spec.satellite_path, spec.satellite_sha256)
        changes["satellite"] = str(there)
    if spec.views:
        changes["views"] = tuple(
            dataclasses.replace(
                view, file=str(_beside(artifact, "view", Path(view.file), view.sha256))
            )
            for view in spec.views
        )
    found = dataclasses.replace(spec, **changes)  # type: ignore[arg-type]  # its fields
    dataclasses.replace(found, layout="none", layout_sha256=None).pinned()
    return found


def _sounds_found(artifact: Artifact) -> dict[str, object]:
    """Give the recordings of a soundscape where they lie now."""
    spec, found = artifact.spec, dict[str, object]()
    if spec.sound_path is not None:
        found["sound"] = str(_beside(artifact, "sound", spec.sound_path, spec.sound_sha256))
    if any(layer.file for layer in spec.layers):
        found["layers"] = tuple(
            dataclasses.replace(
                each, file=str(_beside(artifact, "layer", Path(each.file), each.sha256))
            )
            if each.file
            else each
            for each in spec.layers
        )
    return found


def _beside(artifact: Artifact, what: str, path: Path, sha256: str | None) -> Path:
    """Give the place of an input: where it was or, with the same content, beside the artefact.

    A changed file stays where it is; its fingerprint tells.
    """
    parts = path.relative_to(path.anchor).parts if sha256 else ()
    ends = [Path(*parts[start:]) for start in reversed(range(len(parts)))]
    for candidate in (path, *(artifact.path.parent / end for end in ends)):
        if _holds(candidate, sha256):
            return candidate
    if _holds(path, None):
        return path
    known = f" whose fingerprint is {sha256}" if sha256 else ""
    raise MissingFileError(
        f"{what}={shown(str(path), None)} is no file{known}, nor does it lie beside "
        f"{artifact.path.name} (put it into one of the two places)"
    )


def _holds(path: Path, sha256: str | None) -> bool:
    """Tell whether a file is there, and with what content if that is known."""
    try:
        return path.is_file() and sha256 in (None, sha256_file(path))
    except OSError:  # also a name that is too long to ask for
        return False


def _saved_layout(artifact: Artifact, spec: RunSpec) -> Path | None:
    """Give the saved layout where it must stand in for the original; None: the original is fine."""
    provenance = artifact.record.get("provenance")
    online = isinstance(provenance, dict) and bool(provenance.get("online"))
    if spec.layout == "none" or (spec.layout_path is None and not online):
        return None
    if spec.kind != "satellite" and artifact.record.get("layout") is None:
        return None  # no map was asked for
    why = "came from the network"
    if spec.layout_path is not None:
        try:
            spec.pinned()
        except (MissingFileError, LayoutError) as error:
            why = f"cannot be used ({error})"
        else:
            return None
    saved = artifact.layout_file()
    if saved is None:
        raise LayoutError(
            f"{artifact.path}: its layout {why}, and {artifact.sibling('.layout.png').name} beside "
            "it is missing or changed as well (put one of them back)"
        )
    return saved


def _as_described(render: Rendered, spec: RunSpec) -> Rendered:
    """Tell a render as one of the files that its spec names, wherever they lie now."""
    told: dict[str, object] = {"spec": spec}
    if spec.kind == "soundscape" and spec.layers:
        told["layers"] = spec.layers
    elif spec.kind == "soundscape" and spec.sound_path is not None:
        told["layers"] = (LayerSpec(file=spec.sound, sha256=spec.sound_sha256),)
    return dataclasses.replace(render, **told)


def _as_recorded(render: Rendered, artifact: Artifact) -> Rendered:
    """Tell a render from the saved layout as one from the original, of which it is a copy."""
    told, recorded = artifact.record.get("layout"), artifact.record.get("provenance")
    layout = render.layout
    if layout is not None and isinstance(told, dict):
        layout = dataclasses.replace(
            layout,
            source=str(told.get("source")),
            attribution=str(told.get("attribution")),
            notes=tuple(told.get("notes", ())),
        )
    maker = {name: render.provenance[name] for name in _MAKER if name in render.provenance}
    provenance = {**recorded, **maker} if isinstance(recorded, dict) else render.provenance
    return dataclasses.replace(render, layout=layout, spec=artifact.spec, provenance=provenance)


def _compare_files(artifact: Artifact, render: Rendered, differences: tuple[str, ...]) -> Verdict:
    """Judge a replay whose picture is the same."""
    same_bytes = artifact.ending == ".json" or (
        encode(render)[artifact.ending] == read_bytes(artifact.path)
    )
    other = [each for each in differences if not each.startswith(_MACHINE)]
    if other:
        what = "sound" if artifact.spec.kind == "soundscape" else "picture"
        text = f"not equal: the {what} is the same, but its record is not: {'; '.join(other)}"
        return Verdict(False, text, None, differences)
    if differences:
        text = f"equal: every {_part(artifact)}, though made elsewhere: {'; '.join(differences)}"
        return Verdict(True, text, None, differences)
    anew = f"equal: every {_part(artifact)} and the record; the file was encoded anew"
    text = "equal" if same_bytes else anew
    return Verdict(True, text, None, ())


def _part(artifact: Artifact) -> str:
    return "sample" if artifact.spec.kind == "soundscape" else "pixel"


def _reason(
    artifact: Artifact,
    pixels: Content,
    differences: tuple[str, ...],
) -> str:
    key = content_key(artifact.spec)
    if pixels_sha256(pixels) != artifact.record.get(key):
        return f"the file's {key.partition('_')[0]} were changed after it was made"
    told = [each for each in differences if not each.startswith(key)]
    if told:
        return "; ".join(told)
    return "same model, layout and versions: this processor rounds differently"


def _differences(was: object, now: object, name: str = "") -> list[str]:
    """List where two records differ, as ``name: recorded -> now``."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        found = []
        for key in sorted({*was, *now}):
            inner = f"{name}.{key}" if name else str(key)
            found += _differences(was.get(key), now.get(key), inner)
        return found
    return [] if was == now else [f"{name}: {_brief(was)} -> {_brief(now)}"]


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
