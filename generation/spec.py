"""RunSpec: the one description from which every picture is made, and made again."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from generation.errors import AudioError, InvalidSpecError, LayoutError, MissingFileError, shown
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.layer_spec import MAX_LAYERS, LayerSpec, layers_mistakes, read_layers
from generation.spec_checks import (
    KINDS,
    LATLON,
    LAYOUT_WORDS,
    MAX_GUIDANCE,
    MAX_PROMPT,
    MAX_SECONDS,
    REAL,
    SATELLITE_WORDS,
    SILENT,
    STYLE_REAL,
    as_real,
    field_mistakes,
    kind_mistakes,
    refuse,
)
from generation.view_spec import FAR_KM, MAX_VIEWS_GIVEN, ViewSpec, read_views, views_mistakes

__all__ = [
    "DEFAULT_MODELS", "FAR_KM", "KINDS", "LAYOUT_WORDS", "MAX_GUIDANCE", "MAX_LAYERS",
    "MAX_PROMPT", "MAX_SECONDS", "MAX_VIEWS_GIVEN", "SATELLITE_WORDS", "SILENT", "LayerSpec",
    "RunSpec", "ViewSpec",
]  # fmt: skip

DEFAULT_MODELS = {
    "satellite": "satellite-nano",
    "panorama": "panorama-nano",
    "soundscape": "soundscape-nano",
}
"""What draws each kind, unless a description says otherwise."""
_LATER = (
    *("sound", "sound_sha256", "sound_text", "sound_guidance", "sound_model"),
    *("heading", "views", "satellite", "satellite_sha256"),
    *("satellite_guidance", "views_guidance", "far"),
    *("seconds", "month", "hour", "loop", "layers", "candidates", "captioner"),
    *("style_lat", "style_lon", "style_database", "sharpness", "style_guidance"),
    *("taxon", "habitat_guidance", "warmer_c", "rain_percent", "climate_guidance"),
)
"""Fields that specs of before do not have. While they say nothing they are not written, so that
such a spec keeps its fingerprint."""
_FILES = {
    "layout": "auto, none or the path of an .osm, .osm.pbf, .geojson, .parquet or .png file",
    "sound": "none, or the path of a .wav, .flac, .ogg or .mp3 file, or of a GeoTIFF",
    "satellite": "auto, none, generated or the path of an image",
    "view": "the path of a panorama, or leave the view out",
    "layer": "the path of a recording, or say in words what is heard",
}
_FLOATS = (*LATLON, *REAL, *STYLE_REAL, "heading", "seconds", "hour")
_CHANGED = {"layout": LayoutError, "sound": AudioError, "layer": AudioError}
"""What is raised for a file with another fingerprint, where that is not InvalidSpecError."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that decides how a render looks; equal specs give equal pictures.

    A RunSpec that exists is valid: every field is checked on construction, all mistakes are
    reported in one error.
    """

    kind: str = "satellite"
    """What is rendered, one of ``KINDS``."""
    lat: float
    """Latitude of the centre, degrees; within the web-mercator map, except for a panorama without
    a satellite image."""
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
    """How far the sound is exaggerated, also that of a soundscape."""
    sound_model: str = "sat2sound-nano"
    """The space that the sound is understood in, of ``generation.list_models("sound-space")``."""
    heading: float = 0.0
    """Where the middle of a panorama looks, degrees clockwise from north, 0 up to 360."""
    views: tuple[ViewSpec, ...] = ()
    """Panoramas from places nearby, at most ``MAX_VIEWS_GIVEN``, in any order."""
    satellite: str = "auto"
    """What a panorama or a soundscape knows of the ground: ``auto``, ``none``, ``generated`` or an
    image's path."""
    satellite_sha256: str | None = None
    """SHA-256 of that image, filled by ``pinned``."""
    satellite_guidance: float = 1.0
    """How far a panorama's satellite image is exaggerated."""
    views_guidance: float = 1.0
    """The same for its views."""
    far: bool = False
    """Whether views may stand farther than ``FAR_KM`` from the place."""
    seconds: float = 10.0
    """How long a soundscape is; as a loop, a multiple of 0.01."""
    month: int | None = None
    """When it is heard: 1 for January to 12 for December; ``None``: at any time of the year."""
    hour: float | None = None
    """Local time, 0 to below 24; ``None``: at any."""
    loop: bool = False
    """Whether its end goes over into its beginning."""
    layers: tuple[LayerSpec, ...] = ()
    """Its sources, at most ``MAX_LAYERS``; without any, what is known of the place decides."""
    candidates: int = 1
    """Of so many sounds for each source, the one is kept that fits best."""
    captioner: str = ""
    """What writes the caption of a place, of ``generation.list_models("captioner")``; without one,
    captions are retrieved."""
    style_lat: float | None = None
    """Latitude of the place that it should look like, degrees; the layout stays that of its own."""
    style_lon: float | None = None
    """Its longitude, degrees."""
    style_database: str = "range-nano"
    """What looks are retrieved from: of ``generation.list_models("retrieval")``, or a folder."""
    sharpness: float = 0.5
    """0: the looks of what lies near that place, 1: of what is alike (RANGE's beta)."""
    style_guidance: float = 2.0
    """How far that look is exaggerated."""
    taxon: str = ""
    """A species or a higher taxon whose habitat it should be."""
    habitat_guidance: float = 2.0
    """The same for the habitat."""
    warmer_c: float | None = None
    """Told the climate of the place, so many degrees Celsius warmer; ``None``, with
    ``rain_percent``: not told any."""
    rain_percent: float | None = None
    """The same for rain, percent more; -20: a fifth less."""
    climate_guidance: float = 2.0
    """The same for the climate."""

    def __post_init__(self) -> None:
        self.validate()
        for name in _FLOATS:  # 45 and 45.0, 0.0 and -0.0 are one spec, with one sha256
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)) + 0.0)

    def validate(self) -> None:
        """Check every field.

        Raises:
            InvalidSpecError: Names each field that is wrong, its value and the cure.
        """
        refuse(
            _mistakes({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        )

    def to_json(self) -> str:
        """Give the canonical form: ASCII, sorted keys, no spaces, floats that read back exactly."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False, separators=(",", ":"))

    def to_dict(self) -> dict[str, object]:
        """Give the fields by name, without later ones that say nothing."""
        defaults = _defaults()
        values = {name: getattr(self, name) for name in defaults}
        kept = {k: v for k, v in values.items() if k not in _LATER or v != defaults[k]}
        if self.views:
            kept["views"] = [view.to_dict() for view in self.views]
        if self.layers:
            kept["layers"] = [layer.to_dict() for layer in self.layers]
        return kept

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
        known = _defaults()
        wrong = [
            f"{shown(name)} is no field (known: {', '.join(known)})"
            for name in values
            if name not in known
        ]
        wrong += [
            f"{name} is missing (give degrees, latitude first)"
            for name in LATLON
            if name not in values
        ]
        filled = {**known, **{name: values[name] for name in known if name in values}}
        if "model" not in values and isinstance(filled["kind"], str):
            filled["model"] = DEFAULT_MODELS.get(filled["kind"], filled["model"])
        filled["views"], wrong_views = read_views(filled["views"])
        filled["layers"], wrong_layers = read_layers(filled["layers"])
        refuse(wrong + wrong_views + wrong_layers + _mistakes(filled))
        filled.update({name: as_real(filled[name]) for name in _FLOATS})
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
    def satellite_path(self) -> Path | None:
        """The file of the satellite image, if it comes from one."""
        return None if self.satellite in SATELLITE_WORDS else Path(self.satellite)

    @property
    def sound_path(self) -> Path | None:
        """The file that it should sound like, if there is one."""
        return None if self.sound == SILENT else Path(self.sound)

    @property
    def has_sound(self) -> bool:
        """Whether it is steered by a sound, a sentence of one or the image of a place."""
        return self.sound != SILENT or bool(self.sound_text.strip())

    @property
    def has_look(self) -> bool:
        """Whether it should look like another place; not where that is guided by 0."""
        return self.style_lat is not None and self.style_guidance != 0

    @property
    def has_habitat(self) -> bool:
        """The same of being the habitat of a taxon."""
        return bool(self.taxon.strip()) and self.habitat_guidance != 0

    @property
    def has_climate(self) -> bool:
        """The same of being told a climate."""
        told = self.warmer_c is not None or self.rain_percent is not None
        return told and self.climate_guidance != 0

    def pinned(self) -> "RunSpec":
        """Give the spec with the fingerprints of its files filled in.

        The half of a climate that is not told is filled in as no change, which draws the same.

        Raises:
            MissingFileError: There is no such file.
            LayoutError: The layout is not the one whose fingerprint the spec carries.
            AudioError: The same of the sound, or of that of a layer.
            InvalidSpecError: The same of a view or of the satellite image; or two views turn out
                to be one.
        """
        files = {
            "layout": self.layout_path,
            "sound": self.sound_path,
            "satellite": self.satellite_path,
        }
        found: dict[str, object] = {
            f"{name}_sha256": _pin(name, path, getattr(self, f"{name}_sha256"))
            for name, path in files.items()
            if path
        }
        if {self.warmer_c, self.rain_percent} != {None}:
            found |= {"warmer_c": self.warmer_c or 0.0, "rain_percent": self.rain_percent or 0.0}
        if self.views:
            found["views"] = tuple(
                dataclasses.replace(view, sha256=_pin("view", Path(view.file), view.sha256))
                for view in self.views
            )
        if any(layer.file for layer in self.layers):
            found["layers"] = tuple(
                dataclasses.replace(layer, sha256=_pin("layer", Path(layer.file), layer.sha256))
                if layer.file
                else layer
                for layer in self.layers
            )
        return dataclasses.replace(self, **found) if found else self  # type: ignore[arg-type]


def _defaults() -> dict[str, object]:
    return {field.name: field.default for field in dataclasses.fields(RunSpec)}


def _mistakes(values: Mapping[str, object]) -> list[str]:
    """Say what is wrong with the value of each field, and what does not go together."""
    place = [as_real(values[name]) for name in LATLON]
    return [
        *field_mistakes(values),
        *views_mistakes(values["views"], place, far=values["far"]),
        *layers_mistakes(values["layers"]),
        *kind_mistakes(values, _defaults()),
    ]


def _pin(name: str, path: Path, told: str | None) -> str:
    """Give the fingerprint of a file, which must be the one that was told, if one was.

    Raises:
        MissingFileError: There is no such file.
        InvalidSpecError: It has changed; for layouts and sounds an error of their own.
    """
    found = _file_sha256(name, path, told)
    if told in (None, found):
        return found
    field = "sha256" if name in ("view", "layer") else f"{name}_sha256"
    raise _CHANGED.get(name, InvalidSpecError)(
        f"{name}={shown(str(path), None)} has changed since its fingerprint was taken: "
        f"{field}={told}, now {found} (restore the file, or leave {field} out)"
    )


def _file_sha256(name: str, path: Path, told: str | None) -> str:
    known = f" whose fingerprint is {told}" if told else ""
    try:
        if not path.is_file():
            raise MissingFileError(
                f"{name}={shown(str(path), None)} is no file{known} (give {_FILES[name]})"
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


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidSpecError(f"{shown(name)} is given more than once (give it once)")
        values[name] = value
    return values
