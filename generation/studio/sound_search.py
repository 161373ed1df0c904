"""Questions to a gallery: words or a clip, and what is found for them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from generation.errors import InvalidSpecError, shown
from generation.geo.location import EARTH_RADIUS_KM, Location, Region
from generation.spec import MAX_PROMPT
from generation.studio.score_map import ScoreMap, score_map
from generation.studio.sounds import SOUND_ENDINGS, describe_sound
from generation.studio.worker import Desk

if TYPE_CHECKING:
    from generation.encoders.gallery_rows import Hit
    from generation.encoders.heads import Embedding
    from generation.encoders.sound_encoder import SoundEncoder

# Annotations that name these are strings: the shape checks of the tests resolve them late.

MAX_HITS = 50
"""How many results the page shows at most."""
NEAR_KM = 1000.0
"""How far from the place, to each side, a search near it reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a gallery: words or a clip."""

    text: str = ""
    clip: Path | None = None
    """A recording, or the image of a place; asked with where there is no text."""
    kinds: tuple[str, ...]
    top: int
    near: Location | None = None
    """Only results around it are given; those without a place are not."""

    @classmethod
    def of(
        cls,
        text: str | None,
        clip: str | None,
        kinds: Sequence[str],
        top: float | int | None,
        near: Location | None,
    ) -> "Question":
        """Take what the page's fields hold; the words count where both are given.

        Raises:
            InvalidSpecError: There is nothing to ask, or a field holds what it may not.
        """
        words = (text or "").strip()
        if not words and not clip:
            raise InvalidSpecError(
                f"nothing to search by (write what is heard, or drop a {SOUND_ENDINGS} file)"
            )
        if len(words) > MAX_PROMPT:
            raise InvalidSpecError(
                f"the question has {len(words)} characters ({MAX_PROMPT} are allowed; shorten it)"
            )
        if not kinds:
            raise InvalidSpecError("no kind of result is chosen (tick at least one)")
        if not isinstance(top, int | float) or top not in range(1, MAX_HITS + 1):
            raise InvalidSpecError(f"{shown(top)} results cannot be shown (give 1 to {MAX_HITS})")
        asked = None if words or not clip else Path(clip)
        return cls(text=words, clip=asked, kinds=tuple(kinds), top=int(top), near=near)

    @property
    def label(self) -> str:
        """What was asked, for people."""
        return f"“{self.text}”" if self.clip is None else self.clip.name


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gallery gives for a question."""

    question: Question
    hits: "list[Hit]"
    scores: ScoreMap | None
    """Of all its tiles; absent where it has none."""
    model: str
    """The space that it was understood in."""


def ask(question: Question, desk: Desk) -> Answer:
    """Search the desk's gallery, and compare all its tiles.

    Raises:
        TerrascapeError: There is no gallery, its model is not here or another one than made it, or
            the clip cannot be read.
    """
    from generation.encoders.gallery import Gallery
    from generation.encoders.sound_encoder import load_sound_encoder

    with desk.ear:
        gallery = Gallery.open(desk.gallery)
        encoder = load_sound_encoder(gallery.maker.model)
        gallery.require(encoder.sha256)
        query = _embedded(question, encoder)
        region = None if question.near is None else around(question.near, NEAR_KM)
        hits = gallery.search_each(query, question.top, kinds=question.kinds, region=region)
        latlon, scores = gallery.tile_scores(query)
    drawn = score_map(latlon, scores) if len(scores) else None
    return Answer(question, hits, drawn, encoder.name)


def around(place: Location, reach_km: float) -> Region:
    """Give the box that reaches so far from a place, to each side.

    Args:
        place: Its middle.
        reach_km: Kilometres to the north, south, east and west.
    """
    d_lat = math.degrees(reach_km / EARTH_RADIUS_KM)
    south, north = max(-90.0, place.lat - d_lat), min(90.0, place.lat + d_lat)
    narrow = math.cos(math.radians(max(abs(south), abs(north))))
    if d_lat >= 180 * narrow:  # a pole is near: every longitude lies within reach
        return Region(-180.0, south, 180.0, north)
    west, east = ((place.lon + side * d_lat / narrow + 180) % 360 - 180 for side in (-1, 1))
    return Region(west, south, east, north)


def _embedded(question: Question, encoder: "SoundEncoder") -> "Embedding":
    if question.clip is None:
        return encoder.text([question.text])
    from generation.media.audio import open_audio
    from generation.media.geotiff import TIFF_MAGICS, geotiff_image
    from generation.media.image import read_bytes

    describe_sound(question.clip)
    if read_bytes(question.clip)[:4] in TIFF_MAGICS:
        return encoder.placed(geotiff_image(read_bytes(question.clip)))
    return encoder.audio([open_audio(question.clip)])
