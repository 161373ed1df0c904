"""What is heard at a place: sources that are given, or found by what is like the place."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from generation.encoders.gallery import Gallery
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_encoder import SoundEncoder
from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.geo.mercator import gsd_m
from generation.layer_spec import MAX_LAYERS, LayerSpec
from generation.pipelines.overhead import ZOOM, Overhead
from generation.registry import GALLERY
from generation.spec import SILENT, RunSpec

VIEW_PX = 128
"""Side of the middle of a satellite image that a shared space looks at, as in its galleries."""
MOST_FOUND = 3
"""Sources that a place suggests at most."""
_SHARPNESS = 0.1
"""Fall of likeness over which a source's weight falls to a third."""
_LEAST_WEIGHT = 0.2
"""Of the strongest source's weight: what is weaker is left out."""
_SAME = 0.6
"""Likeness from which two captions speak of one source."""
_BETWEEN = re.compile(r"\s*(?:[,;.]|\band\b|\bwith\b|\bwhile\b|\bover\b)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A sentence of what is heard, and where it is from."""

    text: str
    origin: str
    """``given`` by the person, ``retrieved`` from the gallery, or ``written`` by a model."""
    score: float | None
    """Likeness to the place, where there is an image of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sources of a soundscape and what they rest on."""

    layers: tuple[LayerSpec, ...]
    captions: tuple[Caption, ...] = ()
    place: Embedding | None = None
    """The place in the shared space, where there is an image of it."""


def plan_of(
    spec: RunSpec, ground: Overhead, encoder: SoundEncoder, *, online: bool = False
) -> Plan:
    """Decide the sources of a soundscape.

    Layers are taken as they are given; a sentence is split into its sources; without either, the
    captions that are most like the satellite image at this place, month and hour are retrieved,
    those that speak of one source once; or a captioner writes one.

    Args:
        spec: What is to be heard.
        ground: The satellite image, if any.
        encoder: The shared space.
        online: Whether a captioner's weights may be fetched from the Hub.

    Raises:
        InvalidSpecError: Nothing is given and there is no image of the place.
    """
    place, origin = embedding_of(spec, ground, encoder), "given"
    if spec.layers:
        layers = spec.layers
    elif spec.sound != SILENT:
        layers = (LayerSpec(file=spec.sound, sha256=spec.sound_sha256),)
    elif spec.sound_text.strip():
        layers = spread([(text, 0.0) for text in split(spec.sound_text)])
    elif place is None:
        raise InvalidSpecError(
            "nothing says what is heard: no caption, no layers, no recording, and no satellite "
            "image (give one of them)"
        )
    elif spec.captioner:
        layers = spread([(text, 0.0) for text in split(_written(spec, ground, online=online))])
        origin = "written"
    else:
        return _found(place, encoder)
    told = [layer.text for layer in layers if layer.text]
    scores = _likeness(encoder, told, place)
    captions = [Caption(text=t, origin=origin, score=s) for t, s in zip(told, scores, strict=True)]
    return Plan(layers=layers, captions=tuple(captions), place=place)


def embedding_of(spec: RunSpec, ground: Overhead, encoder: SoundEncoder) -> Embedding | None:
    """Embed the middle of the satellite image with place, month and hour."""
    if ground.rgb is None:
        return None
    start = (len(ground.rgb) - VIEW_PX) // 2
    middle = ground.rgb[start : start + VIEW_PX, start : start + VIEW_PX]
    place = Location(spec.lat, spec.lon)
    known = encoder.known([place if spec.use_location else None], spec.month, spec.hour)
    return encoder.image(middle[None], np.array([gsd_m(spec.lat, ZOOM)], np.float32), known)


def split(sentence: str) -> list[str]:
    """Split a sentence into its sources: at commas, and at words that join.

    Raises:
        InvalidSpecError: There are more than a soundscape may have.
    """
    parts = [part.strip() for part in _BETWEEN.split(sentence) if part.strip()]
    parts = list(dict.fromkeys(parts)) or [sentence.strip()]
    if len(parts) > MAX_LAYERS:
        raise InvalidSpecError(
            f"the caption has {len(parts)} sources, {MAX_LAYERS} are allowed (make it shorter, or "
            "give layers)"
        )
    return parts


def spread(sources: Sequence[tuple[str, float]]) -> tuple[LayerSpec, ...]:
    """Put sources, each with its level, between the loudspeakers, the first in the middle."""
    return tuple(
        LayerSpec(text, level_db=round(level, 1), pan=_pan(number))
        for number, (text, level) in enumerate(sources)
    )


def _pan(number: int) -> float:
    """Alternate sides, ever further out: 0, -0.4, 0.4, -0.6, 0.6, ..."""
    if number == 0:
        return 0.0
    side = -1 if number % 2 else 1
    return round(side * min(0.4 + 0.2 * ((number - 1) // 2), 1.0), 2)


def _found(place: Embedding, encoder: SoundEncoder) -> Plan:
    gallery = Gallery.open(str(GALLERY), encoder.sha256)
    hits = gallery.search(place, 4 * MOST_FOUND, kinds=("caption",))
    return best_of([(hit.title, hit.score) for hit in hits], place, encoder)


def best_of(found: Sequence[tuple[str, float]], place: Embedding, encoder: SoundEncoder) -> Plan:
    """Make sources of the captions that are most like a place, those that speak of one once.

    Args:
        found: Captions and their likeness to the place, the best first.
        place: Its embedding.
        encoder: The shared space.
    """
    told = encoder.text([text for text, _ in found])
    alike = likeness(told, told)
    best, chosen = found[0][1], list[int]()
    for number, (_, score) in enumerate(found):
        if any(float(alike[number, other]) >= _SAME for other in chosen):
            continue
        if len(chosen) == MOST_FOUND or _weight(score - best) < _LEAST_WEIGHT:
            break
        chosen.append(number)
    kept = [found[number] for number in chosen]
    sources = [(text, 20 * math.log10(_weight(score - best))) for text, score in kept]
    captions = [
        Caption(text=text, origin="retrieved", score=round(score, 4)) for text, score in kept
    ]
    return Plan(layers=spread(sources), captions=tuple(captions), place=place)


def _written(spec: RunSpec, ground: Overhead, *, online: bool) -> str:
    """Let a model write what could be heard in the satellite image.

    Raises:
        InvalidSpecError: It wrote nothing, or is no captioner.
    """
    from generation.encoders.captioner import load_captioner

    assert ground.rgb is not None  # noqa: S101 - there is an embedding of it
    (caption,) = load_captioner(spec.captioner, online=online).captions(ground.rgb[None])
    if not caption.strip():
        raise InvalidSpecError(
            f"{spec.captioner} wrote no caption for this place (give one, or leave captioner out)"
        )
    return caption


def _weight(fall: float) -> float:
    return math.exp(fall / _SHARPNESS)


def _likeness(
    encoder: SoundEncoder, told: Sequence[str], place: Embedding | None
) -> list[float | None]:
    if place is None or not told:
        return [None] * len(told)
    return [round(float(each), 4) for each in likeness(place, encoder.text(told))[0]]
