"""Satellite images: any subset of a layout, a location and a sentence becomes a picture."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.checkpoint import load_safetensors, model_sha256, save_safetensors
from generation.conditioning import Condition, Given, SatelliteConditioner
from generation.diffusion.codec import PatchCodec, to_bytes
from generation.diffusion.denoiser import ControlledDenoiser
from generation.diffusion.guidance import GuidanceScales, guided
from generation.diffusion.noise import position_noise
from generation.encoders.text import STATE_DIM, TextEncoder
from generation.errors import CancelledError, MissingFileError, WeightsError
from generation.geo.layout import Layout
from generation.geo.mercator import Window
from generation.geo.sources import open_source
from generation.registry import find, locate
from generation.spec import RunSpec

OnStep = Callable[[int, int, UInt8[np.ndarray, "height width 3"] | None], None]
PARTS = {
    "unet": UNet2DConditionModel,
    "controlnet": ControlNetModel,
    "conditioner": SatelliteConditioner,
    "codec": PatchCodec,
}
_INDEX = "model_index.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, slots=True)
class Render:
    """A finished picture and all that is needed to make it again."""

    image: UInt8[np.ndarray, "height width 3"]
    layout: Layout | None
    spec: RunSpec
    window: Window
    provenance: dict[str, object]


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


class SatellitePipeline:
    """The denoiser, its conditioner and its codec, and the loop that uses them."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        conditioner: SatelliteConditioner,
        codec: PatchCodec,
        scheduler: FlowMatchEulerDiscreteScheduler,
        text_encoder: TextEncoder | None = None,
    ) -> None:
        self.unet, self.controlnet = unet.eval(), controlnet.eval()
        self.conditioner, self.codec = conditioner.eval(), codec.eval()
        self.scheduler = scheduler
        self.denoiser = ControlledDenoiser(unet, controlnet)
        self._text_encoder = text_encoder
        self.sha256 = ""

    @property
    def text_encoder(self) -> TextEncoder:
        """The text encoder, loaded at the first prompt."""
        if self._text_encoder is None:
            self._text_encoder = TextEncoder(max_tokens=24)
        return self._text_encoder

    def save_pretrained(self, folder: Path, *, half: bool = True) -> None:
        """Save every part in diffusers' layout, by default in half precision."""
        for name in PARTS:
            part = getattr(self, name)
            part.save_config(folder / name)
            kind = torch.float16 if half and name != "codec" else torch.float32
            weights = {key: value.to(kind) for key, value in part.state_dict().items()}
            save_safetensors(weights, folder / name / _WEIGHTS)
        self.scheduler.save_pretrained(folder / "scheduler")
        index = {name: ["generation", cls.__name__] for name, cls in PARTS.items()}
        (folder / _INDEX).write_text(
            json.dumps({"_class_name": "SatellitePipeline", **index}, indent=2) + "\n"
        )

    @classmethod
    def from_pretrained(cls, folder: Path) -> "SatellitePipeline":
        """Load what :meth:`save_pretrained` wrote, every tensor checked.

        Raises:
            MissingFileError: The folder holds no such pipeline.
            WeightsError: A file is damaged, or does not fit its configuration.
        """
        if not (folder / _INDEX).is_file():
            raise MissingFileError(
                f"{folder} holds no satellite pipeline: {_INDEX} is not there (give the folder "
                "that a training run or save_pretrained wrote)"
            )
        parts = {name: _load_part(kind, folder / name) for name, kind in PARTS.items()}
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        pipeline = cls(**parts, scheduler=scheduler)
        pipeline.sha256 = model_sha256(folder)
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        scenes: Sequence[Scene],
        *,
        num_inference_steps: int = 10,
        guidance: GuidanceScales | None = None,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Draw one picture for each scene.

        Args:
            scenes: Windows of one size; a scene's picture does not depend on its neighbours.
            num_inference_steps: Steps of the sampler.
            guidance: Scales; plain conditional sampling when absent.
            on_step: Told ``(step, steps, preview of the first scene)``.
            cancelled: Asked before each step.

        Raises:
            CancelledError: ``cancelled`` said so.
        """
        guidance = guidance or GuidanceScales()
        x = torch.cat([self._noise(scene) for scene in scenes])
        conditions = ConditionSets(self, scenes)
        self.scheduler.set_timesteps(num_inference_steps)
        for i, t in enumerate(self.scheduler.timesteps):
            if cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {i} of {num_inference_steps}, as asked")
            time_now = t.expand(len(x))
            terms = guidance.terms(conditions.given, float(t) / 1000)
            velocity = guided(
                lambda subset, x=x, now=time_now: self.denoiser(x, now, conditions[subset]), terms
            )
            if on_step is not None:
                clean = x[:1] - velocity[:1] * self.scheduler.sigmas[i]
                on_step(i + 1, num_inference_steps, to_bytes(self.codec.decode(clean))[0])
            x = self.scheduler.step(velocity, t, x, return_dict=False)[0]
        return to_bytes(self.codec.decode(x))

    def _noise(self, scene: Scene) -> Float[Tensor, "1 channels rows cols"]:
        window, patch = scene.window, self.codec.patch
        row, col = window.row_px // patch, window.col_px // patch
        return position_noise(
            scene.seed,
            window.zoom,
            range(row, row + window.height_px // patch),
            range(col, col + window.width_px // patch),
            self.codec.config["latent_channels"],
        )


class ConditionSets:
    """The conditions of a batch for any subset of inputs, each computed once."""

    def __init__(self, pipeline: SatellitePipeline, scenes: Sequence[Scene]) -> None:
        self.pipeline = pipeline
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
            states, words = self.pipeline.text_encoder([s.prompt for s in scenes])
        else:
            states, words = torch.zeros(len(scenes), 2, STATE_DIM), torch.ones(len(scenes), 2)
        window = scenes[0].window
        blank = np.zeros((window.height_px, window.width_px), np.uint8)
        classes = np.stack([blank if s.layout is None else s.layout for s in scenes])
        places = [s.place or (s.window.center.lat, s.window.center.lon) for s in scenes]
        nothing = torch.zeros(len(scenes), dtype=torch.bool)
        return Given(
            states=states,
            words=words.bool(),
            latlon=torch.tensor(places, dtype=torch.float32),
            gsd_m=torch.tensor([s.window.gsd_m for s in scenes], dtype=torch.float32),
            classes=torch.from_numpy(classes),
            has_text=nothing,
            has_location=nothing,
            has_layout=nothing,
        )

    def __getitem__(self, subset: frozenset[str]) -> Condition:
        if subset not in self._made:
            flags = {
                f"has_{name}": torch.tensor(self.has[name]) if name in subset else getattr(
                    self._base, f"has_{name}"
                )
                for name in self.has
            }
            self._made[subset] = self.pipeline.conditioner(replace(self._base, **flags))
        return self._made[subset]


def _load_part(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - diffusers' classes
    if not (folder / "config.json").is_file():
        raise MissingFileError(f"{folder}/config.json is not there (restore the model's folder)")
    part = kind.from_config(kind.load_config(folder))
    expected = {name: tuple(value.shape) for name, value in part.state_dict().items()}
    weights = load_safetensors(folder / _WEIGHTS, expected)
    part.load_state_dict({name: value.float() for name, value in weights.items()})
    return part


@lru_cache(maxsize=1)
def _pipeline(folder: Path, stamp: tuple[float, ...]) -> SatellitePipeline:
    return SatellitePipeline.from_pretrained(folder)


def load_pipeline(name: str) -> SatellitePipeline:
    """Give a registered pipeline, loaded once as long as its files do not change."""
    folder = locate(name)
    stamp = tuple(p.stat().st_mtime for p in sorted(folder.rglob("*.safetensors")))
    if not stamp:
        raise WeightsError(f"{folder} holds no .safetensors (restore the model's folder)")
    return _pipeline(folder, stamp)


def render(
    spec: RunSpec,
    *,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    online: bool = False,
) -> Render:
    """Make the picture that a spec describes.

    Args:
        spec: What to draw.
        on_step: Told ``(step, steps, preview)``.
        cancelled: Asked before each step.
        online: Whether the layout may be fetched from OpenStreetMap.

    Raises:
        TerrascapeError: Whatever the person can mend.
    """
    window = spec.window()
    source = open_source(spec.layout, online=online)
    layout = source.layout(window) if source is not None else None
    pipeline = load_pipeline(spec.model)
    began = time.perf_counter()
    scene = Scene(
        window=window,
        prompt=spec.prompt,
        layout=None if layout is None else layout.classes,
        use_location=spec.use_location,
        seed=spec.seed,
    )
    scales = GuidanceScales(spec.layout_guidance, spec.location_guidance, spec.text_guidance)
    image = pipeline(
        [scene],
        num_inference_steps=spec.steps,
        guidance=scales,
        on_step=on_step,
        cancelled=cancelled,
    )[0]
    notes = list(layout.notes) if layout is not None else []
    if spec.prompt and (unread := pipeline.text_encoder.cut(spec.prompt)):
        notes.append(f"the prompt was not read beyond: …{unread[:60]!r}")
    return Render(
        image=image,
        layout=layout,
        spec=spec,
        window=window,
        provenance={
            "model": spec.model,
            "model_sha256": pipeline.sha256,
            "licence": find(spec.model).licence,
            "attribution": layout.attribution if layout is not None else "",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "threads": torch.get_num_threads(),
            "seconds": round(time.perf_counter() - began, 3),
            "synthetic": True,
            "notes": notes,
        },
    )
