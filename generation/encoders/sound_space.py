"""One space for places, sounds and words: GeoCLAP, PSM and Sat2Sound as settings of one design.

Towers turn an image, a sound or a sentence into tokens; what is known of place and time may join
the image's tokens, early or late; a head turns tokens into what is compared.

    GeoCLAP      no metadata,   head "pooled"
    PSM          joined late,   head "gaussian"
    Sat2Sound    joined early,  head "codebook"

GeoBind is none of these but a way to train: a new modality is bound to a hub that does not move.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generation.encoders.heads import (
    CodebookHead,
    Compat,
    Embedding,
    GaussianHead,
    PooledHead,
)
from generation.encoders.image import ScaleVit
from generation.encoders.metadata import Metadata, MetadataEncoder
from generation.encoders.text import STATE_DIM
from generation.errors import ConfigError

Modality = Literal["image", "audio", "text"]
IMAGE: Modality = "image"
AUDIO: Modality = "audio"
TEXT: Modality = "text"
MODALITIES: tuple[Modality, ...] = (IMAGE, AUDIO, TEXT)
Joined = Literal["none", "late", "early"]
_SIZES: dict[str, dict[str, Any]] = {
    IMAGE: {"image_px": 64, "patch": 8, "dim": 128, "depth": 4, "heads": 4},
    AUDIO: {"dim": 128, "depth": 4, "heads": 4, "bands": 64, "frames": 512},
    TEXT: {"dim": STATE_DIM},
}
"""Of the embedded model."""


class AudioTower(nn.Module):
    """Log-mel spectrograms to tokens: transformers' Audio Spectrogram Transformer.

    Source:
        Gong et al., "AST: audio spectrogram transformer" (2021).
    """

    def __init__(self, dim: int, depth: int, heads: int, bands: int, frames: int) -> None:
        super().__init__()
        from transformers import ASTConfig, ASTModel

        self.net = ASTModel(
            ASTConfig(
                hidden_size=dim,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                intermediate_size=4 * dim,
                patch_size=16,
                frequency_stride=16,
                time_stride=16,
                num_mel_bins=bands,
                max_length=frames,
            )
        )
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("deviation", torch.tensor(1.0))

    def forward(
        self, mels: Float[Tensor, "batch bands frames"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Give the tokens of spectrograms as :func:`generation.media.audio.log_mel` makes them."""
        normal = (mels - self.mean) / self.deviation
        states: Tensor = self.net(normal.transpose(1, 2)).last_hidden_state
        return states


