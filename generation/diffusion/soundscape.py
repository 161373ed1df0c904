"""What the denoiser of sounds is told, and the denoiser.

It learns from the embeddings of recordings alone. Sentences, places and satellite images lie in the
same space, so one of these can take a recording's stead; each kind keeps to a part of the space of
its own, and the mean of its kind is taken off first.

Source:
    Liu et al., "AudioLDM" (ICML 2023), §3.2, for learning from sounds and asking with words; Liang
    et al., "Mind the gap" (NeurIPS 2022), §4, for the gap between the kinds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generation.diffusion.flow import velocity_of
from generation.encoders.heads import Embedding, unit
from generation.encoders.metadata import HOUR, MONTH
from generation.encoders.sound_space import AUDIO, IMAGE, TEXT
from generation.errors import ConfigError

KINDS = (AUDIO, TEXT, IMAGE)
"""What may be asked with, in the order of the means."""
_CYCLES = {MONTH: 12.0, HOUR: 24.0}
TIMES = tuple(_CYCLES)
"""What may be told of the time."""


@dataclass(frozen=True, slots=True)
class SoundCondition:
    """What a batch is told."""

    tokens: Float[Tensor, "batch tokens dim"]
    vector: Float[Tensor, "batch features"]


class SoundscapeConditioner(ModelMixin, ConfigMixin):
    """An embedding of the shared space, a month and an hour -> tokens and a vector.

    The buffer ``means`` holds the mean embedding of recordings, of sentences and of images.
    """

    @register_to_config
    def __init__(
        self,
        embed_dim: int = 128,
        token_dim: int = 128,
        vector_dim: int = 256,
        sound_tokens: int = 4,
        reads: Sequence[str] = TIMES,
        space: str = "",
        space_sha256: str = "",
    ) -> None:
        """Build untrained layers.

        Args:
            embed_dim: Of the shared space.
            token_dim: Of the tokens.
            vector_dim: Of the vector.
            sound_tokens: Tokens of an embedding.
            reads: Which of month and hour have a token, in this order; the others are passed over.
            space: Name of the shared space.
            space_sha256: Of its weights.

        Raises:
            ConfigError: ``reads`` names something else.
        """
        super().__init__()
        odd = [name for name in reads if name not in _CYCLES]
        if odd:
            raise ConfigError(f"reads={odd[0]!r} is no time (of {', '.join(TIMES)})")
        self.to_tokens = nn.Sequential(
            nn.Linear(embed_dim, sound_tokens * token_dim),
            nn.Unflatten(-1, (sound_tokens, token_dim)),
            nn.LayerNorm(token_dim),
        )
        self.to_vector = nn.Linear(embed_dim, vector_dim)
        self.null_tokens = nn.Parameter(0.02 * torch.randn(sound_tokens, token_dim))
        self.null_vector = nn.Parameter(torch.zeros(vector_dim))
        self.times = nn.ModuleList(nn.Linear(4, token_dim) for _ in reads)
        self.null_times = nn.Parameter(0.02 * torch.randn(len(reads), token_dim))
        self.means: Tensor
        self.register_buffer("means", torch.zeros(len(KINDS), embed_dim))

    def centred(self, embedding: Embedding, kind: str) -> Float[Tensor, "batch dim"]:
        """Take the mean of its kind off an embedding, as directions.

        Raises:
            ConfigError: There is no such kind.
        """
        if kind not in KINDS:
            raise ConfigError(f"kind={kind!r} is nothing to ask with (give {', '.join(KINDS)})")
        return unit(unit(embedding.vector) - self.means[KINDS.index(kind)])

    def forward(
        self,
        centred: Float[Tensor, "batch dim"],
        keep: Bool[Tensor, " batch"],
        month: Float[Tensor, " batch"],
        hour: Float[Tensor, " batch"],
    ) -> SoundCondition:
        """Tell a batch.

        Args:
            centred: What :meth:`centred` gives.
            keep: Which samples are told it.
            month: 1 to 12, NaN where it is not known.
            hour: 0 to 24, NaN where it is not known.
        """
        scaled = centred * math.sqrt(centred.shape[1])
        tokens = [torch.where(keep[:, None, None], self.to_tokens(scaled), self.null_tokens)]
        told = {MONTH: month, HOUR: hour}
        for name, layer, null in zip(
            self.config["reads"], self.times, self.null_times, strict=True
        ):
            value = told[name]
            known = ~value.isnan()
            angle = 2 * math.pi * value.nan_to_num()[:, None] / _CYCLES[name]
            waves = torch.cat([f(k * angle) for k in (1, 2) for f in (torch.sin, torch.cos)], 1)
            tokens.append(torch.where(known[:, None], layer(waves), null)[:, None])
        vector = torch.where(keep[:, None], self.to_vector(scaled), self.null_vector)
        return SoundCondition(torch.cat(tokens, 1), vector)


class SoundscapeDenoiser(nn.Module):
    """A U-Net over latents of spectrograms: ``velocity = denoiser(x_t, t, condition)``."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        x_t: Float[Tensor, "batch channels rows cols"],
        t: Float[Tensor, " batch"],
        condition: SoundCondition,
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Predict the velocity ``noise - x0``.

        Args:
            x_t: Noisy latents; rows are bands of pitch, columns are time.
            t: Times, 0 to 1000.
            condition: What the batch is told.
        """
        told = self.unet(
            x_t,
            t,
            encoder_hidden_states=condition.tokens,
            class_labels=condition.vector,
            return_dict=False,
        )[0]
        return velocity_of(x_t, t / 1000, told)
