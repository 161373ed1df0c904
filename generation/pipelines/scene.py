"""What one picture is given, and the conditions that a batch of such scenes comes to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.conditioning import (
    Condition,
    Given,
    SatelliteConditioner,
    SoundConditioner,
    StyleConditioner,
)
from generation.encoders.text import STATE_DIM
from generation.errors import InvalidSpecError
from generation.geo.mercator import Window


@dataclass(frozen=True, slots=True)
class Scene:
    """What one picture is given; ``None`` or an empty prompt is the learned null."""

    window: Window
    prompt: str = ""
    layout: UInt8[np.ndarray, "height width"] | None = None
    use_location: bool = True
    seed: int = 0
    place: tuple[float, float] | None = field(default=None)
    """Latitude and longitude the model is told instead of the window's own centre."""
    sound: Float[Tensor, " embed"] | None = None
    """A unit vector of a shared space: what it should sound like there."""
    style: Mapping[str, Float[Tensor, " _dim"]] = field(default_factory=dict)
    """Parts of a ``StyleConditioner``: the vector of each that is given."""


STYLES: Mapping[str, tuple[str, ...]] = {
    "climate": ("climate",),
    "habitat": ("taxon",),
    "style": ("visual", "place"),
}
"""What guidance can exaggerate -> the parts of a ``StyleConditioner`` that it is made of."""


@dataclass(frozen=True, slots=True)
class SoundSteering:
    """How the sounds of scenes are told: by which conditioner, as vectors of which space."""

    conditioner: SoundConditioner
    space: str


class ConditionSets:
    """The conditions of a batch for any subset of inputs, each computed once.

    Args:
        scenes: What the pictures of the batch are given.
        conditioner: Makes conditions; they lie where its weights lie.
        encode: Turns prompts into token states and a mask; not called where no scene has one.
        text_tokens: Tokens of any prompt.
        steering: Needed where a scene has a sound.
        styling: Needed where a scene has a style.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        conditioner: SatelliteConditioner,
        encode: Callable[[list[str]], tuple[Tensor, Tensor]],
        text_tokens: int,
        steering: SoundSteering | None = None,
        styling: StyleConditioner | None = None,
    ) -> None:
        self.steering, self.styling = steering, styling
        self.conditioner, self.encode, self.text_tokens = conditioner, encode, text_tokens
        self.device = next(conditioner.parameters()).device
        self.has = {
            "text": [bool(s.prompt.strip()) for s in scenes],
            "location": [s.use_location for s in scenes],
            "layout": [s.layout is not None for s in scenes],
            "sound": [s.sound is not None for s in scenes],
            **{
                name: [any(part in s.style for part in parts) for s in scenes]
                for name, parts in STYLES.items()
            },
        }
        self.given = frozenset(name for name, flags in self.has.items() if any(flags))
        self._base = self._inputs(scenes)
        self._sounds = self._vectors(scenes) if "sound" in self.given else None
        self._styles = self._parts(scenes)
        self._made: dict[frozenset[str], Condition] = {}

    def _inputs(self, scenes: Sequence[Scene]) -> Given:
        if "text" in self.given:
            states, words = self.encode([s.prompt for s in scenes])
        else:
            # As long as any prompt, since the control branch attends to the filling as well.
            shape = len(scenes), self.text_tokens
            states, words = torch.zeros(*shape, STATE_DIM), torch.ones(shape)
        window = scenes[0].window
        blank = np.zeros((window.height_px, window.width_px), np.uint8)
        classes = np.stack([blank if s.layout is None else s.layout for s in scenes])
        places = [s.place or (s.window.center.lat, s.window.center.lon) for s in scenes]
        nothing = torch.zeros(len(scenes), dtype=torch.bool)
        given = Given(
            states=states,
            words=words.bool(),
            latlon=torch.tensor(places, dtype=torch.float32),
            gsd_m=torch.tensor([s.window.gsd_m for s in scenes], dtype=torch.float32),
            classes=torch.from_numpy(classes),
            has_text=nothing,
            has_location=nothing,
            has_layout=nothing,
        )
        device = self.device
        return Given(**{f.name: getattr(given, f.name).to(device) for f in fields(given)})

    @property
    def classes(self) -> UInt8[Tensor, "batch height width"]:
        """The layouts; blank where there is none."""
        return self._base.classes

    def _vectors(self, scenes: Sequence[Scene]) -> Float[Tensor, "batch embed"]:
        """Gather the sounds; zeros, which are replaced by the null, where there is none."""
        if self.steering is None:
            raise InvalidSpecError(
                "a scene has a sound, and nothing here was trained to be steered by one (leave the "
                "sound out, or load the conditioner that goes with this model)"
            )
        first = next(s.sound for s in scenes if s.sound is not None)
        rows = [torch.zeros_like(first) if s.sound is None else s.sound for s in scenes]
        return torch.stack(rows).to(self.device)

    def _parts(self, scenes: Sequence[Scene]) -> dict[str, tuple[Tensor, Tensor]]:
        """Gather each part of the styles, and which scenes have it."""
        names = dict.fromkeys(name for scene in scenes for name in scene.style)
        if names and self.styling is None:
            raise InvalidSpecError(
                "a scene has a style, and nothing here was trained to follow one (leave the style "
                "out, or load the conditioner that goes with this model)"
            )
        found = {}
        for name in names:
            first = next(s.style[name] for s in scenes if name in s.style)
            rows = [s.style.get(name, torch.zeros_like(first)) for s in scenes]
            has = torch.tensor([name in s.style for s in scenes], device=self.device)
            found[name] = torch.stack(rows).to(self.device), has
        return found

    def __getitem__(self, subset: frozenset[str]) -> Condition:
        if subset not in self._made:
            flags = {name: torch.tensor(self.has[name], device=self.device) for name in subset}
            plain = subset - STYLES.keys() - {"sound"}
            condition = self.conditioner(
                replace(self._base, **{f"has_{name}": flags[name] for name in plain})
            )
            if self._styles and self.styling is not None:
                parts = {part for name in subset & STYLES.keys() for part in STYLES[name]}
                told = {name: self._styles[name] for name in parts & self._styles.keys()}
                condition = self.styling(condition, told)
            if self._sounds is not None and self.steering is not None:
                nothing = torch.zeros(len(self._sounds), dtype=torch.bool, device=self.device)
                keep = flags.get("sound", nothing)
                condition = self.steering.conditioner(
                    condition, self.steering.space, self._sounds, keep
                )
            self._made[subset] = condition
        return self._made[subset]
