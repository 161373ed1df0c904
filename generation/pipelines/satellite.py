"""Satellite images: any subset of a layout, a location and a sentence becomes a picture."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.cards import SIMULATED
from generation.checkpoint import load_configured, model_sha256
from generation.conditioning import Condition, SatelliteConditioner, StyleConditioner
from generation.diffusion.codec import PatchCodec, to_bytes, to_signal
from generation.diffusion.decoder import DetailDecoder
from generation.diffusion.denoiser import ControlledDenoiser
from generation.diffusion.guidance import GuidanceScales, guided
from generation.diffusion.noise import position_noise
from generation.encoders.text import MAX_TOKENS, TextEncoder
from generation.errors import (
    CancelledError,
    InvalidSpecError,
    LayoutError,
)
from generation.geo.layout import Layout
from generation.geo.mercator import Window, world_px
from generation.geo.sources import open_source
from generation.pipelines.plausibility import plausibility
from generation.pipelines.scene import ConditionSets, Scene, SoundSteering
from generation.pipelines.steering import open_steering
from generation.pipelines.styling import open_style
from generation.pipelines.whole import load_parts, made_by, save_whole, stamped
from generation.registry import SIMULATED_NOTE, find, list_models
from generation.spec import RunSpec

OnStep = Callable[[int, int, UInt8[np.ndarray, "height width 3"] | None], None]
PARTS = {
    "unet": UNet2DConditionModel,
    "controlnet": ControlNetModel,
    "conditioner": SatelliteConditioner,
    "codec": PatchCodec,
    "decoder": DetailDecoder,
}


@dataclass(frozen=True, slots=True)
class Render:
    """A finished picture and all that is needed to make it again."""

    image: UInt8[np.ndarray, "height width 3"]
    layout: Layout | None
    spec: RunSpec
    window: Window
    provenance: dict[str, object]


class SatellitePipeline:
    """The denoiser, its conditioner, its codec and its decoder, and the loop that uses them."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        conditioner: SatelliteConditioner,
        codec: PatchCodec,
        decoder: DetailDecoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        text_encoder: TextEncoder | None = None,
    ) -> None:
        self.unet, self.controlnet = unet.eval(), controlnet.eval()
        self.conditioner, self.codec = conditioner.eval(), codec.eval()
        self.decoder = decoder.eval()
        self.scheduler = scheduler
        self.denoiser = ControlledDenoiser(unet, controlnet)
        self._text_encoder = text_encoder
        self.sha256 = ""

    @property
    def text_encoder(self) -> TextEncoder:
        """The text encoder, loaded at the first prompt."""
        if self._text_encoder is None:
            self._text_encoder = TextEncoder()
        return self._text_encoder

    @property
    def text_tokens(self) -> int:
        """Tokens of any prompt, filled up; known without loading the text encoder."""
        return MAX_TOKENS if self._text_encoder is None else self._text_encoder.max_tokens

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and so where everything is computed."""
        return next(self.unet.parameters()).device

    def save_pretrained(self, folder: Path, *, half: bool = True) -> None:
        """Save every part in diffusers' layout, by default in half precision, all or nothing."""
        save_whole(self, PARTS, folder, half=half)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "SatellitePipeline":
        """Load what :meth:`save_pretrained` wrote, every tensor checked.

        Raises:
            MissingFileError: The folder holds no such pipeline.
            WeightsError: A file is damaged, or does not fit its configuration.
        """
        parts = load_parts(PARTS, folder, "satellite")
        scheduler = load_configured(FlowMatchEulerDiscreteScheduler, folder / "scheduler")
        pipeline = cls(**parts, scheduler=scheduler)
        pipeline.sha256 = model_sha256(folder)
        return pipeline

    def remarks(self, spec: RunSpec) -> list[str]:
        """Tell what of a spec this model was not trained for; it takes all inputs at any scale."""
        return []

    @torch.no_grad()
    def __call__(
        self,
        scenes: Sequence[Scene],
        *,
        num_inference_steps: int = 10,
        guidance: GuidanceScales | None = None,
        steering: SoundSteering | None = None,
        styling: StyleConditioner | None = None,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Draw one picture for each scene.

        Args:
            scenes: Windows of one size; a scene's picture does not depend on its neighbours.
            num_inference_steps: Steps of the sampler.
            guidance: Scales; plain conditional sampling when absent.
            steering: Needed where a scene has a sound.
            styling: Needed where a scene has a style.
            on_step: Told ``(step, steps, preview of the first scene)``; the last is the picture.
            cancelled: Asked before each step.

        Raises:
            InvalidSpecError: The scenes do not fit together or do not lie on the grid of latents.
            LayoutError: A layout has another size than its window.
            CancelledError: ``cancelled`` said so.
        """
        self._check(scenes)
        guidance = guidance or GuidanceScales()
        x = torch.cat([self._noise(scene) for scene in scenes]).to(self.device)
        conditions = self.conditions(scenes, steering, styling)
        scheduler = self._schedule(num_inference_steps)
        for i, t in enumerate(scheduler.timesteps[:num_inference_steps]):
            if cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {i} of {num_inference_steps}, as asked")
            evaluate = partial(self._evaluate, conditions, x, t.expand(len(x)))
            velocity = guided(evaluate, guidance.terms(conditions.given, float(t) / 1000))
            if on_step is not None and i + 1 < num_inference_steps:
                clean = x[:1] - velocity[:1] * scheduler.sigmas[i]
                on_step(i + 1, num_inference_steps, to_bytes(self.codec.decode(clean))[0])
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
        drawn = self._finish(x, conditions, guidance)
        if on_step is not None:
            on_step(num_inference_steps, num_inference_steps, drawn[0])
        return drawn

    @torch.no_grad()
    def reconstruct(
        self, scenes: Sequence[Scene], images: UInt8[np.ndarray, "batch height width 3"]
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Take images through the latents and the decoder, as if the sampler had found them.

        What these lose is the decoder's share of what drawn pictures lack.
        """
        self._check(scenes)
        x0 = self.codec.encode(to_signal(images).to(self.device))
        noise = torch.cat([self._noise(scene) for scene in scenes]).to(self.device)
        x = torch.lerp(x0, noise, self.decoder.hand_over)
        return self._finish(x, self.conditions(scenes), GuidanceScales())

    def _finish(
        self, x: Tensor, conditions: ConditionSets, guidance: GuidanceScales
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Let the decoder draw what the sampler has left in noise."""
        drawn = [has and guidance.layout != 0 for has in conditions.has["layout"]]
        share = torch.full((len(x),), self.decoder.hand_over, device=self.device)
        has_layout = torch.tensor(drawn, device=self.device)
        classes = conditions.classes
        tones = self.decoder(x, share, classes, has_layout, self.codec)[1]
        return to_bytes(self.codec.untone(tones))

    def conditions(
        self,
        scenes: Sequence[Scene],
        steering: SoundSteering | None = None,
        styling: StyleConditioner | None = None,
    ) -> ConditionSets:
        """Give what the denoiser can be told of scenes."""
        return ConditionSets(
            scenes,
            self.conditioner,
            lambda prompts: self.text_encoder(prompts),
            self.text_tokens,
            steering,
            styling,
        )

    def _evaluate(
        self, conditions: ConditionSets, x_t: Tensor, t: Tensor, subsets: Sequence[frozenset[str]]
    ) -> Sequence[Tensor]:
        """Evaluate all subsets as one batch: small networks are faster on large batches."""
        count = len(subsets)
        together = Condition.cat([conditions[subset] for subset in subsets])
        return self.denoiser(x_t.repeat(count, 1, 1, 1), t.repeat(count), together).chunk(count)

    def _check(self, scenes: Sequence[Scene]) -> None:
        sizes = {(scene.window.width_px, scene.window.height_px) for scene in scenes}
        if len(sizes) != 1:
            raise InvalidSpecError(
                f"{len(scenes)} scenes of {len(sizes)} sizes (give at least one scene, and windows "
                "of one size together)"
            )
        for scene in scenes:
            window, patch = scene.window, self.codec.patch
            edges = window.col_px, window.row_px, window.width_px, window.height_px
            if any(edge % patch for edge in edges):
                raise InvalidSpecError(
                    f"window {edges} (column, row, width, height) does not lie on the grid of "
                    f"latents (give multiples of {patch}; Window.around does)"
                )
            if scene.layout is not None and scene.layout.shape != (edges[3], edges[2]):
                raise LayoutError(
                    f"layout of {scene.layout.shape[1]}x{scene.layout.shape[0]} px for a window of "
                    f"{edges[2]}x{edges[3]} px (draw it at the size of the image)"
                )

    def _schedule(self, steps: int) -> FlowMatchEulerDiscreteScheduler:
        """Give this call its own schedule: equal steps down to where the decoder takes over.

        Behind the last of them stands one more share, without noise, to which no step is taken.
        """
        if steps < 1:
            raise InvalidSpecError(f"num_inference_steps={steps} draws nothing (give at least 1)")
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        shift, last = scheduler.config["shift"], self.decoder.hand_over
        # The scheduler bends equal steps by s -> shift s / (1 + (shift - 1) s): its inverse.
        shares = np.linspace(1.0, last / (shift - (shift - 1) * last), steps + 1).tolist()
        scheduler.set_timesteps(sigmas=shares, device=self.device)
        return scheduler

    def _noise(self, scene: Scene) -> Float[Tensor, "1 channels rows cols"]:
        window, patch = scene.window, self.codec.patch
        row, col = window.row_px // patch, window.col_px // patch
        return position_noise(
            scene.seed,
            window.zoom,
            range(row, row + window.height_px // patch),
            range(col, col + window.width_px // patch),
            self.codec.config["latent_channels"],
            period=world_px(window.zoom) // patch,
        )


@lru_cache(maxsize=1)
def _pipeline(folder: Path, stamp: tuple[float, ...]) -> SatellitePipeline:
    return SatellitePipeline.from_pretrained(folder)


def load_pipeline(name: str) -> SatellitePipeline:
    """Give a registered pipeline, loaded once as long as its files do not change."""
    return _pipeline(*stamped(name))


def open_pipeline(name: str, *, online: bool = False) -> Any:  # noqa: ANN401 - by the card's family
    """Give a registered pipeline of any family: a ``SatellitePipeline`` or a ``GeoSynthPipeline``.

    Args:
        name: A registered name.
        online: Whether weights may be fetched from the Hub.
    """
    card = find(name)
    if card.kind != "satellite":
        raise InvalidSpecError(
            f"model={name!r} is of kind {card.kind!r} and draws no satellite images (models that "
            f"do: {', '.join(list_models('satellite'))})"
        )
    if card.family == "geosynth":
        from generation.pipelines.geosynth import load_geosynth

        return load_geosynth(name, online=online)
    return load_pipeline(name)


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
        online: Whether the layout may be fetched from OpenStreetMap, and weights from the Hub.

    Raises:
        TerrascapeError: Whatever the person can mend.
    """
    window = spec.window()
    source = open_source(spec.layout, online=online)
    layout = source.layout(window) if source is not None else None
    pipeline = open_pipeline(spec.model, online=online)
    heard = open_steering(spec, pipeline.sha256) if spec.has_sound else None
    wanted = spec.has_look or spec.has_habitat or spec.has_climate
    styled = open_style(spec, pipeline.sha256) if wanted else None
    began = time.perf_counter()
    scene = Scene(
        window=window,
        prompt=spec.prompt,
        layout=None if layout is None else layout.classes,
        use_location=spec.use_location and not spec.has_look,
        seed=spec.seed,
        sound=heard.vector if heard else None,
        style=styled.parts if styled else {},
    )
    scales = GuidanceScales(
        spec.layout_guidance,
        spec.location_guidance,
        spec.text_guidance,
        spec.sound_guidance,
        climate=spec.climate_guidance,
        habitat=spec.habitat_guidance,
        style=spec.style_guidance,
    )
    image = pipeline(
        [scene],
        num_inference_steps=spec.steps,
        guidance=scales,
        on_step=on_step,
        cancelled=cancelled,
        **({"steering": heard.steering} if heard else {}),
        **({"styling": styled.conditioner} if styled else {}),
    )[0]
    notes = [*(layout.notes if layout is not None else ()), *pipeline.remarks(spec)]
    if spec.prompt and (unread := pipeline.text_encoder.cut(spec.prompt)):
        notes.append(f"the prompt was not read beyond: …{unread[:60]!r}")
    if heard is not None and heard.about["location_source"] == SIMULATED:
        notes.append(SIMULATED_NOTE)
    notes += styled.notes if styled is not None else ()
    return Render(
        image=image,
        layout=layout,
        spec=spec,
        window=window,
        provenance={
            **made_by(spec, pipeline, seconds=time.perf_counter() - began, online=online),
            "attribution": layout.attribution if layout is not None else "",
            "notes": notes,
            **({"sound": heard.about} if heard else {}),
            **({"style": dict(styled.about)} if styled else {}),
            "plausibility": plausibility(image, spec),
        },
    )
