"""What published models of sounds have in common: noise, lengths, loops, refusals.

Noise belongs to one sound and not to its batch, lengths are kept to the sample, and what a model
cannot do is refused, or told of in the notes of a render.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generation.encoders.sound_readers import decibels
from generation.errors import AudioError, CancelledError, InvalidSpecError
from generation.media.audio import Mel, Recording, resampled
from generation.pipelines.published_parts import closed, overlap_samples, within_full_scale
from generation.pipelines.sound_maker import Cancelled, OnStep, SoundAsk

CLAP_TOKENS = 512
"""Of a sentence, what CLAP reads at most."""
_LONGEST_S = 30.0
"""AudioLDM and its successor learnt from 10 s; far beyond, they fall silent or need more memory."""
_CLAP_S = 10.0


class PublishedSounds:
    """What the families have in common."""

    def __init__(self, name: str, pipeline: Any, *, sha256: str = "") -> None:  # noqa: ANN401
        self.name, self.pipeline, self.sha256 = name, pipeline, sha256
        pipeline.set_progress_bar_config(disable=True)

    @property
    def rate(self) -> int:
        """Samples a second."""
        return int(self.pipeline.vocoder.config.sampling_rate)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.pipeline.vae.device

    @property
    def listens(self) -> bool:
        """Whether it can make a sound like a recording."""
        return False

    @property
    def longest(self) -> int:
        """How many samples can be made at most, those included over which a loop closes."""
        return round(_LONGEST_S * self.rate)

    def unread(self, asks: Sequence[SoundAsk], month: int | None, hour: float | None) -> list[str]:
        """Say what is asked for and not heeded, a sentence each."""
        notes = []
        when = [n for n, value in (("month", month), ("hour", hour)) if value is not None]
        if when:
            notes.append(f"{self.name} knows no {' and no '.join(when)}; neither changed a sound")
        for ask in asks:
            if ask.recording is not None and ask.text.strip():
                notes.append(f"{self.name} heard the recording and not {ask.text[:60]!r}")
            elif beyond := self._beyond(ask.text):
                notes.append(f"{self.name} did not read a text beyond: …{beyond[:60]!r}")
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

        A loop is made a little longer, and what is too much fades out over its beginning. A sound
        that would be louder than full scale is turned down as a whole.
        """
        samples = round(seconds * self.rate)
        beyond = overlap_samples(samples, self.rate) if loop else 0
        self._check(asks, samples + beyond, steps, guidance)
        if cancelled is not None and cancelled():
            raise CancelledError(f"stopped at step 0 of {steps}, as asked")

        def watched(step: int, _t: object, _latents: object) -> None:
            if on_step is not None:
                on_step(min(step + 1, steps), steps)
            if step + 1 < steps and cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {step + 1} of {steps}, as asked")

        # The generators stand still once the noise is drawn, unless a sampler draws more of it.
        generators = [torch.Generator().manual_seed(ask.seed) for ask in asks]
        shape = self._latent_shape(samples + beyond)
        noise = torch.cat([torch.randn(1, *shape, generator=draw) for draw in generators])
        with torch.no_grad():
            made = self._draw(
                asks,
                samples + beyond,
                guidance_scale=float(guidance),
                num_inference_steps=steps,
                latents=noise.to(self.device, self.pipeline.vae.dtype),
                generator=generators,
                callback=watched,
            )
        sounds = made[:, : samples + beyond].float().cpu().numpy()
        if not np.isfinite(sounds).all():
            raise InvalidSpecError(
                f"{self.name} made numbers that are no sound, in {self.pipeline.vae.dtype} "
                f"(seconds={seconds:g}, guidance={guidance:g}: give less of either)"
            )
        return within_full_scale(closed(sounds, samples) if loop else sounds)

    def _check(self, asks: Sequence[SoundAsk], samples: int, steps: int, guidance: float) -> None:
        for name, value in (("sounds", len(asks)), ("steps", steps), ("samples", samples)):
            if value < 1:
                raise InvalidSpecError(f"{value} {name} are asked of {self.name} (give 1 or more)")
        if guidance < 1:
            raise InvalidSpecError(
                f"guidance={guidance:g}: {self.name} takes 1 (as trained) and more (give that)"
            )
        if samples > self.longest:
            raise InvalidSpecError(
                f"{self.name} makes {self.longest / self.rate:.4g} s at most, and "
                f"{samples / self.rate:.4g} s are asked for, those included over which a loop "
                "closes (make a shorter loop and repeat it, or choose model='soundscape-nano', "
                "which makes any length)"
            )
        for number, ask in enumerate(asks):
            if ask.recording is not None and not self.listens:
                raise InvalidSpecError(
                    f"model={self.name!r} hears no recordings, and sound {number} is to be like "
                    f"one ({self._deaf()})"
                )
            if ask.recording is None and not ask.text.strip():
                raise InvalidSpecError(f"sound {number} has no words (say what is to be heard)")

    def _deaf(self) -> str:
        return "say in words what is heard in it, or choose model='soundscape-nano'"

    def _beyond(self, text: str) -> str:
        """Give the end of a text that is not read, if it is too long."""
        return _beyond(self.pipeline.tokenizer, text, self._words)

    @property
    def _words(self) -> int:
        return min(self.pipeline.tokenizer.model_max_length, CLAP_TOKENS)

    def _columns(self, samples: int) -> int:
        """Columns of a spectrogram for so many samples, rounded up to whole latents."""
        hop = int(np.prod(self.pipeline.vocoder.config.upsample_rates))
        scale = int(self.pipeline.vae_scale_factor)
        return -(-samples // (hop * scale)) * scale

    def _seconds(self, samples: int) -> float:
        """Give the time that makes diffusers take exactly the columns of so many samples."""
        hop = int(np.prod(self.pipeline.vocoder.config.upsample_rates))
        return (self._columns(samples) * hop + 0.5) / self.rate

    def _latent_shape(self, samples: int) -> tuple[int, ...]:
        scale = self.pipeline.vae_scale_factor
        bands = self.pipeline.vocoder.config.model_in_dim // scale
        return self.pipeline.unet.config.in_channels, self._columns(samples) // scale, bands

    def _draw(self, asks: Sequence[SoundAsk], samples: int, **settings: Any) -> Tensor:  # noqa: ANN401
        """Make sounds of so many samples or a few more."""
        raise NotImplementedError


def clap_mels(recording: Recording, settings: Any) -> Float[Tensor, "1 1 frames bands"]:  # noqa: ANN401
    """Read a recording as CLAP without fusion does: ten seconds in decibels.

    Of a longer one it is the middle; the published reader takes any part at random. A shorter one
    is repeated as often as it fits, silence after it.

    Args:
        recording: What is to be heard.
        settings: CLAP's configuration of its sound side.

    Source:
        Wu et al., "Large-scale contrastive language-audio pretraining" (CLAP, 2023): 48 kHz, 64
        bands of 50 Hz to 14 kHz.
    """
    mel = Mel(48_000, 1024, 480, settings.num_mel_bins, 50.0, 14_000.0)
    frames = settings.spec_size * (settings.spec_size // settings.num_mel_bins)
    length = min(round(_CLAP_S * mel.rate), (frames - 1) * mel.hop)
    samples = resampled(recording, mel.rate).samples
    if not len(samples):
        raise AudioError("a recording without samples sounds like nothing (give one with sound)")
    start = max(0, (len(samples) - length) // 2)
    middle = np.tile(samples[start : start + length], max(1, length // len(samples)))
    filled = np.pad(middle, (0, length - len(middle)))
    return decibels(torch.from_numpy(filled)[None], mel, mel.filters()).transpose(1, 2)[:, None]


def _beyond(tokenizer: Any, text: str, words: int) -> str:  # noqa: ANN401
    numbers = tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
    if len(numbers) <= words:
        return ""
    return tokenizer.decode(numbers[words - 1 :], skip_special_tokens=True).strip()
