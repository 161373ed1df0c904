"""What one picture is given, and the conditions that a batch of such scenes comes to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from generation.conditioning import Condition, Given, SatelliteConditioner
from generation.encoders.text import STATE_DIM
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


class ConditionSets:
    """The conditions of a batch for any subset of inputs, each computed once.

    Args:
        scenes: What the pictures of the batch are given.
        conditioner: Makes conditions; they lie where its weights lie.
        encode: Turns prompts into token states and a mask; not called where no scene has one.
        text_tokens: Tokens of any prompt.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        conditioner: SatelliteConditioner,
        encode: Callable[[list[str]], tuple[Tensor, Tensor]],
        text_tokens: int,
    ) -> None:
        self.conditioner, self.encode, self.text_tokens = conditioner, encode, text_tokens
        self.device = next(conditioner.parameters()).device
        self.has = {
            "text": [bool(s.prompt.strip()) for s in scenes],
            "location": [s.use_location for s in scenes],
            "layout": [s.layout is not None for s in scenes],
        }
        self.given = frozenset(name for name, flags in self.has.items() if any(flags))
        self._base = self._inputs(scenes)
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

    def __getitem__(self, subset: frozenset[str]) -> Condition:
        if subset not in self._made:
            flags = {
                f"has_{name}": torch.tensor(self.has[name], device=self.device) for name in subset
            }
            self._made[subset] = self.conditioner(replace(self._base, **flags))
        return self._made[subset]
