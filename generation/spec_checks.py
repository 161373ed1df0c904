"""What the fields of a RunSpec may be, and the words for those that are not."""

import dataclasses
import math
from collections.abc import Mapping

from generation.errors import InvalidLocationError, InvalidSpecError, shown
from generation.geo.location import Location
from generation.geo.mercator import MAX_LAT, MAX_ZOOM, Window

KINDS = ("satellite", "panorama", "soundscape")
"""What can be rendered."""
MAX_PROMPT = 2000
"""Characters of a prompt; far more than the text encoder reads."""
MAX_SEED = 2**63 - 1
MAX_GUIDANCE = 20.0
LAYOUT_WORDS = ("auto", "none")
"""Values of ``layout`` that are not the path of a file."""
SATELLITE_WORDS = ("auto", "none", "generated")
"""The same of ``satellite``."""
SILENT = "none"
"""The value of ``sound`` that is not the path of a file."""
_SATELLITE, _PANORAMA, _SOUNDSCAPE = ("satellite",), ("panorama",), ("soundscape",)
HAVE_IT = {
    **dict.fromkeys(("heading", "views", "far"), _PANORAMA),
    **dict.fromkeys(("satellite_guidance", "views_guidance"), _PANORAMA),
    **dict.fromkeys(("satellite", "satellite_sha256"), _PANORAMA + _SOUNDSCAPE),
    **dict.fromkeys(("seconds", "month", "hour", "loop"), _SOUNDSCAPE),
    **dict.fromkeys(("layers", "candidates", "captioner"), _SOUNDSCAPE),
    **dict.fromkeys(("style_lat", "style_lon", "style_database"), _SATELLITE),
    **dict.fromkeys(("sharpness", "style_guidance", "taxon", "habitat_guidance"), _SATELLITE),
    **dict.fromkeys(("warmer_c", "rain_percent", "climate_guidance"), _SATELLITE),
}
"""Fields that say nothing of other kinds than these."""
MIN_SECONDS, MAX_SECONDS = 0.1, 600.0
"""How long a soundscape may be."""
LOOP_STEP_S = 0.01
"""The length of a loop is a multiple of this: one column of a spectrogram."""
_TINY = 1e-6
LATLON = ("lat", "lon")
REAL = (
    *("text_guidance", "location_guidance", "layout_guidance", "sound_guidance"),
    *("satellite_guidance", "views_guidance"),
    *("style_guidance", "habitat_guidance", "climate_guidance"),
)
"""Fields that are a guidance scale."""
STYLE_REAL = ("style_lat", "style_lon", "sharpness", "warmer_c", "rain_percent")
_CHANGES = {"warmer_c": (-20.0, 20.0), "rain_percent": (-100.0, 300.0)}
"""How far a climate may be changed, as ``geo.environment`` allows."""
_WHOLE = {  # field: (lowest, highest, multiple of, how the bounds are told)
    "seed": (0, MAX_SEED, 1, "0 to 2^63 - 1"),
    "size": (64, 1024, 8, "64 to 1024, a multiple of 8"),
    "zoom": (0, MAX_ZOOM, 1, f"0 to {MAX_ZOOM}"),
    "steps": (1, 200, 1, "1 to 200"),
    "candidates": (1, 16, 1, "1 to 16"),
}
_TRUTH = ("use_location", "far", "loop")


def refuse(wrong: list[str]) -> None:
    """Raise what was found wrong, all in one message; an empty list is fine.

    Raises:
        InvalidSpecError: Something was.
    """
    if wrong:
        raise InvalidSpecError("; ".join(wrong))


def field_mistakes(values: Mapping[str, object]) -> list[str]:
    """Say what is wrong with the value of each field."""
    wrong = [
        *_whole_mistakes(values),
        *_real_mistakes(values),
        *_name_mistakes(values),
        *text_mistakes("prompt", values["prompt"]),
        *text_mistakes("sound_text", values["sound_text"]),
        *text_mistakes("captioner", values["captioner"]),
        *_layout_mistakes(values["layout"], values["layout_sha256"]),
        *_sound_mistakes(values["sound"], values["sound_sha256"], values["sound_text"]),
        *_satellite_mistakes(values["satellite"], values["satellite_sha256"]),
        *heading_mistakes("heading", values["heading"]),
        *_time_mistakes(values),
        *_style_mistakes(values),
    ]
    wrong += [
        f"{name}={shown(values[name])} (give true or false)"
        for name in _TRUTH
        if not isinstance(values[name], bool)
    ]
    return [*_place_mistakes(values, windowed=not wrong), *wrong]


