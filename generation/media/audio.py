"""Sounds as files and as spectrograms: a reader that trusts nothing, and the log-mel of towers."""

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generation.errors import AudioError
from generation.media.image import read_bytes

MAX_SECONDS = 900.0
"""The longest recording that is decoded, unless the caller says otherwise."""
MAX_CHANNELS = 32
RATES = (4_000, 768_000)
"""Samples a second that a recording may have."""
_FLOOR = 1e-5
_SILENCE = math.log(_FLOOR)
_LOUDEST = 4.0
"""The logarithms of magnitudes that stand for -1 and 1 in the signal of a spectrogram."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One channel of sound."""

    samples: Float[np.ndarray, " n"]
    """float32; full scale is -1 to 1, and what was recorded louder stays so."""
    rate: int
    """Samples a second."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


def open_audio(
    path: Path, *, rate: int | None = None, max_seconds: float = MAX_SECONDS
) -> Recording:
    """Decode a sound file to one channel; several are averaged.

    Length, channels and rate are checked before anything is decoded.

    Args:
        path: WAV, FLAC, OGG, MP3, AIFF or what else libsndfile reads.
        rate: Samples a second to give; the file's own if absent.
        max_seconds: The longest that is still decoded.

    Raises:
        MissingFileError: There is no such file.
        AudioError: It is no sound, damaged, empty, too long, or holds no numbers.
    """
    return decode_audio(read_bytes(path), str(path), rate=rate, max_seconds=max_seconds)


def decode_audio(
    data: bytes, name: str, *, rate: int | None = None, max_seconds: float = MAX_SECONDS
) -> Recording:
    """Decode the bytes of a sound file; see :func:`open_audio`."""
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            _check(name, file.frames, file.samplerate, file.channels, max_seconds)
            samples, own = file.read(dtype="float32", always_2d=True).mean(1), file.samplerate
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        reason = f"{error}".rpartition(": ")[2][:100]  # what stands before names no file
        raise AudioError(
            f"{name} is no readable sound ({reason}; WAV, FLAC, OGG and MP3 are read; is it "
            "complete?)"
        ) from None
    if not len(samples):
        raise AudioError(f"{name} holds no sound at all (record it again)")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} has samples that are no numbers (save it as 16-bit)")
    return resampled(Recording(samples, int(own)), rate or int(own))


def resampled(recording: Recording, rate: int) -> Recording:
    """Give the recording at another rate, without what that rate cannot hold."""
    if rate == recording.rate:
        return recording
    from scipy.signal import resample_poly

    shared = math.gcd(rate, recording.rate)
    samples = resample_poly(recording.samples, rate // shared, recording.rate // shared)
    return Recording(samples.astype(np.float32), rate)


def fitted(
    samples: Float[np.ndarray, " n"], count: int, start: int = 0
) -> Float[np.ndarray, " count"]:
    """Cut so many samples from a start on; a shorter recording is repeated.

    Source:
        Wu et al., "Large-scale contrastive language-audio pretraining" (CLAP, 2023): its
        "repeat pad" without the padding, so that no silence is invented.
    """
    if not len(samples):
        raise AudioError("a recording without samples cannot be repeated (give one with sound)")
    return np.take(samples, np.arange(start, start + count), mode="wrap")


@dataclass(frozen=True, slots=True)
class Mel:
    """How a spectrogram is taken."""

    rate: int = 16_000
    n_fft: int = 1024
    hop: int = 160
    bands: int = 64
    low_hz: float = 0.0
    high_hz: float = 8_000.0

    def frames(self, count: int) -> int:
        """How many columns so many samples give."""
        return count // self.hop + 1

    def filters(self) -> Float[Tensor, "bins bands"]:
        """Triangles on the mel scale, of equal area each.

        Source:
            Slaney, "Auditory toolbox" (1998).
        """
        from transformers.audio_utils import mel_filter_bank

        bank = mel_filter_bank(
            num_frequency_bins=self.n_fft // 2 + 1,
            num_mel_filters=self.bands,
            min_frequency=self.low_hz,
            max_frequency=self.high_hz,
            sampling_rate=self.rate,
            norm="slaney",
            mel_scale="slaney",
        )
        return torch.from_numpy(np.asarray(bank, np.float32))


def log_mel(
    samples: Float[Tensor, "batch n"], mel: Mel, filters: Float[Tensor, "bins bands"]
) -> Float[Tensor, "batch bands frames"]:
    """Give the natural logarithm of magnitudes in mel bands, never below log(1e-5).

    Args:
        samples: At ``mel.rate`` a second.
        mel: How the spectrogram is taken; Hann windows, centred, reflected at the ends.
        filters: What ``mel.filters()`` gives.

    Source:
        Liu et al., "AudioLDM" (ICML 2023), whose published settings are the defaults.
    """
    window = torch.hann_window(mel.n_fft, device=samples.device, dtype=samples.dtype)
    spectrum = torch.stft(
        samples, mel.n_fft, mel.hop, window=window, pad_mode="reflect", return_complex=True
    )
    bands = filters.T.to(samples) @ spectrum.abs()
    return bands.clamp_min(_FLOOR).log()


def mel_signal(
    log_mel: Float[Tensor, "*batch bands frames"],
) -> Float[Tensor, "*batch bands frames"]:
    """Bring a log-mel spectrogram to [-1, 1], what diffusion works on; silence is -1."""
    return (log_mel - _SILENCE) / (_LOUDEST - _SILENCE) * 2 - 1


def signal_mel(
    signal: Float[Tensor, "*batch bands frames"],
) -> Float[Tensor, "*batch bands frames"]:
    """Bring such a signal back."""
    return (signal + 1) / 2 * (_LOUDEST - _SILENCE) + _SILENCE


def _check(name: str, frames: int, rate: int, channels: int, max_seconds: float) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(
            f"{name} has {rate} samples a second ({RATES[0]} to {RATES[1]} are read; resample it)"
        )
    if channels > MAX_CHANNELS:
        raise AudioError(f"{name} has {channels} channels ({MAX_CHANNELS} at most; mix it down)")
    if frames / rate > max_seconds:
        raise AudioError(
            f"{name} lasts {frames / rate:.0f} s, {max_seconds:.0f} s are allowed (cut out the "
            "part that matters)"
        )
