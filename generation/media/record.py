"""What is kept of a render: its files' bytes, and the record that says how it was made.

The record depends on nothing but the spec, the model and the machine's software, so a replay can
be compared byte by byte; what changes from run to run (seconds) is left out.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int16, UInt8

from generation.geo.layout import Layout
from generation.media.panorama import PanoramaRender
from generation.media.panorama_files import (
    about_sphere,
    as_jpeg,
    panorama_endings,
    panorama_files,
)
from generation.media.satellite_files import (
    PICTURES,
    OnMap,
    about_map,
    layout_png,
    satellite_files,
)
from generation.media.soundscape import (
    SoundscapeRender,
    about_sound,
    soundscape_endings,
    soundscape_files,
)
from generation.spec import RunSpec

FORMAT = 1
"""Version of the record's form."""
LAYOUT = ".layout.png"
Content = UInt8[np.ndarray, "height width 3"] | Int16[np.ndarray, "n channels"]
"""What a file holds: the pixels of a picture, or the samples of a sound."""
VOLATILE = ("seconds",)
"""Keys of a render's provenance that differ from run to run."""


@runtime_checkable
class Rendered(Protocol):
    """What a pipeline hands over to be saved: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def image(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture; of a sound, its spectrogram."""

    @property
    def layout(self) -> Layout | None:
        """The layout that it followed."""

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""

    @property
    def provenance(self) -> dict[str, object]:
        """How it was made: model, hashes, versions, licences, attribution, seconds."""


Renderer = Callable[..., Rendered]
"""What renders, as the pipelines do: called with ``(spec, *, on_step, cancelled, online)``."""


def encode(render: Rendered) -> dict[str, bytes]:
    """Give the bytes of a render's files by ending, the manifest excepted."""
    record = canonical(make_record(render))
    if isinstance(render, PanoramaRender):
        files = panorama_files(render, record)
    elif isinstance(render, SoundscapeRender):
        files = soundscape_files(render, record)
    else:
        files = satellite_files(_on_map(render), record)
    if render.layout is not None:
        files[LAYOUT] = layout_png(render.layout)
    return files


def as_saved(render: Rendered) -> Content:
    """Give what the file holds, which after JPEG or 16 bits is not quite what was made."""
    if isinstance(render, SoundscapeRender):
        return render.stored()
    return as_jpeg(render.image) if isinstance(render, PanoramaRender) else render.image


def make_record(render: Rendered) -> dict[str, object]:
    """Describe a render by what is the same in every replay."""
    layout = None
    if render.layout is not None:
        layout = {
            "attribution": render.layout.attribution,
            "notes": list(render.layout.notes),
            "pixels_sha256": pixels_sha256(render.layout.rgb()),
            "source": render.layout.source,
        }
    kept = {name: value for name, value in render.provenance.items() if name not in VOLATILE}
    record: dict[str, object] = {
        "format": FORMAT,
        "synthetic": True,
        "spec": render.spec.to_dict(),
        content_key(render.spec): pixels_sha256(as_saved(render)),
        "layout": layout,
        "provenance": kept,
    }
    if isinstance(render, PanoramaRender):
        record |= about_sphere(render)
    elif isinstance(render, SoundscapeRender):
        record |= about_sound(render)
    if isinstance(render, PanoramaRender | SoundscapeRender):
        known = render.satellite
        record["satellite"] = known if known is None else {"pixels_sha256": pixels_sha256(known)}
    else:
        record |= about_map(_on_map(render))
    plain: dict[str, object] = json.loads(canonical(record))  # tuples as lists, as in a file
    return plain


def content_key(spec: RunSpec) -> str:
    """Name the fingerprint of what the file of a spec holds."""
    return "samples_sha256" if spec.kind == "soundscape" else "pixels_sha256"


def pixels_sha256(content: Content) -> str:
    """Give the fingerprint of an image's size and pixels, or a sound's, however it is stored."""
    height, width = content.shape[:2]
    return hashlib.sha256(b"%d,%d;" % (height, width) + content.tobytes()).hexdigest()


def endings(record: object) -> list[str]:
    """Give the endings of the files that a record tells of."""
    if not isinstance(record, dict):
        return [*PICTURES]
    layout = [LAYOUT] if record.get("layout") is not None else []
    if "rate_hz" in record:
        return [*soundscape_endings(record), *layout]
    if "projection" in record:
        return [*panorama_endings(record), *layout]
    return [*PICTURES, *layout]


def _on_map(render: Rendered) -> OnMap:
    if not isinstance(render, OnMap):
        raise TypeError(f"a {type(render).__name__} is neither a panorama nor lies on a map")
    return render


def canonical(value: object) -> str:
    """Write JSON so that equal values give equal texts."""
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
