"""One layout under many looks: a film along the great circle between two places.

Every frame has the same layout and the same noise; only the place whose look it has moves.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.encoders.retrieval import between
from generation.errors import InvalidSpecError
from generation.media.artifact import save_render
from generation.media.folder import atomic_write
from generation.media.image import png_bytes
from generation.pipelines.satellite import render
from generation.spec import RunSpec

MAX_FRAMES = 60


@dataclass(frozen=True, slots=True)
class Film:
    """What was drawn."""

    frames: list[Path]
    """The picture of each frame."""
    strip: Path
    """All of them side by side."""
    notes: list[str]


def frames_of(spec: RunSpec, to: tuple[float, float], frames: int) -> list[RunSpec]:
    """Describe the frames.

    Args:
        spec: The first, or its place if it has no style of elsewhere.
        to: Latitude and longitude that the last looks like.
        frames: 2 to :data:`MAX_FRAMES`.

    Raises:
        InvalidLocationError: ``to`` is no place.
        InvalidSpecError: The number is out of range, or the two places lie opposite each other.
    """
    if not 2 <= frames <= MAX_FRAMES:
        raise InvalidSpecError(f"frames={frames} is not allowed (give 2 to {MAX_FRAMES})")
    start = (
        (spec.lat, spec.lon)
        if spec.style_lat is None or spec.style_lon is None
        else (spec.style_lat, spec.style_lon)
    )
    places = [between(start, to, number / (frames - 1)) for number in range(frames)]
    return [replace(spec, style_lat=lat, style_lon=lon) for lat, lon in places]


def draw_film(
    specs: list[RunSpec],
    out: Path,
    *,
    on_frame: Callable[[int, int], None] | None = None,
    online: bool = False,
) -> Film:
    """Draw and save frames, and beside them a strip of all.

    Raises:
        TerrascapeError: Whatever the person can mend.
    """
    pictures: list[UInt8[np.ndarray, "height width 3"]] = []
    files, notes = [], dict[str, None]()
    for number, spec in enumerate(specs):
        done = render(spec, online=online)
        files.append(save_render(done, out)[0])
        pictures.append(done.image)
        said = done.provenance["notes"]
        notes |= dict.fromkeys(said if isinstance(said, list) else [])
        if on_frame is not None:
            on_frame(number + 1, len(specs))
    strip = out / f"{files[0].stem}.film.png"
    told = {"synthetic": "true", "frames": json.dumps([file.name for file in files])}
    atomic_write(strip, png_bytes(np.concatenate(pictures, axis=1), told))
    return Film(files, strip, list(notes))
