"""Panoramas: what stands around a place, from other panoramas and a satellite image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.checkpoint import load_configured, model_sha256
from generation.diffusion.codec import PatchCodec, to_bytes
from generation.diffusion.guidance import GuidanceScales, guided
from generation.diffusion.noise import position_noise
from generation.diffusion.panorama_decoder import PanoramaDecoder
from generation.diffusion.panorama_denoiser import FlowDenoiser, ViewControlNet
from generation.diffusion.surroundings import Guide, Surroundings
from generation.diffusion.views import MixedViewEncoder
from generation.errors import CancelledError, InvalidSpecError
from generation.pipelines.whole import load_parts, save_whole

OnStep = Callable[[int, int, UInt8[np.ndarray, "height width 3"] | None], None]
PARTS = {
    "unet": UNet2DConditionModel,
    "control": ViewControlNet,
    "views": MixedViewEncoder,
    "codec": PatchCodec,
    "decoder": PanoramaDecoder,
}
NOISE_LEVEL = 1000
"""Tells the noise of panoramas from that of satellite images of the same seed."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Panoramas whose middle looks north, and where what they show was found."""

    images: UInt8[np.ndarray, "batch height width 3"]
    guide: Guide


class PanoramaPipeline:
    """The denoiser, its encoder of views, its codec and decoder, and the loop that uses them."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        control: ViewControlNet,
        views: MixedViewEncoder,
        codec: PatchCodec,
        decoder: PanoramaDecoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        self.unet, self.control = unet.eval(), control.eval()
        self.views, self.codec, self.decoder = views.eval(), codec.eval(), decoder.eval()
        self.scheduler = scheduler
        self.denoiser = FlowDenoiser(unet, control)
        self.sha256 = ""

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and so where everything is computed."""
        return next(self.unet.parameters()).device

    def save_pretrained(self, folder: Path, *, half: bool = True) -> None:
        """Save every part in diffusers' layout, by default in half precision, all or nothing."""
        save_whole(self, PARTS, folder, half=half)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "PanoramaPipeline":
        """Load what :meth:`save_pretrained` wrote, every tensor checked.

        Raises:
            MissingFileError: The folder holds no such pipeline.
            WeightsError: A file is damaged, or does not fit its configuration.
        """
        parts = load_parts(PARTS, folder, "panorama")
        scheduler = load_configured(FlowMatchEulerDiscreteScheduler, folder / "scheduler")
        pipeline = cls(**parts, scheduler=scheduler)
        pipeline.sha256 = model_sha256(folder)
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        around: Surroundings,
        *,
        seeds: Sequence[int],
        num_inference_steps: int = 10,
        guidance: GuidanceScales | None = None,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Drawn:
        """Draw one panorama for each place, its middle looking north.

        Args:
            around: What is available around the places.
            seeds: One for each; equal seeds start from equal noise in every direction, wherever
                the place is.
            num_inference_steps: Steps of the sampler.
            guidance: Scales for ``satellite`` and ``views``; plain sampling when absent.
            on_step: Told ``(step, steps, preview of the first)``; the last is the picture.
            cancelled: Asked before each step.

        Raises:
            InvalidSpecError: The seeds or the steps do not fit.
            CancelledError: ``cancelled`` said so.
        """
        if len(seeds) != len(around.valid):
            raise InvalidSpecError(
                f"{len(seeds)} seeds for {len(around.valid)} places (give one for each)"
            )
        if num_inference_steps < 1:
            raise InvalidSpecError(f"num_inference_steps={num_inference_steps} (give at least 1)")
        guidance = guidance or GuidanceScales()
        x = torch.cat([self._noise(seed) for seed in seeds]).to(self.device)
        guides = Guides(self.views, around)
        drafts = _Drafts(self.codec, guides)
        draft = drafts[guides.given]
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        expected = x
        for i, t in enumerate(scheduler.timesteps):
            if cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {i} of {num_inference_steps}, as asked")
            evaluate = partial(self._evaluate, drafts, x, t.expand(len(x)))
            velocity = guided(evaluate, guidance.terms(guides.given, float(t) / 1000))
            clean = x - velocity * scheduler.sigmas[i]
            if i == 0:  # from noise alone, a velocity is trained to lead to what is expected
                expected = clean
            if on_step is not None and i + 1 < num_inference_steps:
                preview = to_bytes(self._decoded(draft[:1], expected[:1], clean[:1]))[0]
                on_step(i + 1, num_inference_steps, preview)
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
        images = to_bytes(self._decoded(draft, expected, x))
        if on_step is not None:
            on_step(num_inference_steps, num_inference_steps, images[0])
        return Drawn(images, guides[guides.given])

    def _decoded(self, draft: Tensor, expected: Tensor, sample: Tensor) -> Tensor:
        """Add what was drawn to the draft, and turn it into pixels in [-1, 1].

        Args:
            draft: What was looked up from all that is given.
            expected: The mean of what the draft can lack, in units of ``spread``.
            sample: One of the ways in which it can lack it.
        """
        rest = expected + self.views.detail_share * (sample - expected)
        latents = draft + rest * self.views.spread[:, :, None]
        return self.decoder.decode(latents, self.codec)

    def _evaluate(
        self, drafts: "_Drafts", x_t: Tensor, t: Tensor, subsets: Sequence[frozenset[str]]
    ) -> Sequence[Tensor]:
        share, guides = (t / 1000)[:, None, None, None], drafts.guides
        velocities = []
        for subset in subsets:
            # What is drawn is the rest of the picture that the whole draft lacks; the draft of
            # fewer inputs lacks more, by this much, and only that is what its guide is trained on.
            more = drafts[guides.given] - drafts[subset]
            more = more / self.views.spread[:, :, None]
            velocity = self.denoiser(x_t + (1 - share) * more, t, guides[subset])
            velocities.append(velocity + more)
        return velocities

    def _noise(self, seed: int) -> Float[Tensor, "1 channels rows cols"]:
        grid = self.views.grid
        channels = self.codec.config["latent_channels"]
        return position_noise(
            seed, NOISE_LEVEL, range(grid.height), range(grid.width), channels, period=grid.width
        )


class Guides:
    """What a batch is told for any subset of its inputs, each computed once."""

    def __init__(self, views: MixedViewEncoder, around: Surroundings) -> None:
        self.views, self.around = views, around
        has = {"satellite": around.has_satellite, "views": around.valid}
        self.given = frozenset(name for name, flags in has.items() if bool(flags.any()))
        self._made: dict[frozenset[str], Guide] = {}

    def __getitem__(self, subset: frozenset[str]) -> Guide:
        if subset not in self._made:
            around = self.around
            told = replace(
                around,
                has_satellite=around.has_satellite & ("satellite" in subset),
                valid=around.valid & ("views" in subset),
            )
            self._made[subset] = self.views(told)
        return self._made[subset]


class _Drafts:
    """The latents of what can be looked up with any subset of inputs, each computed once."""

    def __init__(self, codec: PatchCodec, guides: Guides) -> None:
        self.codec, self.guides = codec, guides
        self._made: dict[frozenset[str], Tensor] = {}

    def __getitem__(self, subset: frozenset[str]) -> Float[Tensor, "batch channels rows cols"]:
        if subset not in self._made:
            guide = self.guides[subset]
            self._made[subset] = self.codec.encode(guide.draft) + guide.correction
        return self._made[subset]
