"""Sounds put together: each at its level and its place between two loudspeakers."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from generation.errors import InvalidSpecError
from generation.layer_spec import LayerSpec

LEVEL_DB = -23.0
"""What a source at 0 dB is brought to, as the square mean of its samples below full scale."""
CEILING_DB = -1.0
"""What no sample of a mix exceeds."""
_SILENT_DB = -90.0


def level_db(samples: Float[np.ndarray, "*n"]) -> float:
    """Give the square mean of some samples in decibels below full scale; silence is -inf."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10 * math.log10(power) if power > 0 else -math.inf


def mix(
    sounds: Sequence[Float[np.ndarray, " n"]], layers: Sequence[LayerSpec]
) -> tuple[Float[np.ndarray, "n 2"], list[str]]:
    """Bring each sound to its level, place it, and add all of them up.

    Args:
        sounds: Of one length, one for each layer.
        layers: How loud and where; all sounds are brought to one level first, so that 0 dB means
            the same for each.

    Returns:
        Two channels in -1 to 1, and what was changed beyond what was asked for.

    Raises:
        InvalidSpecError: There are not as many sounds as layers, or none.

    Source:
        Constant power: the squares of both channels' gains sum to one wherever a sound stands.
    """
    if not layers or len(sounds) != len(layers):
        raise InvalidSpecError(
            f"{len(sounds)} sounds for {len(layers)} layers (give one for each, at least one)"
        )
    both = np.zeros((len(sounds[0]), 2))
    notes = []
    for sound, layer in zip(sounds, layers, strict=True):
        own = level_db(sound)
        if own < _SILENT_DB:
            notes.append(f"layer {layer.name!r} came out silent")
            continue
        gain = 10 ** ((LEVEL_DB + layer.level_db - own) / 20)
        angle = (layer.pan + 1) * math.pi / 4
        both += gain * sound[:, None] * np.array([math.cos(angle), math.sin(angle)])
    ceiling = 10 ** (CEILING_DB / 20)
    loudest = float(np.abs(both).max())
    if loudest > ceiling:
        both *= ceiling / loudest
        notes.append(
            f"the mix is {20 * math.log10(loudest / ceiling):.1f} dB lower than asked for, so that "
            "its peaks fit"
        )
    return both.astype(np.float32), notes
