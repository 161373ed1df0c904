"""A finished soundscape, and the files that it becomes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16, UInt8

from generation.geo.layout import Layout
from generation.layer_spec import LayerSpec
from generation.media.image import png_bytes
from generation.media.panorama_files import SATELLITE
from generation.media.sound_files import FLAC, WAV, as_int16, flac_bytes, wav_bytes
from generation.spec import RunSpec

SPECTROGRAM, LAYERS = ".spectrogram.png", ".layers.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoundscapeRender:
    """A finished soundscape and all that is needed to make it again."""

    samples: Float[np.ndarray, "n 2"]
    """Left and right, -1 to 1."""
    rate: int
    """Samples a second."""
    image: UInt8[np.ndarray, "height width 3"]
    """Its spectrogram."""
    spec: RunSpec
    layers: tuple[LayerSpec, ...]
    """Its sources as they were mixed: the spec's, or those that the place suggested."""
    satellite: UInt8[np.ndarray, "height2 width2 3"] | None
    """The satellite image that it knew, if any."""
    layout: Layout | None
    """What a generated satellite image follows, if any."""
    provenance: dict[str, object]

    def stored(self) -> Int16[np.ndarray, "n 2"]:
        """Give the samples as files hold them."""
        return as_int16(self.samples)


def soundscape_files(render: SoundscapeRender, record: str) -> dict[str, bytes]:
    """Give the bytes of a soundscape's files by ending, the record inside the sounds."""
    texts = {"Synthetic": "true", "RunSpec": render.spec.to_json(), "Terrascape": record}
    about = {"Software": "Terrascape", "Synthetic": "true"}
    files = {
        FLAC: flac_bytes(render.stored(), render.rate, texts),
        WAV: wav_bytes(render.stored(), render.rate, texts),
        SPECTROGRAM: png_bytes(render.image, {**about, "Description": "spectrogram"}),
        LAYERS: layers_json(render.layers),
    }
    if render.satellite is not None:
        told = {**about, "Description": "the satellite image that the sound was made for"}
        credit = str(render.provenance.get("attribution") or "")
        files[SATELLITE] = png_bytes(
            render.satellite, told | ({"Copyright": credit} if credit else {})
        )
    return files


def layers_json(layers: tuple[LayerSpec, ...]) -> bytes:
    """Write layers as a list that a person can edit and give again."""
    rows = ",\n".join(
        "  " + json.dumps(layer.to_dict(), sort_keys=True, ensure_ascii=False) for layer in layers
    )
    return f"[\n{rows}\n]\n".encode()


def soundscape_endings(record: Mapping[str, object]) -> list[str]:
    """Give the endings of all files that a record tells of, its layout excepted."""
    satellite = [SATELLITE] if record.get("satellite") is not None else []
    return [FLAC, WAV, SPECTROGRAM, LAYERS, *satellite]


def about_sound(render: SoundscapeRender) -> dict[str, object]:
    """Tell how long it is, at which rate, and what was mixed."""
    return {
        "rate_hz": render.rate,
        "samples": len(render.samples),
        "channels": 2,
        "layers": [layer.to_dict() for layer in render.layers],
    }