def kind_mistakes(values: Mapping[str, object], defaults: Mapping[str, object]) -> list[str]:
    """Say which fields are given that only another kind has than the one that is drawn."""
    if values["kind"] not in KINDS:
        return []
    wrong = [
        f"{name}={shown(values[name])} with kind={shown(values['kind'])} (give "
        f"{' or '.join(f'kind={kind!r}' for kind in kinds)}, or leave it out)"
        for name, kinds in HAVE_IT.items()
        if values["kind"] not in kinds and values[name] != defaults[name]
    ]
    asked = [
        name
        for name, given in (
            ("sound", values["sound"] != SILENT),
            ("sound_text", bool(str(values["sound_text"]).strip())),
        )
        if given
    ]
    asked += ["layers"] if values["layers"] else []
    asked += ["captioner"] if values["captioner"] else []
    if len(asked) > 1 and ("layers" in asked or "captioner" in asked):
        wrong.append(f"{' and '.join(asked)} are given (give one of them)")
    return wrong


def heading_mistakes(name: str, value: object) -> list[str]:
    """Say what is wrong with a heading; its name is told as it is given."""
    heading = as_real(value)
    if heading is not None and 0 <= heading < 360:  # which NaN is not
        return []
    what = "no number" if heading is None else "no heading"
    return [f"{name}={shown(value)} is {what} (give degrees clockwise from north, 0 up to 360)"]


def _style_mistakes(values: Mapping[str, object]) -> list[str]:
    """Say what is wrong with what it should look like, and with the climate it is told."""
    wrong = text_mistakes("taxon", values["taxon"])
    if not is_path(values["style_database"]):
        wrong.append(
            f"style_database={shown(values['style_database'])} is no name (give range-nano or a "
            "folder that `terrascape range build` made)"
        )
    sharpness = as_real(values["sharpness"])
    if sharpness is None or not 0 <= sharpness <= 1:
        wrong.append(
            f"sharpness={shown(values['sharpness'])} is no share (give 0, what lies near, to 1, "
            "what is alike)"
        )
    for name, (low, high) in _CHANGES.items():
        change = as_real(values[name])
        if values[name] is not None and (change is None or not low <= change <= high):
            wrong.append(f"{name}={shown(values[name])} is not allowed (give {low:g} to {high:g})")
    place = [values["style_lat"], values["style_lon"]]
    if place == [None, None]:
        return wrong
    lat, lon = (as_real(value) for value in place)
    if lat is None or lon is None:
        return [
            *wrong,
            f"style_lat={shown(place[0])}, style_lon={shown(place[1])} is no place "
            "(give degrees for both, or neither)",
        ]
    try:
        Location(lat, lon)
    except InvalidLocationError as error:
        wrong.append(f"style_lat, style_lon: {error}")
    return wrong


def _time_mistakes(values: Mapping[str, object]) -> list[str]:
    """Say what is wrong with the length of a soundscape, and with when it is heard."""
    wrong = []
    seconds, month, hour = as_real(values["seconds"]), values["month"], values["hour"]
    if seconds is None or not MIN_SECONDS <= seconds <= MAX_SECONDS:
        wrong.append(
            f"seconds={shown(values['seconds'])} is not allowed (give {MIN_SECONDS:g} to "
            f"{MAX_SECONDS:g})"
        )
    elif (
        values["loop"] is True and abs(seconds / LOOP_STEP_S - round(seconds / LOOP_STEP_S)) > _TINY
    ):
        wrong.append(
            f"seconds={seconds:g} with loop=true (give a multiple of {LOOP_STEP_S:g}, for example "
            f"{round(seconds / LOOP_STEP_S) * LOOP_STEP_S:g})"
        )
    if month is not None and not (type(month) is int and 1 <= month <= 12):
        wrong.append(f"month={shown(month)} is no month (give 1 for January to 12 for December)")
    at = as_real(hour)
    if hour is not None and (at is None or not 0 <= at < 24):
        wrong.append(f"hour={shown(hour)} is no hour of the day (give 0 to 23.99, local time)")
    return wrong


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
    for name in REAL:
        value = as_real(values[name])
        if value is None:
            wrong.append(f"{name}={shown(values[name])} is no number (give 0 to {MAX_GUIDANCE:g})")
        elif not 0 <= value <= MAX_GUIDANCE:  # which NaN is not either
            given = shown(values[name])
            wrong.append(f"{name}={given} is not allowed (give 0 to {MAX_GUIDANCE:g})")
    return wrong


