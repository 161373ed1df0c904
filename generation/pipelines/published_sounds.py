"""Sounds at full size: AudioLDM, AudioLDM 2 and Stable Audio Open, behind one interface.

diffusers' pipelines do the work; sentences are read one by one, so that a sound does not depend on
its batch. For AudioLDM diffusers' class is the loader: the package ``audioldm`` asks for numpy 1.23
and transformers 4, and cannot be installed beside the rest.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AudioLDMPipeline,
    AutoencoderKL,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
    UNet2DConditionModel,
)
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    ClapFeatureExtractor,
    ClapModel,
    ClapTextModelWithProjection,
    GPT2Model,
    RobertaTokenizer,
    SpeechT5HifiGan,
    T5EncoderModel,
    T5Tokenizer,
)

from generation.checkpoint import model_sha256
from generation.errors import InvalidSpecError, WeightsError
from generation.hub import fetch
from generation.media.audio import Recording
from generation.pipelines.parts import Options, load_model, load_scheduler
from generation.pipelines.published_maker import PublishedSounds, clap_mels
from generation.pipelines.published_parts import (
    WritingPipeline,
    load_oobleck,
    load_solver,
    load_tokenizer,
    load_transformer,
    read_settings,
    without_retirement_notice,
)
from generation.pipelines.sound_maker import SoundAsk
from generation.registry import find

_LANGUAGE_TOKENS = 8
_BESIDE = 16
"""Latents after the last wanted one that Stable Audio's decoder still looks at."""


class AudioLdm(PublishedSounds):
    """AudioLDM: steered by one vector of CLAP, so by words or, where CLAP is whole, by recordings.

    Source:
        Liu et al., "AudioLDM: Text-to-audio generation with latent diffusion models" (2023).
    """

    @classmethod
    def from_folder(cls, name: str, folder: Path, options: Options) -> "AudioLdm":
        """Load the parts, every file checked."""
        device, dtype = options.place()
        kind = _clap_kind(folder / "text_encoder")
        with without_retirement_notice():
            pipeline = AudioLDMPipeline(
                load_model(AutoencoderKL, folder / "vae", dtype).to(device),
                load_transformer(kind, folder / "text_encoder", dtype).to(device),
                load_tokenizer(RobertaTokenizer, folder / "tokenizer"),
                load_model(UNet2DConditionModel, folder / "unet", dtype).to(device),
                load_scheduler(folder / "scheduler", options.sampler),
                load_transformer(SpeechT5HifiGan, folder / "vocoder", dtype).to(device),
            )
        return cls(name, pipeline, sha256=model_sha256(folder))

    @property
    def listens(self) -> bool:
        """Whether its CLAP came with ears that are known here."""
        clap = self.pipeline.text_encoder
        return isinstance(clap, ClapModel) and not clap.config.audio_config.enable_fusion

    def _deaf(self) -> str:
        return (
            "its text_encoder holds CLAP's text side alone: put a whole ClapModel there, as "
            "`terrascape convert audioldm` does, or say in words what is heard in it"
        )

    def _draw(self, asks: Sequence[SoundAsk], samples: int, **settings: Any) -> Tensor:  # noqa: ANN401
        told = [
            self._read(ask.text) if ask.recording is None else self._hear(ask.recording)
            for ask in asks
        ]
        return self.pipeline(
            prompt_embeds=torch.cat(told),
            negative_prompt_embeds=self._read("").expand(len(asks), -1),
            audio_length_in_s=self._seconds(samples),
            output_type="pt",
            **settings,
        ).audios

    def _read(self, text: str) -> Float[Tensor, "1 dim"]:
        """Give the unit vector of a sentence."""
        clap = self.pipeline.text_encoder
        words = self.pipeline.tokenizer(
            [text], truncation=True, max_length=self._words, return_tensors="pt"
        ).to(clap.device)
        given = {"input_ids": words["input_ids"], "attention_mask": words["attention_mask"]}
        if isinstance(clap, ClapModel):
            return clap.get_text_features(**given).pooler_output
        return F.normalize(clap(**given).text_embeds, dim=-1)

    def _hear(self, recording: Recording) -> Float[Tensor, "1 dim"]:
        """Give the unit vector of the middle of a recording, or of one that is repeated."""
        clap = self.pipeline.text_encoder
        mels = clap_mels(recording, clap.config.audio_config)
        return clap.get_audio_features(mels.to(clap.device, clap.dtype)).pooler_output


