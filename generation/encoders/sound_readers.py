"""What people have, as the towers of a shared space take it: pixels, recordings and sentences.

Each tower was trained on one way to read; which one is decided by its kind alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from generation.encoders.image import IMAGENET
from generation.encoders.text import TextEncoder
from generation.errors import AudioError, ConfigError, MissingFileError
from generation.media.audio import Mel, Recording, fitted, log_mel, resampled

MAX_WINDOWS = 12
"""Parts of a long recording that are listened to, evenly spread over it."""
TOKENIZER, TEXT_ENCODER = "tokenizer", "text_encoder"
"""Folders beside the weights of a space whose text tower is not the embedded one."""
_QUIETEST = 1e-10
"""Power below which a spectrogram in decibels tells nothing apart."""
_CHUNKS = 3
Words = tuple[Tensor, Bool[Tensor, "batch words"]]
"""Token states or token numbers, and which of them are words."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """How an image is brought to the size and the range of a tower."""

    image_px: int
    """Side that the tower takes."""
    normalised: Literal["signal", "imagenet"] = "signal"
    """To [-1, 1], or by ImageNet's mean and deviation."""
    resized_px: int | None = None
    """Side to which all of an image is brought before its middle is cut out; ``image_px`` if not
    told. Read for ``imagenet`` alone."""
    antialias: bool = True
    """Whether a smaller image is smoothed first; older releases of torchvision did not. Read for
    ``imagenet`` alone."""

    @property
    def side(self) -> int:
        """Pixels over which the whole image is spread."""
        return self.resized_px or self.image_px

    def __call__(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float[Tensor, "batch 3 side side"]:
        """Read square images."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        if self.normalised == "signal":
            return self._averaged(pixels / 127.5 - 1)
        scaled = F.interpolate(
            pixels / 255,
            (self.side, self.side),
            mode="bicubic",
            antialias=self.antialias,
            align_corners=False,
        )
        start = round((self.side - self.image_px) / 2)
        middle = scaled.narrow(2, start, self.image_px).narrow(3, start, self.image_px)
        mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
        return (middle - mean) / deviation

    def _averaged(
        self, signal: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 side side"]:
        size = self.image_px
        if signal.shape[-1] >= size:
            return F.adaptive_avg_pool2d(signal, size)
        return F.interpolate(signal, (size, size), mode="bilinear", align_corners=False)


@runtime_checkable
class AudioReader(Protocol):
    """Reads a recording as one kind of tower hears it."""

    mel: Mel

    def __call__(self, recording: Recording) -> Float[Tensor, "parts ..."]:
        """Give the spectrogram of each part that is listened to."""


def audio_reader(settings: Mapping[str, Any], tower: Any) -> AudioReader:  # noqa: ANN401
    """Give the reader of a sound tower."""
    if settings["kind"] == "clap":
        return FusedReader(tower.bands, tower.frames)
    if settings["kind"] == "htsat":
        return DecibelReader(tower.bands, tower.frames)
    return MelReader(tower.frames)


class MelReader:
    """Log-mel spectrograms of parts; a recording that is too short is repeated."""

    def __init__(self, frames: int) -> None:
        self.mel, self.frames = Mel(), frames
        self.filters = self.mel.filters()

    def __call__(self, recording: Recording) -> Float[Tensor, "parts bands frames"]:
        """Give the spectrogram of each part."""
        length = (self.frames - 1) * self.mel.hop
        samples = resampled(recording, self.mel.rate).samples
        parts = np.stack([fitted(samples, length, start) for start in _starts(samples, length)])
        return log_mel(torch.from_numpy(parts), self.mel, self.filters)


class DecibelReader:
    """Spectrograms in decibels of parts, silence after what is too short: MGA-CLAP's.

    Source:
        Li et al. (MGA-CLAP, 2024): 32 kHz, 64 bands of 50 Hz to 14 kHz.
    """

    def __init__(self, bands: int, frames: int) -> None:
        self.mel = Mel(rate=32_000, hop=320, bands=bands, low_hz=50.0, high_hz=14_000.0)
        self.frames, self.filters = frames, self.mel.filters()

    def __call__(self, recording: Recording) -> Float[Tensor, "parts bands frames"]:
        """Give the spectrogram of each part."""
        length = (self.frames - 1) * self.mel.hop
        samples = _filled(_sounding(resampled(recording, self.mel.rate).samples), length)
        parts = np.stack([samples[start : start + length] for start in _starts(samples, length)])
        return decibels(torch.from_numpy(parts), self.mel, self.filters)


class FusedReader:
    """A spectrogram in decibels, shrunk to ten seconds, and three parts of it: CLAP's.

    A shorter recording is repeated as often as it fits, silence after it, and is all four. The
    published reader draws the parts of a longer one at random, one from each third; here they are
    the middle ones, so that a recording has one embedding.

    Source:
        Wu et al. (CLAP, 2023), its feature fusion; transformers' ``ClapFeatureExtractor``.
    """

    def __init__(self, bands: int, frames: int) -> None:
        from transformers import ClapFeatureExtractor

        published = ClapFeatureExtractor(feature_size=bands)
        self.mel = Mel(
            rate=published.sampling_rate,
            n_fft=published.fft_window_size,
            hop=published.hop_length,
            bands=bands,
            low_hz=float(published.frequency_min),
            high_hz=float(published.frequency_max),
        )
        self.frames = frames
        self.filters = torch.from_numpy(published.mel_filters.astype(np.float32))

    def __call__(self, recording: Recording) -> Float[Tensor, "one 4 frames bands"]:
        """Give the four spectrograms of a recording."""
        length = (self.frames - 1) * self.mel.hop
        samples = _sounding(resampled(recording, self.mel.rate).samples)
        if len(samples) < length:
            samples = _filled(np.tile(samples, length // len(samples)), length)
        whole = decibels(torch.from_numpy(samples)[None], self.mel, self.filters).transpose(1, 2)
        last = whole.shape[1] - self.frames  # (1, frames, bands)
        if not last:
            return whole[:, None].repeat(1, 1 + _CHUNKS, 1, 1)
        shrunk = F.interpolate(
            whole[:, None], (self.frames, self.mel.bands), mode="bilinear", align_corners=False
        )
        thirds = np.array_split(np.arange(last + 1), _CHUNKS)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
        parts = torch.stack([whole[:, start : start + self.frames] for start in starts], 1)
        return torch.cat([shrunk, parts], 1)


def decibels(
    samples: Float[Tensor, "batch n"], mel: Mel, filters: Float[Tensor, "bins bands"]
) -> Float[Tensor, "batch bands frames"]:
    """Give the power in mel bands in decibels, never below -100.

    Args:
        samples: At ``mel.rate`` a second.
        mel: How the spectrogram is taken; Hann windows, centred, reflected at the ends.
        filters: How much of each frequency falls into each band.
    """
    window = torch.hann_window(mel.n_fft, dtype=samples.dtype)
    spectrum = torch.stft(
        samples, mel.n_fft, mel.hop, window=window, pad_mode="reflect", return_complex=True
    )
    power = filters.T @ spectrum.abs().square()
    return 10 * power.clamp_min(_QUIETEST).log10()


def _starts(samples: Float[np.ndarray, " n"], length: int) -> list[int]:
    """Spread parts of a length evenly over a recording."""
    count = min(MAX_WINDOWS, max(1, len(samples) // length))
    last = max(0, len(samples) - length)
    return [int(start) for start in np.linspace(0, last, count).round()]


def _sounding(samples: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    if not len(samples):
        raise AudioError("a recording without samples sounds like nothing (give one with sound)")
    return samples


def _filled(samples: Float[np.ndarray, " n"], length: int) -> Float[np.ndarray, " m"]:
    return np.pad(samples, (0, max(0, length - len(samples))))


@runtime_checkable
class TextReader(Protocol):
    """Reads sentences as one kind of tower takes them."""

    def __call__(self, sentences: Sequence[str]) -> list[Words]:
        """Give what the tower takes, batch by batch, in order."""


def text_reader(settings: Mapping[str, Any], tower: Any, folder: Path | None) -> TextReader:  # noqa: ANN401
    """Give the reader of a text tower.

    Args:
        settings: Of the tower.
        tower: The tower.
        folder: Where the weights of the space lie, if anywhere.

    Raises:
        MissingFileError: The tokenizer or the text encoder is not beside the weights.
        ConfigError: The tower is of another width than the text encoder.
    """
    if settings["kind"] == "minilm":
        return EmbeddedReader()
    if folder is None:
        raise ConfigError(
            f"a space with a text tower of kind {settings['kind']!r} reads sentences only where "
            f"its {TOKENIZER} lies (load it from a folder, SoundEncoder.from_pretrained)"
        )
    if settings["kind"] == "clap":
        return NumberReader(folder, tower.max_tokens)
    return StateReader(folder, tower.max_tokens, tower.dim)


class EmbeddedReader:
    """Token states of the embedded MiniLM."""

    def __init__(self) -> None:
        self.encoder = TextEncoder()

    def __call__(self, sentences: Sequence[str]) -> list[Words]:
        """Give the states of all sentences at once."""
        return [self.encoder(sentences)]


class NumberReader:
    """Token numbers of a tokenizer beside the weights, such as CLAP's (``roberta-base``)."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        from transformers import AutoTokenizer

        self.max_tokens = max_tokens
        path = _present(folder / TOKENIZER, "tokenizer of its text tower", "tokenizer.json")
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)

    def numbers(
        self, sentences: Sequence[str]
    ) -> tuple[Int[Tensor, "batch words"], Bool[Tensor, "batch words"]]:
        """Give the numbers, filled up to the longest sentence, and which of them are words."""
        batch = self.tokenizer(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return batch["input_ids"], batch["attention_mask"].bool()

    def __call__(self, sentences: Sequence[str]) -> list[Words]:
        """Give the numbers of all sentences at once."""
        return [self.numbers(sentences)]


class StateReader(NumberReader):
    """Token states of a frozen FLAN-T5 beside the weights.

    Sentences are read one by one: where tokens fill up a batch, the published codebook would let
    an embedding depend on its neighbours.

    Source:
        Chung et al., "Scaling instruction-finetuned language models" (2022).
    """

    def __init__(self, folder: Path, max_tokens: int, dim: int) -> None:
        from transformers import T5EncoderModel
        from transformers.utils import logging

        super().__init__(folder, max_tokens)
        path = _present(folder / TEXT_ENCODER, "text encoder (FLAN-T5)", "model.safetensors")
        logging.disable_progress_bar()
        self.model = T5EncoderModel.from_pretrained(
            path, local_files_only=True, use_safetensors=True
        ).eval()
        self.model.requires_grad_(False)
        if self.model.config.d_model != dim:
            raise ConfigError(
                f"{path} gives states of {self.model.config.d_model} features, the space was "
                f"trained on {dim} (put the text encoder there that its card names)"
            )

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> list[Words]:
        """Give the states of each sentence by itself."""
        return [self._states(sentence) for sentence in sentences]

    def _states(self, sentence: str) -> Words:
        numbers, words = self.numbers([sentence])
        states = self.model(input_ids=numbers, attention_mask=words.long()).last_hidden_state
        return states.float(), words


def _present(folder: Path, what: str, file: str) -> Path:
    if not (folder / file).is_file():
        raise MissingFileError(
            f"the {what} is not in {folder}, where {file} is looked for (copy its folder there "
            "from where it was published)"
        )
    return folder
