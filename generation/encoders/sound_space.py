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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from generation.encoders.heads import (
    CodebookHead,
    Compat,
    Embedding,
    GaussianHead,
    PooledHead,
)
from generation.encoders.metadata import Metadata, MetadataEncoder
from generation.encoders.sound_towers import new_tower, tower_settings
from generation.errors import ConfigError

Modality = Literal["image", "audio", "text"]
IMAGE: Modality = "image"
AUDIO: Modality = "audio"
TEXT: Modality = "text"
MODALITIES: tuple[Modality, ...] = (IMAGE, AUDIO, TEXT)
Joined = Literal["none", "late", "early"]
JOINT = ("metadata_encoder", "join", "summary")
"""The parts that tell an image its place and time."""


class SoundSpace(ModelMixin, ConfigMixin):
    """Towers, what is known besides, and a head.

    A text tower that is frozen stands outside: sentences come as token states, so that they are
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
            towers: For ``image``, ``audio`` and ``text`` the ``kind`` (:mod:`sound_towers`) and its
                sizes; whether its tokens are ``projected`` to the width or given as they are;
                whether a pooled head has a layer for them (``mapped``) or scales them alone; and
                of ``image`` how its ``pixels`` are read (:mod:`sound_readers`).
            metadata: ``vocabularies``, ``reads`` and ``drop`` of :class:`MetadataEncoder`;
                ``layers``, ``heads`` and ``hidden`` features of the transformer that joins.
            codebook: Number of ``codes``, and ``temperature``.
            compat: ``mvrl`` for what the published code computes.

        Raises:
            ConfigError: There is no such tower, or its tokens do not fit what follows.
        """
        super().__init__()
        self.settings: dict[str, dict[str, Any]] = {
            name: tower_settings(name, (towers or {}).get(name, {})) for name in MODALITIES
        }
        self.image, self.audio, self.text = (
            new_tower(name, self.settings[name]) for name in MODALITIES
        )
        dims: dict[str, int] = {name: getattr(self, name).dim for name in MODALITIES}
        projected: dict[str, bool] = {name: self.settings[name]["projected"] for name in MODALITIES}
        self.project = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))
                if projected[name]
                else nn.Identity()
                for name, size in dims.items()
            }
        )
        if joined != "none":
            self._build_joint(joined, width, metadata or {}, compat)
        widths = {name: width if projected[name] else size for name, size in dims.items()}
        self.head: nn.Module
        if kind == "codebook":
            mixed = {"codes": 512, "temperature": 1.0, **(codebook or {})}
            self.head = CodebookHead(widths, dim, **mixed, compat=compat)
        elif kind == "gaussian":
            self.head = GaussianHead(widths, dim)
        else:
            self.head = self._pooled(widths, dim)

    def _build_joint(
        self, joined: Joined, width: int, metadata: Mapping[str, Any], compat: Compat
    ) -> None:
        usual = {"drop": 0.5, "layers": 3, "heads": 8, "hidden": 4 * width}
        told: dict[str, Any] = {**usual, **metadata}
        own = {name: told[name] for name in ("vocabularies", "reads", "drop") if name in told}
        self.metadata_encoder = MetadataEncoder(width, **own, compat=compat)
        layer = nn.TransformerEncoderLayer(
            width, told["heads"], told["hidden"], activation="gelu", batch_first=True
        )
        self.join = nn.TransformerEncoder(layer, told["layers"], enable_nested_tensor=False)
        if joined == "late":
            self.summary = nn.Parameter(torch.randn(width))

    def _pooled(self, widths: Mapping[str, int], dim: int) -> PooledHead:
        head = PooledHead(widths, dim)
        for name in MODALITIES:
            if self.settings[name]["mapped"]:
                continue
            if widths[name] != dim:
                raise ConfigError(
                    f"towers.{name}.mapped=false leaves {widths[name]} features in a space of "
                    f"{dim} (map them, or make both alike)"
                )
            head.project[name] = nn.Identity()
        return head

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
        if self.config["compat"] == "mvrl":
            besides = besides * there[..., None]
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

    def embed_audio(self, mels: Float[Tensor, "batch ..."]) -> Embedding:
        """Embed sounds, given as spectrograms of the shape that the tower hears."""
        x = self.project[AUDIO](self.audio(mels))
        return self._headed(AUDIO, x, _all(x))

    def embed_text(
        self,
        states: Float[Tensor, "batch words state"] | Int[Tensor, "batch words"],
        words: Bool[Tensor, "batch words"],
    ) -> Embedding:
        """Embed sentences.

        Args:
            states: Of their tokens; for a text tower inside, the numbers of the tokens.
            words: Which of them are words, and no filling.
        """
        x, there = self.text(states, words)
        return self._headed(TEXT, self.project[TEXT](x), there)

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
