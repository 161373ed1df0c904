"""The card of plausibility of panoramas and of soundscapes, beside that of satellite images.

A panorama is held to the satellite image around it by a model that learnt which belong together,
and the image's own card stands below. A soundscape is held to its place among the clips of the
embedded gallery, in the space that its sources and the best of its candidates were chosen by: so
this says how well that choice went, and is no second opinion (``tagger`` in a record is one).
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from generation.encoders.cross_view import Above, load_cross_view
from generation.encoders.gallery import MAX_TOP, Gallery
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_encoder import SoundEncoder
from generation.errors import TerrascapeError
from generation.media.audio import Recording
from generation.pipelines.plausibility import floor, plausibility
from generation.spec import RunSpec

CROSS_VIEW = "birdsat-nano"
"""What judges panoramas."""


def of_panorama(
    image: UInt8[np.ndarray, "height width 3"],
    satellite: UInt8[np.ndarray, "side side 3"] | None,
    spec: RunSpec,
) -> dict[str, Any]:
    """Judge a panorama.

    Args:
        image: What was drawn, north in the middle.
        satellite: The image around its place, if there is one.
        spec: What was asked for.

    Returns:
        Figures by name, with those of rendered panoramas under ``rendered``; where nothing can be
        said, why.
    """
    if satellite is None:
        return {"note": "not judged: there is no satellite image to hold the panorama to"}
    below = {"satellite": plausibility(satellite, spec)}
    try:
        judge = load_cross_view(CROSS_VIEW)
        above = Above(satellite[None], np.array([[spec.lat, spec.lon]], np.float32))
        alike = float((judge.ground(image[None]) @ judge.satellite(above).T)[0, 0])
        found = {"satellite": round(alike, 4)}
        if judge.matches:
            found["match"] = round(float(judge.match(image[None], above)[0]), 4)
        rendered = floor(judge.folder)
    except TerrascapeError as error:  # a panorama is worth keeping though its judge is not here
        return {"note": f"not judged: {error}", **below}
    return {"agreement": found, "rendered": rendered, **below}


def of_soundscape(
    samples: Float[np.ndarray, " n"],
    rate: int,
    place: Embedding | None,
    encoder: SoundEncoder,
    gallery: Path,
) -> dict[str, Any]:
    """Judge a soundscape.

    Args:
        samples: The mix of both channels, -1 to 1.
        rate: Samples a second.
        place: Where it is heard, in the encoder's space, if an image of it is known.
        encoder: The space.
        gallery: Its clips.

    Returns:
        Figures by name; where nothing can be said, why.
    """
    if place is None:
        return {"note": "not judged: there is no satellite image of the place"}
    try:
        heard = encoder.audio([Recording(samples, rate)])
        fits = float(likeness(place, heard)[0, 0])
        known = Gallery.open(str(gallery), encoder.sha256)
        clips = known.search(place, MAX_TOP, kinds=("clip",))
        nearest = known.search(heard, 1, kinds=("clip",))[0]
    except TerrascapeError as error:
        return {"note": f"not judged: {error}"}
    return {
        "judge": "the space that chose what is heard",
        "fits_its_place": round(fits, 4),
        "share_of_clips_that_fit_better": round(
            sum(clip.score > fits for clip in clips) / len(clips), 4
        ),
        "novelty": {"most_alike": round(nearest.score, 4), "clip": nearest.title},
        "clips": len(clips),
    }
