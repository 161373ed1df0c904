"""RunSpec: the one description from which every picture is made, and made again."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from generation.errors import (
    AudioError,
    InvalidLocationError,
    InvalidSpecError,
    LayoutError,
    MissingFileError,
    shown,
)
from generation.geo.location import Location
from generation.geo.mercator import MAX_LAT, MAX_ZOOM, Window

KINDS = ("satellite",)
"""What can be rendered."""
MAX_PROMPT = 2000
"""Characters of a prompt; far more than the text encoder reads."""
MAX_SEED = 2**63 - 1
MAX_GUIDANCE = 20.0
LAYOUT_WORDS = ("auto", "none")
"""Values of ``layout`` that are not the path of a file."""
SILENT = "none"
"""The value of ``sound`` that is not the path of a file."""
_LATER = ("sound", "sound_sha256", "sound_text", "sound_guidance", "sound_model")
"""Fields that specs of before do not have. While they say nothing they are not written, so that
such a spec keeps its fingerprint."""
_WHOLE = {  # field: (lowest, highest, multiple of, how the bounds are told)
    "seed": (0, MAX_SEED, 1, "0 to 2^63 - 1"),
    "size": (64, 1024, 8, "64 to 1024, a multiple of 8"),
    "zoom": (0, MAX_ZOOM, 1, f"0 to {MAX_ZOOM}"),
    "steps": (1, 200, 1, "1 to 200"),
}
_REAL = ("text_guidance", "location_guidance", "layout_guidance", "sound_guidance")
_LATLON = ("lat", "lon")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that decides how a render looks; equal specs give equal pictures.

    A RunSpec that exists is valid: every field is checked on construction, all mistakes are
    reported in one error.
    """

    kind: str = "satellite"
    """What is rendered, one of ``KINDS``."""
    lat: float
    """Latitude of the centre, degrees; within the web-mercator map."""
    lon: float
    """Longitude of the centre, degrees, -180 to 180."""
    prompt: str = ""
    """What it should look like; empty: the learned null."""
    layout: str = "auto"
    """``auto``, ``none`` or the path of a layout file."""
    layout_sha256: str | None = None
    """SHA-256 of the layout file, filled by ``pinned``; None for ``auto`` and ``none``."""
    use_location: bool = True
    """Whether the model is told where on Earth the place lies."""
    seed: int = 0
    """Chooses the noise."""
    size: int = 256
    """Side of the square picture, pixels."""
    zoom: int = 8
    """Web-mercator zoom level, which sets the scale."""
    steps: int = 10
    """Steps of the sampler."""
    text_guidance: float = 2.0
    """How far the prompt is exaggerated; 1: as trained, 0: ignored."""
    location_guidance: float = 2.0
    """The same for the location."""
    layout_guidance: float = 2.0
    """The same for the layout."""
    model: str = "satellite-nano"
    """A name of ``generation.list_models()``."""
    sound: str = SILENT
    """``none``, or a file that it should sound like: a recording, or the image of a place."""
    sound_sha256: str | None = None
    """SHA-256 of that file, filled by ``pinned``."""
    sound_text: str = ""
    """In its stead, a sentence of what is heard there."""
    sound_guidance: float = 2.0
    """How far the sound is exaggerated."""
    sound_model: str = "sat2sound-nano"
    """The space that the sound is understood in, of ``generation.list_models("sound-space")``."""

    def __post_init__(self) -> None:
        self.validate()
        for name in (*_LATLON, *_REAL):  # 45 and 45.0, 0.0 and -0.0 are one spec, with one sha256
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)

    def validate(self) -> None:
        """Check every field.

        Raises:
            InvalidSpecError: Names each field that is wrong, its value and the cure.
        """
        _refuse(_mistakes(dataclasses.asdict(self)))

    def to_json(self) -> str:
        """Give the canonical form: ASCII, sorted keys, no spaces, floats that read back exactly."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False, separators=(",", ":"))

    def to_dict(self) -> dict[str, object]:
        """Give the fields by name, without later ones that say nothing."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in _LATER or v != defaults[k]}

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """Read what ``to_json`` wrote, or a line of a batch.

        Raises:
            InvalidSpecError: The text is no JSON object or describes no valid spec.
        """
        try:
            values = json.loads(text, object_pairs_hook=_unique_keys)
        except InvalidSpecError:
            raise
        except (ValueError, RecursionError) as error:
            raise InvalidSpecError(
                f"the description is no JSON ({error}); give one object like "
                '{"lat": 45.98, "lon": 7.66}'
            ) from None
        if not isinstance(values, dict):
            raise InvalidSpecError(
                f"the description is a JSON {type(values).__name__}; give one object like "
                '{"lat": 45.98, "lon": 7.66}'
            )
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "RunSpec":
        """Build a spec from named values; what is not named takes its default.

        Raises:
            InvalidSpecError: Unknown or missing names, wrong types or values, all in one message.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        wrong = [
            f"{shown(name)} is no field (known: {', '.join(known)})"
            for name in values
            if name not in known
        ]
        wrong += [
            f"{name} is missing (give degrees, latitude first)"
            for name in _LATLON
            if name not in values
        ]
        filled = {**known, **{name: values[name] for name in known if name in values}}
        _refuse(wrong + _mistakes(filled))
        filled.update({name: _as_real(filled[name]) for name in (*_LATLON, *_REAL)})
        return cls(**filled)  # type: ignore[arg-type]  # _mistakes has checked every type

    def sha256(self) -> str:
        """Give the fingerprint of the canonical form, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def window(self) -> Window:
        """Give the rectangle of the web-mercator map that is rendered."""
        return Window.around(Location(self.lat, self.lon), self.zoom, self.size)

    @property
    def layout_path(self) -> Path | None:
        """The layout file, if the layout comes from one."""
        return None if self.layout in LAYOUT_WORDS else Path(self.layout)

    @property
    def sound_path(self) -> Path | None:
        """The file that it should sound like, if there is one."""
        return None if self.sound == SILENT else Path(self.sound)

    @property
    def has_sound(self) -> bool:
        """Whether it is steered by a sound, a sentence of one or the image of a place."""
        return self.sound != SILENT or bool(self.sound_text.strip())

    def pinned(self) -> "RunSpec":
        """Give the spec with the fingerprints of its files filled in.

        Raises:
            MissingFileError: There is no such file.
            LayoutError: The layout is not the one whose fingerprint the spec carries.
            AudioError: The same of the sound.
        """
        files = {"layout": self.layout_path, "sound": self.sound_path}
        found = {f"{n}_sha256": _file_sha256(n, path) for n, path in files.items() if path}
        for name, sha256 in found.items():
            told = getattr(self, name)
            if told not in (None, sha256):
                field = name.removesuffix("_sha256")
                raise (LayoutError if field == "layout" else AudioError)(
                    f"{field}={shown(getattr(self, field), None)} has changed since its "
                    f"fingerprint was taken: {name}={told}, now {sha256} (restore the file, or "
                    f"leave {name} out)"
                )
        return dataclasses.replace(self, **found) if found else self  # type: ignore[arg-type]


