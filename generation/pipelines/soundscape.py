"""Soundscapes: what could be heard at a place, from anything that the shared space knows."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from generation.checkpoint import load_configured, model_sha256
from generation.diffusion.codec import PatchCodec
from generation.diffusion.noise import position_noise
from generation.diffusion.soundscape import (
    SoundCondition,
    SoundscapeConditioner,
    SoundscapeDenoiser,
)
from generation.encoders.heads import Embedding
from generation.errors import CancelledError, InvalidSpecError
from generation.media.audio import signal_mel
from generation.media.vocoder import Vocoder
from generation.pipelines.whole import load_parts, save_whole

PARTS = {
    "unet": UNet2DConditionModel,
    "conditioner": SoundscapeConditioner,
    "codec": PatchCodec,
    "vocoder": Vocoder,
}
NOISE_LEVEL, WHITE_LEVEL = 2000, 2001
"""Tell the noise of sounds, and the white noise that is coloured, from that of images."""
OnStep = Callable[[int, int], None]


class SoundscapePipeline:
    """The denoiser, what it is told, its codec and vocoder, and the loop that uses them."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        conditioner: SoundscapeConditioner,
        codec: PatchCodec,
        vocoder: Vocoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        self.unet, self.conditioner = unet.eval(), conditioner.eval()
        self.codec, self.vocoder = codec.eval(), vocoder.eval()
        self.scheduler = scheduler
        self.denoiser = SoundscapeDenoiser(unet)
        self.sha256 = ""

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and so where everything is computed."""
        return next(self.unet.parameters()).device

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.vocoder.mel.rate

    def save_pretrained(self, folder: Path, *, half: bool = True) -> None:
        """Save every part in diffusers' layout, by default in half precision, all or nothing."""
        save_whole(self, PARTS, folder, half=half)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "SoundscapePipeline":
        """Load what :meth:`save_pretrained` wrote, every tensor checked.

        Raises:
            MissingFileError: The folder holds no such pipeline.
            WeightsError: A file is damaged, or does not fit its configuration.
        """
        parts = load_parts(PARTS, folder, "soundscape")
        scheduler = load_configured(FlowMatchEulerDiscreteScheduler, folder / "scheduler")
        pipeline = cls(**parts, scheduler=scheduler)
        pipeline.sha256 = model_sha256(folder)
        return pipeline

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - all that a sound may be asked for with
        self,
        asked: Embedding,
        kind: str,
        *,
        seconds: float,
        seeds: Sequence[int],
        month: int | None = None,
        hour: float | None = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 2.0,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Float[np.ndarray, "batch samples"]:
        """Make one sound for each embedding, of exactly so many seconds.

        Args:
            asked: Embeddings of the space that the pipeline was trained with.
            kind: What they are of: audio, text or image.
            seconds: How long; rounded to a sample.
            seeds: One for each; equal seeds start from equal noise.
            month: 1 to 12, if known.
            hour: 0 to 24, if known.
            num_inference_steps: Steps of the sampler.
            guidance_scale: How much more than in recordings at large is asked for; 1 is plain.
            on_step: Told ``(step, steps)``.
            cancelled: Asked before each step.

        Returns:
            float32 in [-1, 1] at :attr:`rate`.

        Raises:
            InvalidSpecError: The seeds, the steps or the seconds do not fit.
            CancelledError: ``cancelled`` said so.
        """
        if len(seeds) != len(asked):
            raise InvalidSpecError(
                f"{len(seeds)} seeds for {len(asked)} sounds (give one for each)"
            )
        if num_inference_steps < 1:
            raise InvalidSpecError(f"num_inference_steps={num_inference_steps} (give at least 1)")
        samples = round(seconds * self.rate)
        if samples < 1:
            raise InvalidSpecError(f"seconds={seconds} is no length (give more than 0)")
        hop, patch = self.vocoder.mel.hop, self.codec.patch
        columns = -(-(samples // hop + 2) // patch)
        condition = self._condition(asked, kind, month, hour)
        plain = self._condition(asked, kind, None, None, keep=False)
        x = torch.cat([self._noise(seed, columns) for seed in seeds]).to(self.device)
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        for i, t in enumerate(scheduler.timesteps):
            if cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {i} of {num_inference_steps}, as asked")
            velocity = self.denoiser(x, t.expand(len(x)), condition)
            if guidance_scale != 1:
                free = self.denoiser(x, t.expand(len(x)), plain)
                velocity = free + guidance_scale * (velocity - free)
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
            if on_step is not None:
                on_step(i + 1, num_inference_steps)
        return self.sounds(x, seeds)[:, :samples].clip(-1, 1)

    @torch.no_grad()
    def sounds(
        self, latents: Float[Tensor, "batch channels rows cols"], seeds: Sequence[int]
    ) -> Float[np.ndarray, "batch samples"]:
        """Turn latents into sound; the seeds decide the white noise that is coloured."""
        mel = signal_mel(self.codec.decode(latents)[:, 0])
        count = (mel.shape[2] - 1) * self.vocoder.mel.hop
        white = [
            position_noise(seed, WHITE_LEVEL, range(1), range(count), 1)[0, 0] for seed in seeds
        ]
        made: np.ndarray = self.vocoder(mel, torch.cat(white).to(mel)).cpu().numpy()
        return made

    def _condition(
        self,
        asked: Embedding,
        kind: str,
        month: int | None,
        hour: float | None,
        *,
        keep: bool = True,
    ) -> SoundCondition:
        count = len(asked)

        def all_alike(value: int | float | None) -> Tensor:
            return torch.full((count,), float("nan") if value is None else float(value))

        return self.conditioner(
            self.conditioner.centred(asked, kind).to(self.device),
            torch.full((count,), keep, device=self.device),
            all_alike(month).to(self.device),
            all_alike(hour).to(self.device),
        )

    def _noise(self, seed: int, columns: int) -> Float[Tensor, "1 channels rows cols"]:
        rows = self.vocoder.mel.bands // self.codec.patch
        kept = self.codec.config["latent_channels"]
        return position_noise(seed, NOISE_LEVEL, range(rows), range(columns), kept)
