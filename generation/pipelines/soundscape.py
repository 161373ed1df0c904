"""Soundscapes: what could be heard at a place, from anything that the shared space knows."""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from generation.checkpoint import load_configured, model_sha256
from generation.diffusion.codec import PatchCodec
from generation.diffusion.guidance import GuidanceScales, guided
from generation.diffusion.noise import position_noise
from generation.diffusion.soundscape import (
    SoundCondition,
    SoundscapeConditioner,
    SoundscapeDenoiser,
)
from generation.diffusion.windows import circular_windows, joined
from generation.encoders.gallery import Gallery
from generation.encoders.heads import Embedding
from generation.encoders.metadata import HOUR, MONTH
from generation.encoders.sound_encoder import SoundEncoder, load_sound_encoder
from generation.encoders.sound_space import AUDIO, TEXT
from generation.errors import CancelledError, InvalidSpecError, WeightsError
from generation.media.audio import signal_mel
from generation.media.vocoder import Vocoder
from generation.pipelines.sound_maker import Cancelled, OnStep, SoundAsk
from generation.pipelines.whole import load_parts, save_whole, stamped
from generation.registry import GALLERY

PARTS = {
    "unet": UNet2DConditionModel,
    "conditioner": SoundscapeConditioner,
    "codec": PatchCodec,
    "vocoder": Vocoder,
}
NOISE_LEVEL, WHITE_LEVEL = 2000, 2001
"""Tell the noise of sounds, and the white noise that is coloured, from that of images."""
_KNOWN, _CAPTIONS = 0.6, 64
"""Likeness of words from which a sound is known (others reach 0.5), and captions looked at."""
_OVERLAP = 0.25
"""Of two neighbouring windows, the share that both of them decide."""
_AT_ONCE = 32
"""Windows that the denoiser is given at a time."""
_BESIDE, _CHUNK = 24, 3000
"""Columns that the vocoder looks at to each side of one, and those that it is given at a time."""


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

    def unread(self, asks: Sequence[SoundAsk], month: int | None, hour: float | None) -> list[str]:
        """Say what of the time it never learnt, and what it takes words for that it does not know.

        Known are the captions of the embedded gallery, and what is said in nearly such words.
        """
        encoder, reads = self.encoder(), self.conditioner.config["reads"]
        gallery = Gallery.open(str(GALLERY), encoder.sha256)
        told = [name for name, value in ((MONTH, month), (HOUR, hour)) if value is not None]
        notes = [f"the {n} changed no sound: it was never learnt" for n in told if n not in reads]
        for text in dict.fromkeys(ask.text for ask in asks if ask.text):
            hits = gallery.search(encoder.text([text]), _CAPTIONS, kinds=("caption",))
            alike = float(encoder.word_likeness([text], [hit.title for hit in hits]).max())
            if alike < _KNOWN:
                notes.append(
                    f"{text!r} is no sound that it knows; it is taken for {hits[0].title!r} "
                    f"(likeness of words {alike:.2f}, {_KNOWN:g} is needed)"
                )
        return notes

    def make(  # noqa: PLR0913 - all that a sound may be asked for with
        self,
        asks: Sequence[SoundAsk],
        *,
        seconds: float,
        loop: bool = False,
        month: int | None = None,
        hour: float | None = None,
        steps: int = 10,
        guidance: float = 2.0,
        on_step: OnStep | None = None,
        cancelled: Cancelled | None = None,
    ) -> Float[np.ndarray, "batch samples"]:
        """Make one sound for each ask: see :class:`generation.pipelines.sound_maker.SoundMaker`.

        Raises:
            WeightsError: The shared space here is another one than it was trained with.
        """
        encoder = self.encoder()
        rows = []
        for ask in asks:
            if ask.recording is not None:
                rows.append(self.conditioner.centred(encoder.audio([ask.recording]), AUDIO))
            else:
                rows.append(self.conditioner.centred(encoder.text([ask.text]), TEXT))
        return self.draw(
            torch.cat(rows),
            seconds=seconds,
            seeds=[ask.seed for ask in asks],
            loop=loop,
            month=month,
            hour=hour,
            num_inference_steps=steps,
            guidance_scale=guidance,
            on_step=on_step,
            cancelled=cancelled,
        )

    def encoder(self) -> SoundEncoder:
        """Give the shared space that it was trained with.

        Raises:
            WeightsError: The one here has other weights.
        """
        told = self.conditioner.config
        encoder = load_sound_encoder(told["space"])
        if encoder.sha256 != told["space_sha256"]:
            raise WeightsError(
                f"the model of sounds was trained with {told['space']} of sha256 "
                f"{told['space_sha256']}, here is {encoder.sha256} (restore the two together, or "
                "train it anew)"
            )
        return encoder

    def __call__(
        self,
        asked: Embedding,
        kind: str,
        *,
        seconds: float,
        seeds: Sequence[int],
        **settings: object,
    ) -> Float[np.ndarray, "batch samples"]:
        """Make one sound for each embedding of the space that the pipeline was trained with.

        Args:
            asked: The embeddings.
            kind: What they are of: audio, text or image.
            seconds: How long.
            seeds: One for each.
            settings: As :meth:`draw` takes them.
        """
        centred = self.conditioner.centred(asked, kind)
        return self.draw(centred, seconds=seconds, seeds=seeds, **settings)  # type: ignore[arg-type]

    @torch.no_grad()
    def draw(  # noqa: PLR0913 - all that a sound may be asked for with
        self,
        centred: Float[Tensor, "batch dim"],
        *,
        seconds: float,
        seeds: Sequence[int],
        loop: bool = False,
        month: int | None = None,
        hour: float | None = None,
        num_inference_steps: int = 10,
        guidance_scale: float = 2.0,
        on_step: OnStep | None = None,
        cancelled: Cancelled | None = None,
    ) -> Float[np.ndarray, "batch samples"]:
        """Make one sound for each direction, of exactly so many seconds.

        Windows of the length that the denoiser has learnt lie around a circle of time and shift
        from step to step, so no length is too long, nothing repeats, and the end of a loop meets
        its beginning.

        Args:
            centred: What :meth:`SoundscapeConditioner.centred` gives.
            seconds: How long; rounded to a sample.
            seeds: One for each; equal seeds start from equal noise.
            loop: Whether the end goes over into the beginning; then of whole columns of a
                spectrogram, which the latents' are stretched to by less than their own width.
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

        Source:
            Bar-Tal et al., "MultiDiffusion" (ICML 2023), Eq. 5, for windows whose answers are
            averaged.
        """
        samples, frames = self._length(centred, seconds, seeds, num_inference_steps, loop=loop)
        width = int(self.unet.config["sample_size"][1])
        columns = -(-frames // self.codec.patch)
        columns = columns if loop else max(columns, width)
        conditions = {
            keep: self._condition(centred, month, hour, keep=keep) for keep in (True, False)
        }
        x = torch.cat([self._noise(seed, columns) for seed in seeds]).to(self.device)
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        scales = GuidanceScales(sound=guidance_scale)
        for i, t in enumerate(scheduler.timesteps):
            if cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {i} of {num_inference_steps}, as asked")
            terms = scales.terms(frozenset({"sound"}), float(t) / 1000)
            shift = round(i * columns * (math.sqrt(5) - 1) / 2)  # never the same border again

            def evaluate(subsets: Sequence[frozenset[str]]) -> Sequence[Tensor]:
                told = [conditions["sound" in subset] for subset in subsets]
                return self._windowed(x, t, told, (width, shift))  # noqa: B023 - used at once

            x = scheduler.step(guided(evaluate, terms), t, x, return_dict=False)[0]
            if on_step is not None:
                on_step(i + 1, num_inference_steps)
        made = self.sounds(x, seeds, frames=frames if loop else None)
        return made[:, :samples].clip(-1, 1)

    def _length(
        self,
        centred: Tensor,
        seconds: float,
        seeds: Sequence[int],
        steps: int,
        *,
        loop: bool,
    ) -> tuple[int, int]:
        """Check what is asked for; give the samples and the columns of a spectrogram."""
        if len(seeds) != len(centred):
            raise InvalidSpecError(
                f"{len(seeds)} seeds for {len(centred)} sounds (give one for each)"
            )
        if steps < 1:
            raise InvalidSpecError(f"num_inference_steps={steps} (give at least 1)")
        samples, hop = round(seconds * self.rate), self.vocoder.mel.hop
        if samples < 1:
            raise InvalidSpecError(f"seconds={seconds} is no length (give more than 0)")
        if loop and samples % hop:
            raise InvalidSpecError(
                f"seconds={seconds:g} is no length of a loop (give a multiple of "
                f"{hop / self.rate:g})"
            )
        return samples, samples // hop if loop else samples // hop + 2

    def _windowed(
        self,
        x: Float[Tensor, "batch channels rows cols"],
        t: Tensor,
        told: Sequence[SoundCondition],
        where: tuple[int, int],
    ) -> list[Float[Tensor, "batch channels rows cols"]]:
        """Give the velocity under each of some conditions, as the mean over windows of time."""
        index, weight = circular_windows(x.shape[3], *where, overlap=_OVERLAP)
        index, weight = index.to(x.device), weight.to(x)
        count, batch, half = len(index), len(x), len(told)
        seen = x[..., index].movedim(3, 0).flatten(0, 1).repeat(half, 1, 1, 1)
        rows = torch.arange(batch, device=x.device).repeat(count)
        tokens = torch.cat([each.tokens[rows] for each in told])
        vector = torch.cat([each.vector[rows] for each in told])
        parts = [
            self.denoiser(part, t.expand(len(part)), SoundCondition(*about))
            for part, *about in zip(
                seen.split(_AT_ONCE), tokens.split(_AT_ONCE), vector.split(_AT_ONCE), strict=True
            )
        ]
        answers = torch.cat(parts).unflatten(0, (half, count, batch)).movedim(1, 0)
        return list(joined(answers, index, weight, x.shape[3]))

    @torch.no_grad()
    def sounds(
        self,
        latents: Float[Tensor, "batch channels rows cols"],
        seeds: Sequence[int],
        *,
        frames: int | None = None,
    ) -> Float[np.ndarray, "batch samples"]:
        """Turn latents into sound; the seeds decide the white noise that is coloured.

        Args:
            latents: Spectrograms as the codec writes them.
            seeds: One for each.
            frames: Columns of a loop, which the spectrograms are stretched to; otherwise they have
                a beginning and an end.
        """
        signal, hop, loop = self.codec.decode(latents)[:, 0], self.vocoder.mel.hop, bool(frames)
        if frames and frames != signal.shape[2]:
            around = torch.cat([signal[..., -1:], signal, signal[..., :1]], dim=2)
            at = (torch.arange(frames).to(signal) + 0.5) * signal.shape[2] / frames + 0.5
            low = at.floor().long()
            signal = torch.lerp(around[..., low], around[..., low + 1], at - low)
        mel = signal_mel(signal)
        length = mel.shape[2] * hop if loop else (mel.shape[2] - 1) * hop
        white = torch.cat(
            [position_noise(seed, WHITE_LEVEL, range(1), range(length), 1)[0, 0] for seed in seeds]
        ).to(mel)
        if loop:
            beside = range(-_BESIDE, mel.shape[2] + _BESIDE)
            mel = mel[..., torch.tensor(beside) % mel.shape[2]]
            past = torch.arange(-_BESIDE * hop, length + (_BESIDE - 1) * hop) % length
            white = white[:, past]
        made = self._voiced(mel, white)
        made = made[:, _BESIDE * hop :][:, :length] if loop else made
        return np.asarray(made.cpu().numpy())

    def _voiced(
        self, mel: Float[Tensor, "batch bands frames"], white: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch samples"]:
        """Give sound a stretch at a time; each is heard with its surroundings, so none shows."""
        hop, last = self.vocoder.mel.hop, mel.shape[2] - 1
        parts = []
        for start in range(0, max(last, 1), _CHUNK):
            end = min(start + _CHUNK, last)
            low, high = max(start - _BESIDE, 0), min(end + _BESIDE, last)
            part = self.vocoder(mel[..., low : high + 1], white[:, low * hop : high * hop])
            parts.append(part[:, (start - low) * hop : (end - low) * hop])
        return torch.cat(parts, 1)

    def _condition(
        self,
        centred: Float[Tensor, "batch dim"],
        month: int | None,
        hour: float | None,
        *,
        keep: bool,
    ) -> SoundCondition:
        """Tell a batch its sounds and the time, or, unless ``keep``, nothing."""
        count = len(centred)

        def all_alike(value: int | float | None) -> Tensor:
            known = float("nan") if value is None or not keep else float(value)
            return torch.full((count,), known, device=self.device)

        told: SoundCondition = self.conditioner(
            centred.to(self.device),
            torch.full((count,), keep, device=self.device),
            all_alike(month),
            all_alike(hour),
        )
        return told

    def _noise(self, seed: int, columns: int) -> Float[Tensor, "1 channels rows cols"]:
        rows = self.vocoder.mel.bands // self.codec.patch
        kept = self.codec.config["latent_channels"]
        return position_noise(seed, NOISE_LEVEL, range(rows), range(columns), kept)


@lru_cache(maxsize=1)
def _pipeline(folder: Path, stamp: tuple[float, ...]) -> SoundscapePipeline:
    return SoundscapePipeline.from_pretrained(folder)


def load_soundscape(name: str) -> SoundscapePipeline:
    """Give a registered pipeline of sounds, loaded once as long as its files do not change."""
    return _pipeline(*stamped(name))