_FILES = {
    "layout": "auto, none or the path of an .osm, .osm.pbf, .geojson, .parquet or .png file",
    "sound": "none, or the path of a .wav, .flac, .ogg or .mp3 file, or of a GeoTIFF",
}


def _file_sha256(name: str, path: Path) -> str:
    try:
        if not path.is_file():
            raise MissingFileError(
                f"{name}={shown(str(path), None)} is no file (give {_FILES[name]})"
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except MissingFileError:
        raise
    except OSError as error:  # also a name that is too long to ask for
        raise MissingFileError(
            f"{name}={shown(str(path), 300)} cannot be read: {error.strerror} (check its name and "
            "its permissions)"
        ) from error


def _refuse(wrong: list[str]) -> None:
    if wrong:
        raise InvalidSpecError("; ".join(wrong))


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidSpecError(f"{shown(name)} is given more than once (give it once)")
        values[name] = value
    return values


def _mistakes(values: Mapping[str, object]) -> list[str]:
    """Say what is wrong with the value of each field."""
    wrong = [
        *_whole_mistakes(values),
        *_real_mistakes(values),
        *_name_mistakes(values),
        *_text_mistakes("prompt", values["prompt"]),
        *_text_mistakes("sound_text", values["sound_text"]),
        *_layout_mistakes(values["layout"], values["layout_sha256"]),
        *_sound_mistakes(values["sound"], values["sound_sha256"], values["sound_text"]),
    ]
    if not isinstance(values["use_location"], bool):
        wrong.append(f"use_location={shown(values['use_location'])} (give true or false)")
    return [*_place_mistakes(values, windowed=not wrong), *wrong]


def _whole_mistakes(values: Mapping[str, object]) -> list[str]:
    wrong = []
    for name, (low, high, multiple, allowed) in _WHOLE.items():
        value = values[name]
        if not isinstance(value, int) or isinstance(value, bool):
            wrong.append(f"{name}={shown(value)} is no whole number (give {allowed})")
        elif not low <= value <= high or value % multiple:
            near = min(max(low, (value + multiple // 2) // multiple * multiple), high)
            hint = f", for example {near}" if multiple > 1 else ""
            wrong.append(f"{name}={shown(value)} is not allowed (give {allowed}{hint})")
    return wrong


def _real_mistakes(values: Mapping[str, object]) -> list[str]:
    wrong = []
    for name in _REAL:
        value = _as_real(values[name])
        if value is None:
            wrong.append(f"{name}={shown(values[name])} is no number (give 0 to {MAX_GUIDANCE:g})")
        elif not 0 <= value <= MAX_GUIDANCE:  # which NaN is not either
            given = shown(values[name])
            wrong.append(f"{name}={given} is not allowed (give 0 to {MAX_GUIDANCE:g})")
    return wrong


def _as_real(value: object) -> float | None:
    """Take a number as a float, anything else (also true and false) as None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _name_mistakes(values: Mapping[str, object]) -> list[str]:
    wrong = []
    if values["kind"] not in KINDS:
        wrong.append(f"kind={shown(values['kind'])} is unknown (give {' or '.join(KINDS)})")
    for name in ("model", "sound_model"):
        if not _is_path(values[name]):
            given = shown(values[name])
            wrong.append(f"{name}={given} is no name (give one that `terrascape models` lists)")
    return wrong


def _text_mistakes(name: str, text: object) -> list[str]:
    if not isinstance(text, str):
        return [f"{name}={shown(text)} is no text (give a string, it may be empty)"]
    wrong = []
    if "\0" in text:
        wrong.append(
            f"{name}={shown(text)} holds a NUL at character {text.index(chr(0)) + 1} (take it out)"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        wrong.append(f"{name}={shown(text)} is not valid UTF-8 (save or type it as UTF-8)")
    elif len(text) > MAX_PROMPT:
        kept = text[MAX_PROMPT - 30 : MAX_PROMPT]
        wrong.append(
            f"{name} has {len(text)} characters, {MAX_PROMPT} are allowed "
            f"(cut it here: …{shown(kept)})"
        )
    return wrong


def _layout_mistakes(layout: object, sha256: object) -> list[str]:
    if not _is_path(layout):
        return [f"layout={shown(layout)} (give auto, none or the path of a file)"]
    return _fingerprint_mistakes("layout", layout, LAYOUT_WORDS, sha256)


def _sound_mistakes(sound: object, sha256: object, text: object) -> list[str]:
    if not _is_path(sound):
        return [f"sound={shown(sound)} (give none or the path of a file)"]
    if sound != SILENT and isinstance(text, str) and text.strip():
        return [f"sound={shown(sound)} and sound_text={shown(text)} (give one of the two)"]
    return _fingerprint_mistakes("sound", sound, (SILENT,), sha256)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _fingerprint_mistakes(
    name: str, value: object, words: tuple[str, ...], sha256: object
) -> list[str]:
    if sha256 is None:
        return []
    if value in words:
        return [f"{name}_sha256={shown(sha256)} with {name}={value} (only a file has one)"]
    if not isinstance(sha256, str) or len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        return [f"{name}_sha256={shown(sha256)} (give 64 hexadecimal digits, or leave it out)"]
    return []


def _place_mistakes(values: Mapping[str, object], *, windowed: bool) -> list[str]:
    """Check the point and, where size and zoom are fine (``windowed``), the square around it."""
    given = {name: values[name] for name in _LATLON if values[name] is not dataclasses.MISSING}
    wrong = [
        f"{name}={shown(value)} is no number (give degrees)"
        for name, value in given.items()
        if _as_real(value) is None
    ]
    lat, lon = _as_real(values["lat"]), _as_real(values["lon"])
    if lat is None or lon is None:
        return wrong
    try:
        place = Location(lat, lon)
    except InvalidLocationError as error:
        return [str(error)]
    if abs(place.lat) > MAX_LAT:
        return [
            f"lat={place.lat:g} lies beyond the edge of the web-mercator map "
            f"(give -{MAX_LAT:.4f} to {MAX_LAT:.4f})"
        ]
    zoom, size = values["zoom"], values["size"]
    if windowed and isinstance(zoom, int) and isinstance(size, int):
        return _window_mistakes(place, zoom, size)
    return []


def _window_mistakes(place: Location, zoom: int, size: int) -> list[str]:
    try:
        Window.around(place, zoom, size)
    except InvalidSpecError as error:
        return [f"lat={place.lat:g} with zoom={zoom} and size={size}: {error}"]
    return []