class AudioLdm2(PublishedSounds):
    """AudioLDM 2: a language model writes what a network attends to beside the words themselves.

    Source:
        Liu et al., "AudioLDM 2: Learning holistic audio generation with self-supervised
        pretraining" (2023).
    """

    written = _LANGUAGE_TOKENS
    """Vectors that the language model writes."""

    @classmethod
    def from_folder(cls, name: str, folder: Path, options: Options) -> "AudioLdm2":
        """Load the parts, every file checked."""
        device, dtype = options.place()
        written = read_settings(folder / "language_model").get("max_new_tokens")
        pipeline = WritingPipeline(
            load_model(AutoencoderKL, folder / "vae", dtype).to(device),
            load_transformer(ClapModel, folder / "text_encoder", dtype).to(device),
            load_transformer(T5EncoderModel, folder / "text_encoder_2", dtype).to(device),
            load_model(AudioLDM2ProjectionModel, folder / "projection_model", dtype).to(device),
            load_transformer(GPT2Model, folder / "language_model", dtype).to(device),
            load_tokenizer(RobertaTokenizer, folder / "tokenizer"),
            load_tokenizer(T5Tokenizer, folder / "tokenizer_2"),
            ClapFeatureExtractor(),  # ranks several sounds of one sentence, which nobody asks for
            load_model(AudioLDM2UNet2DConditionModel, folder / "unet", dtype).to(device),
            load_scheduler(folder / "scheduler", options.sampler),
            load_transformer(SpeechT5HifiGan, folder / "vocoder", dtype).to(device),
        )
        made = cls(name, pipeline, sha256=model_sha256(folder))
        made.written = written if isinstance(written, int) else _LANGUAGE_TOKENS
        return made

    def _draw(self, asks: Sequence[SoundAsk], samples: int, **settings: Any) -> Tensor:  # noqa: ANN401
        guided = settings["guidance_scale"] > 1
        told = [self._read(ask.text, guided=guided) for ask in asks]
        longest = max(states.shape[1] for states, _, _ in told)
        filled = [longest - states.shape[1] for states, _, _ in told]
        parts = {
            "prompt_embeds": [
                F.pad(states, (0, 0, 0, more))
                for (states, _, _), more in zip(told, filled, strict=True)
            ],
            "attention_mask": [
                F.pad(mask, (0, more)) for (_, mask, _), more in zip(told, filled, strict=True)
            ],
            "generated_prompt_embeds": [written for _, _, written in told],
        }
        given = {name: torch.cat([part[-1:] for part in each]) for name, each in parts.items()}
        if guided:
            given |= {
                f"negative_{name}": torch.cat([part[:1] for part in each])
                for name, each in parts.items()
            }
        return self.pipeline(
            **given,
            audio_length_in_s=self._seconds(samples),
            max_new_tokens=self.written,
            output_type="pt",
            **settings,
        ).audios

    def _read(self, text: str, *, guided: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Read one sentence by itself: in a batch, what fills it up would move its positions.

        Returns:
            States of its words, which of them are words, and what the language model writes; with
            guidance, those of no words come first.
        """
        told: tuple[Tensor, Tensor, Tensor] = self.pipeline.encode_prompt(
            [text], self.device, 1, guided, max_new_tokens=self.written
        )
        return told


class StableAudio(PublishedSounds):
    """Stable Audio Open: 44.1 kHz in stereo, mixed to the one channel that is placed later on.

    Source:
        Evans et al., "Stable Audio Open" (2024), arXiv 2407.14358.
    """

    replaced = False
    """Whether another sampler than the published one draws."""

    @classmethod
    def from_folder(cls, name: str, folder: Path, options: Options) -> "StableAudio":
        """Load the parts, every file checked."""
        device, dtype = options.place()
        scheduler, replaced = load_solver(folder / "scheduler")
        projection = load_model(StableAudioProjectionModel, folder / "projection_model", dtype)
        pipeline = StableAudioPipeline(
            load_oobleck(folder / "vae", dtype).to(device),
            load_transformer(T5EncoderModel, folder / "text_encoder", dtype).to(device),
            projection.to(device),
            load_tokenizer(T5Tokenizer, folder / "tokenizer"),
            load_model(StableAudioDiTModel, folder / "transformer", dtype).to(device),
            scheduler,
        )
        made = cls(name, pipeline, sha256=model_sha256(folder))
        made.replaced = replaced
        return made

    @property
    def rate(self) -> int:
        """Samples a second."""
        return int(self.pipeline.vae.config.sampling_rate)

    @property
    def longest(self) -> int:
        """How many samples can be made at most: the network always draws so many."""
        return int(self.pipeline.transformer.config.sample_size * self.pipeline.vae.hop_length)

    def unread(self, asks: Sequence[SoundAsk], month: int | None, hour: float | None) -> list[str]:
        """Say what is asked for and not heeded, a sentence each."""
        notes = super().unread(asks, month, hour)
        if self.replaced:
            notes.append(
                f"{self.name} drew with DPM-Solver++ over its published noise levels, without the "
                "noise that its published sampler adds at each step"
            )
        return notes

    @property
    def _words(self) -> int:
        return int(self.pipeline.tokenizer.model_max_length)

    def _latent_shape(self, samples: int) -> tuple[int, ...]:
        settings = self.pipeline.transformer.config
        return settings.in_channels, settings.sample_size

    def _draw(self, asks: Sequence[SoundAsk], samples: int, **settings: Any) -> Tensor:  # noqa: ANN401
        latents = self.pipeline(
            [ask.text for ask in asks],
            audio_end_in_s=samples / self.rate,
            output_type="latent",
            **settings,
        ).audios
        vae = self.pipeline.vae
        needed = latents[..., : -(-samples // vae.hop_length) + _BESIDE]
        return torch.cat([vae.decode(each).sample.mean(1) for each in needed.split(1)])


def load_published(
    name: str, *, online: bool = False, options: Options | None = None
) -> PublishedSounds:
    """Give a registered full-size model of sounds, loaded once as long as its files do not change.

    Args:
        name: A registered name.
        online: Whether weights may be fetched from the Hub.
        options: Device and precision, and for AudioLDM and its successor the sampler.

    Raises:
        InvalidSpecError: It is of no family that is known here.
        MissingFileError: Weights are not here; the message says what to get and where to put it.
        WeightsError: A file is damaged, or does not fit its configuration.
        NetworkError: The Hub was asked and did not answer.
    """
    card = find(name)
    if card.family not in _FAMILIES:
        raise InvalidSpecError(
            f"model={name!r} is of family {card.family!r} (those of full size are "
            f"{', '.join(_FAMILIES)})"
        )
    folder = fetch(card.name, online=online)
    stamp = tuple(file.stat().st_mtime for file in sorted(folder.rglob("*.safetensors")))
    return _loaded(card.name, card.family, folder, stamp, options or Options())


_FAMILIES: dict[str, Any] = {
    "audioldm": AudioLdm,
    "audioldm2": AudioLdm2,
    "stable-audio": StableAudio,
}


@lru_cache(maxsize=1)
def _loaded(
    name: str, family: str, folder: Path, stamp: tuple[float, ...], options: Options
) -> PublishedSounds:
    return _FAMILIES[family].from_folder(name, folder, options)


def _clap_kind(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    kinds = {"clap": ClapModel, "clap_text_model": ClapTextModelWithProjection}
    named = read_settings(folder).get("model_type")
    if named not in kinds:
        raise WeightsError(
            f"{folder} is a {named} (AudioLDM's is one of {', '.join(kinds)}; give its folder)"
        )
    return kinds[named]
