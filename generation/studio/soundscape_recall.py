"""Earlier soundscapes: back into the tab, and the files that belong to one of them."""

from dataclasses import dataclass
from pathlib import Path

from generation.errors import TerrascapeError
from generation.layer_spec import LayerSpec
from generation.media.artifact import Artifact
from generation.media.sound_files import FLAC, WAV
from generation.media.soundscape import LAYERS, SPECTROGRAM
from generation.spec import SILENT, RunSpec
from generation.studio.panorama_recall import image_in_reach, in_reach
from generation.studio.recall import files_among, files_beside, refuse_others
from generation.studio.soundscape_form import ANY, SoundscapeForm, hour_text
from generation.studio.soundscape_layers import GivenLayer, spec_layer

ENDINGS = (FLAC, WAV, SPECTROGRAM, LAYERS, ".satellite.png", ".json")
"""The files of a soundscape, which share a stem."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The tab's fields for a spec of an earlier render."""

    form: SoundscapeForm
    note: str = ""
    """What could not be brought back as it was."""


def restore(artifact: Artifact, out: Path) -> Restored:
    """Fill the tab from a saved render.

    A recording or a satellite image is opened only if it lies among the results: a file from
    elsewhere must not make the page read whatever path it names.

    Raises:
        InvalidSpecError: It is no soundscape.
    """
    spec = artifact.spec
    refuse_others(spec, "soundscape")
    given, notes = _layers_in_reach(spec, out)
    choice, image, lost = image_in_reach(spec, out)
    if spec.layout != "auto":
        lost.append("its satellite image followed another layout than the world layers")
    form = SoundscapeForm(
        lat=spec.lat,
        lon=spec.lon,
        month=ANY if spec.month is None else spec.month,
        hour=hour_text(spec.hour),
        seconds=spec.seconds,
        loop=spec.loop,
        choice=choice,
        image=image,
        prompt=spec.prompt,
        use_location=spec.use_location,
        seed=str(spec.seed),
        steps=spec.steps,
        sound_guidance=spec.sound_guidance,
        candidates=spec.candidates,
        model=spec.model,
        sound_model=spec.sound_model,
        caption=spec.sound_text,
        given=given,
        rows="[]",
    )
    return Restored(form, "; ".join([*notes, *lost]))


def files_of(path: Path) -> dict[str, Path]:
    """Give the files that lie beside a render's file, by ending."""
    return files_beside(path, ENDINGS)


def find_files(artifact: Artifact, out: Path) -> dict[str, Path]:
    """Give the files of an opened render: those among the results if they are the same render."""
    return files_among(artifact, out, ENDINGS)


def _layers_in_reach(spec: RunSpec, out: Path) -> tuple[list[GivenLayer], list[str]]:
    """Give the sources that can be had again, and what is to be told of the others."""
    layers = spec.layers
    if spec.sound != SILENT:
        layers = (LayerSpec(file=spec.sound, sha256=spec.sound_sha256),)
    given: list[GivenLayer] = []
    notes = []
    for layer in layers:
        path = None if layer.file is None else Path(layer.file)
        try:
            if path is None or in_reach(path, layer.sha256, out) is not None:
                given.append(spec_layer(layer, given))
                continue
        except TerrascapeError:  # damaged since
            pass
        name = "" if path is None else path.name
        notes.append(f"its recording {name!r} is not among the results: drop it again")
    return given, notes
