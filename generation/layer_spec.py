"""LayerSpec: one source of a soundscape, with its level and its place between the loudspeakers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from generation.errors import InvalidSpecError, shown
from generation.spec_checks import as_real, is_path, is_sha256, refuse, text_mistakes

MAX_LAYERS = 8
"""Sources of one soundscape."""
MAX_LEVEL_DB, MIN_LEVEL_DB = 12.0, -60.0
_FORM = '{"text": "surf on a beach", "level_db": -6, "pan": 0.3}'


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A source. One that exists is valid: all fields are checked on construction."""

    text: str = ""
    """What is heard, in words."""
    file: str | None = None
    """In their stead, the path of a recording that it should sound like."""
    level_db: float = 0.0
    """How loud, decibels; 0 is the level that every source is brought to."""
    pan: float = 0.0
    """Where: -1 left, 0 in the middle, 1 right."""
    sha256: str | None = None
    """SHA-256 of the file, filled by ``RunSpec.pinned``."""

    def __post_init__(self) -> None:
        refuse(_layer_mistakes(dataclasses.asdict(self)))
        for name in ("level_db", "pan"):  # 0 and 0.0 and -0.0 are one layer
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "LayerSpec":
        """Build a layer from named values.

        Raises:
            InvalidSpecError: Unknown names, wrong types or values, all in one message.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        wrong = [
            f"{shown(name)} is no field of a layer (known: {', '.join(known)})"
            for name in values
            if name not in known
        ]
        filled = {**known, **{name: values[name] for name in known if name in values}}
        refuse(wrong + _layer_mistakes(filled))
        numbers = {name: as_real(filled[name]) for name in ("level_db", "pan")}
        return cls(**{**filled, **numbers})  # type: ignore[arg-type]  # all types are checked

    def to_dict(self) -> dict[str, object]:
        """Give the fields by name, without those that say nothing."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value not in (None, "")}

    @property
    def name(self) -> str:
        """What people call it: its words, or the name of its file."""
        return self.text.strip() or str(self.file)


def read_layers(value: object) -> tuple[object, list[str]]:
    """Read the layers of a description: a list of objects or of texts.

    Returns:
        The layers, or the value as it was where it holds none; and what is wrong with it.
    """
    if not isinstance(value, list | tuple):
        return value, []  # layers_mistakes tells
    layers: list[LayerSpec] = []
    wrong = []
    for number, each in enumerate(value, start=1):
        try:
            layers.append(_read_layer(each))
        except InvalidSpecError as error:
            wrong.append(f"layer {number}: {error}")
    return tuple(layers), wrong


def layers_mistakes(layers: object) -> list[str]:
    """Say what is wrong with the layers of a soundscape."""
    if not isinstance(layers, tuple) or not all(isinstance(each, LayerSpec) for each in layers):
        return [f"layers={shown(layers)} (give a list like [{_FORM}])"]
    if len(layers) > MAX_LAYERS:
        return [f"{len(layers)} layers are given, {MAX_LAYERS} are allowed (leave some out)"]
    return []


def _read_layer(value: object) -> LayerSpec:
    if isinstance(value, LayerSpec):
        return value
    if isinstance(value, str):
        return LayerSpec(value)
    if isinstance(value, Mapping):
        return LayerSpec.from_dict(value)
    raise InvalidSpecError(f"{shown(value)} is no layer (give {_FORM})")


def _layer_mistakes(values: Mapping[str, object]) -> list[str]:
    text, file, sha256 = (values[name] for name in ("text", "file", "sha256"))
    wrong = text_mistakes("text", text)
    if file is not None and not is_path(file):
        wrong.append(f"file={shown(file)} (give the path of a recording, or leave it out)")
    if isinstance(text, str) and bool(text.strip()) == (file is not None):
        which = f"both {shown(text)} and {shown(file)}" if text.strip() else "neither text nor file"
        wrong.append(f"it has {which} (give one of the two: {_FORM})")
    if sha256 is not None and (file is None or not is_sha256(sha256)):
        wrong.append(f"sha256={shown(sha256)} (give that of the file, or leave it out)")
    ranges: Mapping[str, Sequence[float]] = {
        "level_db": (MIN_LEVEL_DB, MAX_LEVEL_DB),
        "pan": (-1.0, 1.0),
    }
    for name, (low, high) in ranges.items():
        value = as_real(values[name])
        if value is None or not low <= value <= high:  # which NaN is not either
            wrong.append(f"{name}={shown(values[name])} is not allowed (give {low:g} to {high:g})")
    return wrong