class SoundSpace(ModelMixin, ConfigMixin):
    """Towers, what is known besides, and a head.

    The text tower is frozen and stands outside: sentences come as token states, so that they are
    computed once.
    """

    @register_to_config
    def __init__(
        self,
        kind: Literal["pooled", "gaussian", "codebook"] = "pooled",
        joined: Joined = "none",
        dim: int = 256,
        width: int = 192,
        towers: Mapping[str, Mapping[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        codebook: Mapping[str, Any] | None = None,
        compat: Compat = "right",
    ) -> None:
        """Build untrained towers and a head.

        Args:
            kind: Of the head.
            joined: How metadata join an image: not, as tokens beside its mean, or beside its
                patches.
            dim: Of the shared space.
            width: Of the tokens that the head is given.
            towers: Sizes: ``image`` as of :class:`ScaleVit`, ``audio`` as of :class:`AudioTower`,
                ``text`` the ``dim`` of token states.
            metadata: ``vocabularies`` and ``drop`` of :class:`MetadataEncoder`; ``layers`` and
                ``heads`` of the transformer that joins.
            codebook: Number of ``codes``, and ``temperature``.
            compat: ``mvrl`` for what the published code computes.
        """
        super().__init__()
        sizes = {name: {**_SIZES[name], **(towers or {}).get(name, {})} for name in MODALITIES}
        self.image, self.audio = ScaleVit(**sizes[IMAGE]), AudioTower(**sizes[AUDIO])
        self.project = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(size["dim"], width), nn.GELU(), nn.Linear(width, width)
                )
                for name, size in sizes.items()
            }
        )
        if joined != "none":
            told = {"vocabularies": None, "drop": 0.5, "layers": 3, "heads": 8, **(metadata or {})}
            self.metadata_encoder = MetadataEncoder(
                width, told["vocabularies"], drop=told["drop"], compat=compat
            )
            layer = nn.TransformerEncoderLayer(
                width, told["heads"], 4 * width, activation="gelu", batch_first=True
            )
            self.join = nn.TransformerEncoder(layer, told["layers"], enable_nested_tensor=False)
        if joined == "late":
            self.summary = nn.Parameter(torch.randn(width))
        widths: dict[str, int] = dict.fromkeys(MODALITIES, width)
        self.head: nn.Module
        if kind == "codebook":
            mixed = {"codes": 512, "temperature": 1.0, **(codebook or {})}
            self.head = CodebookHead(widths, dim, **mixed, compat=compat)
        else:
            self.head = (PooledHead if kind == "pooled" else GaussianHead)(widths, dim)

    def embed_image(
        self,
        images: Float[Tensor, "batch 3 height width"],
        gsd_m: Float[Tensor, " batch"],
        known: Metadata | None = None,
    ) -> Embedding:
        """Embed satellite images, with what is known of their place and time.

        Args:
            images: In [-1, 1].
            gsd_m: Metres of a pixel.
            known: Metadata; what is not known may stay so. ``None`` knows nothing.

        Raises:
            ConfigError: The space was built without metadata, and some is given.
        """
        return self.head_image(self.image(images, gsd_m), known)

    def head_image(
        self, tokens: Float[Tensor, "batch patches _dim"], known: Metadata | None = None
    ) -> Embedding:
        """Embed images whose tower has been run: another hour costs no other look."""
        if self.config["joined"] == "none":
            if known is not None:
                raise ConfigError("this space knows no metadata (leave month, hour and place out)")
            return self._headed(IMAGE, self.project[IMAGE](tokens), _all(tokens))
        names = tuple(self.metadata_encoder.vocabularies)
        nothing = Metadata.unknown(len(tokens), names).to(tokens.device)
        besides, there = self.metadata_encoder(known or nothing)
        if self.config["joined"] == "early":
            x = torch.cat([self.project[IMAGE](tokens), besides], 1)
            mask = torch.cat([_all(tokens), there], 1)
            # As published, the head also sees what comes out where nothing was known.
            seen = _all(x) if self.config["compat"] == "mvrl" else mask
            return self._headed(IMAGE, self._join(x, mask), seen)
        first = self.summary.expand(len(tokens), 1, -1)
        x = torch.cat([first, self.project[IMAGE](tokens.mean(1, keepdim=True)), besides], 1)
        mask = torch.cat([_all(x[:, :2]), there], 1)
        return self._headed(IMAGE, self._join(x, mask)[:, :1], mask[:, :1])

    def embed_audio(self, mels: Float[Tensor, "batch bands frames"]) -> Embedding:
        """Embed sounds, given as log-mel spectrograms."""
        x = self.project[AUDIO](self.audio(mels))
        return self._headed(AUDIO, x, _all(x))

    def embed_text(
        self,
        states: Float[Tensor, "batch words state"],
        words: Bool[Tensor, "batch words"],
    ) -> Embedding:
        """Embed sentences, given as token states and which of them are words."""
        return self._headed(TEXT, self.project[TEXT](states), words)

    def _join(
        self, x: Float[Tensor, "batch n width"], mask: Bool[Tensor, "batch n"]
    ) -> Float[Tensor, "batch n width"]:
        joined: Tensor = self.join(x, src_key_padding_mask=~mask)
        return joined

    def _headed(self, modality: str, tokens: Tensor, mask: Tensor) -> Embedding:
        embedding: Embedding = self.head(modality, tokens, mask)
        return embedding


def _all(tokens: Float[Tensor, "batch n _dim"]) -> Bool[Tensor, "batch n"]:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