def as_real(value: object) -> float | None:
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
        if not is_path(values[name]):
            given = shown(values[name])
            wrong.append(f"{name}={given} is no name (give one that `terrascape models` lists)")
    return wrong


def text_mistakes(name: str, text: object) -> list[str]:
    """Say what is wrong with words that are given; empty ones are fine."""
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
    if not is_path(layout):
        return [f"layout={shown(layout)} (give auto, none or the path of a file)"]
    return fingerprint_mistakes("layout", layout, LAYOUT_WORDS, sha256)


def _sound_mistakes(sound: object, sha256: object, text: object) -> list[str]:
    if not is_path(sound):
        return [f"sound={shown(sound)} (give none or the path of a file)"]
    if sound != SILENT and isinstance(text, str) and text.strip():
        return [f"sound={shown(sound)} and sound_text={shown(text)} (give one of the two)"]
    return fingerprint_mistakes("sound", sound, (SILENT,), sha256)


def _satellite_mistakes(satellite: object, sha256: object) -> list[str]:
    if not is_path(satellite):
        return [
            f"satellite={shown(satellite)} (give auto, none, generated or the path of an image)"
        ]
    return fingerprint_mistakes("satellite", satellite, SATELLITE_WORDS, sha256)


def is_path(value: object) -> bool:
    """Tell whether a value could name a file."""
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def is_sha256(value: object) -> bool:
    """Tell whether a value is a SHA-256, written in hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def fingerprint_mistakes(
    name: str, value: object, words: tuple[str, ...], sha256: object
) -> list[str]:
    """Say what is wrong with a file's fingerprint; ``words`` are the values that name no file."""
    if sha256 is None:
        return []
    if value in words:
        return [f"{name}_sha256={shown(sha256)} with {name}={value} (only a file has one)"]
    if not is_sha256(sha256):
        return [f"{name}_sha256={shown(sha256)} (give 64 hexadecimal digits, or leave it out)"]
    return []


def _place_mistakes(values: Mapping[str, object], *, windowed: bool) -> list[str]:
    """Check the point and, where size and zoom are fine (``windowed``), the square around it.

    A panorama and a soundscape have no square; only their satellite image needs a place on the
    map.
    """
    given = {name: values[name] for name in LATLON if values[name] is not dataclasses.MISSING}
    wrong = [
        f"{name}={shown(value)} is no number (give degrees)"
        for name, value in given.items()
        if as_real(value) is None
    ]
    lat, lon = as_real(values["lat"]), as_real(values["lon"])
    if lat is None or lon is None:
        return wrong
    try:
        place = Location(lat, lon)
    except InvalidLocationError as error:
        return [str(error)]
    if values["kind"] in ("panorama", "soundscape"):
        return _ground_mistakes(place, values["satellite"])
    if abs(place.lat) > MAX_LAT:
        return [
            f"lat={place.lat:g} lies beyond the edge of the web-mercator map "
            f"(give -{MAX_LAT:.4f} to {MAX_LAT:.4f})"
        ]
    zoom, size = values["zoom"], values["size"]
    if windowed and isinstance(zoom, int) and isinstance(size, int):
        return _window_mistakes(place, zoom, size)
    return []


def _ground_mistakes(place: Location, satellite: object) -> list[str]:
    """Say whether the satellite image that is given along can be had at all."""
    if abs(place.lat) <= MAX_LAT or satellite in ("auto", "none"):
        return []
    return [
        f"lat={place.lat:g} with satellite={shown(satellite)}: the web-mercator map, which the "
        f"satellite image is cut out of, ends at latitude {MAX_LAT:.4f} (give satellite=none, or "
        f"-{MAX_LAT:.4f} to {MAX_LAT:.4f})"
    ]


def _window_mistakes(place: Location, zoom: int, size: int) -> list[str]:
    try:
        Window.around(place, zoom, size)
    except InvalidSpecError as error:
        return [f"lat={place.lat:g} with zoom={zoom} and size={size}: {error}"]
    return []
