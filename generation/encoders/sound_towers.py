"""The towers of a shared space: spectrograms and sentences to tokens, by the name of their kind.

    image   scale-vit   positions in metres (PSM, Sat2Sound, the embedded models)
            satmae      positions that were learnt, a class token and classes (GeoCLAP)
    audio   ast         of the embedded models
            clap        LAION's CLAP, one token (GeoCLAP, PSM)
            htsat       MGA-CLAP's HTS-AT, a token for each moment (Sat2Sound)
    text    minilm, t5  token states that are computed outside, once
            clap        LAION's CLAP, one token (GeoCLAP, PSM)

Every tower says in ``dim`` how wide its tokens are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from generation.encoders.image import SatMae, ScaleVit
from generation.encoders.text import MAX_TOKENS, STATE_DIM
from generation.errors import ConfigError

TEN_SECONDS = 1001
"""Columns of a spectrogram of ten seconds, a hundred a second: what CLAP and MGA-CLAP hear."""


class AudioTower(nn.Module):
    """Log-mel spectrograms to tokens: transformers' Audio Spectrogram Transformer.

    Source:
        Gong et al., "AST: audio spectrogram transformer" (2021).
    """

    def __init__(self, dim: int, depth: int, heads: int, bands: int, frames: int) -> None:
        super().__init__()
        from transformers import ASTConfig, ASTModel

        self.frames, self.dim = frames, dim
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


class ClapAudioTower(nn.Module):
    """Fused spectrograms to one token: the sound tower of CLAP with its projection.

    A recording of more than ten seconds is heard as a whole and in three parts; a shorter one as
    the same spectrogram four times. As GeoCLAP and PSM were trained, the parts always count.

    Source:
        Wu et al., "Large-scale contrastive language-audio pretraining" (CLAP, 2023), its feature
        fusion.
    """

    def __init__(self, net: Mapping[str, Any] | None = None) -> None:
        """Build an untrained tower.

        Args:
            net: What differs from ``laion/clap-htsat-fused`` in transformers' ``ClapAudioConfig``.
        """
        super().__init__()
        from transformers import ClapAudioConfig, ClapAudioModelWithProjection

        sizes = ClapAudioConfig(**{"enable_fusion": True, **(net or {})})
        self.net = ClapAudioModelWithProjection(sizes)
        self.dim: int = sizes.projection_dim
        self.bands: int = sizes.num_mel_bins
        self.frames = _frames(sizes)

    def forward(
        self, mels: Float[Tensor, "batch 4 frames bands"]
    ) -> Float[Tensor, "batch one dim"]:
        """Give a token for each sound.

        Args:
            mels: In decibels: the whole, shrunk to ten seconds, and three parts of it.
        """
        counted = torch.ones(len(mels), 1, dtype=torch.bool, device=mels.device)
        embeds: Tensor = self.net(mels, counted).audio_embeds
        return embeds[:, None]


class HtsatTower(nn.Module):
    """Spectrograms to a token for each moment: HTS-AT as MGA-CLAP changed it.

    The last block does not attend: each place of its map keeps what its own value says, and no
    feed-forward layer follows but the norm before it. What is left of the frequencies is averaged.

    Source:
        Chen et al., "HTS-AT" (ICASSP 2022); Li et al., "Advancing multi-grained alignment for
        contrastive language-audio pre-training" (MGA-CLAP, 2024), its locality-aware block.
    """

    def __init__(self, net: Mapping[str, Any] | None = None) -> None:
        """Build an untrained tower.

        Args:
            net: What differs from MGA-CLAP's in transformers' ``ClapAudioConfig``.
        """
        super().__init__()
        from transformers import ClapAudioConfig, ClapAudioModel

        sizes = ClapAudioConfig(**(net or {}))
        self.net = ClapAudioModel(sizes)
        self.dim: int = self.net.audio_encoder.num_features
        self.bands: int = sizes.num_mel_bins
        self.frames = _frames(sizes)

    def forward(
        self, mels: Float[Tensor, "batch bands frames"]
    ) -> Float[Tensor, "batch moments dim"]:
        """Give the tokens of spectrograms in decibels, in the order of time."""
        encoder: Any = self.net.audio_encoder
        normal = encoder.batch_norm(mels[..., None])
        image = encoder.reshape_mel2img(normal.permute(0, 3, 2, 1))
        x = encoder.patch_embed(image)
        for stage, size in zip(encoder.layers, encoder.input_resolutions, strict=True):
            if stage.downsample is not None:
                x = stage(x, size)[0]
                continue
            for block in stage.blocks[:-1]:
                x = block(x, size)[0]
            x = _local(stage.blocks[-1], x)
        side = encoder.input_resolutions[-1][1]
        # rows: stretches of time, each with its frequencies; columns: moments of a stretch
        grid = encoder.norm(x).unflatten(1, (encoder.freq_ratio, -1, side))
        return grid.mean(2).flatten(1, 2)


def _local(block: Any, x: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n dim"]:  # noqa: ANN401
    own = block.attention.self.value(block.layernorm_before(x))
    x = x + block.attention.output(own, x)
    return x + block.layernorm_after(x)


def _frames(sizes: Any) -> int:  # noqa: ANN401 - a configuration of transformers
    """Count the columns that a tower hears: ten seconds, or what its map has room for."""
    return min(TEN_SECONDS, sizes.spec_size * (sizes.spec_size // sizes.num_mel_bins))


class GivenStates(nn.Module):
    """Stands where a text tower outside has computed the token states."""

    def __init__(self, dim: int, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__()
        self.dim, self.max_tokens = dim, max_tokens

    def forward(
        self, states: Float[Tensor, "batch words dim"], words: Bool[Tensor, "batch words"]
    ) -> tuple[Float[Tensor, "batch words dim"], Bool[Tensor, "batch words"]]:
        """Give back the states and which of them are words."""
        return states, words


class ClapTextTower(nn.Module):
    """Token numbers to one token: the text tower of CLAP with its projection.

    Source:
        Wu et al., "Large-scale contrastive language-audio pretraining" (CLAP, 2023).
    """

    def __init__(self, net: Mapping[str, Any] | None = None, max_tokens: int = 77) -> None:
        """Build an untrained tower.

        Args:
            net: What differs from ``laion/clap-htsat-fused`` in transformers' ``ClapTextConfig``.
            max_tokens: Beyond these, a sentence is not read.
        """
        super().__init__()
        from transformers import ClapTextConfig, ClapTextModelWithProjection

        sizes = ClapTextConfig(**(net or {}))
        self.net = ClapTextModelWithProjection(sizes)
        self.dim: int = sizes.projection_dim
        self.max_tokens = max_tokens

    def forward(
        self, numbers: Int[Tensor, "batch words"], words: Bool[Tensor, "batch words"]
    ) -> tuple[Float[Tensor, "batch one dim"], Bool[Tensor, "batch one"]]:
        """Give a token for each sentence, which is always there."""
        embeds: Tensor = self.net(numbers, attention_mask=words.long()).text_embeds
        return embeds[:, None], torch.ones_like(words[:, :1])


_KINDS: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "image": {"scale-vit": ScaleVit, "satmae": SatMae},
    "audio": {"ast": AudioTower, "clap": ClapAudioTower, "htsat": HtsatTower},
    "text": {"minilm": GivenStates, "t5": GivenStates, "clap": ClapTextTower},
}
_EMBEDDED: dict[str, dict[str, Any]] = {
    "image": {"image_px": 64, "patch": 8, "dim": 128, "depth": 4, "heads": 4},
    "audio": {"dim": 128, "depth": 4, "heads": 4, "bands": 64, "frames": 512},
    "text": {"dim": STATE_DIM},
}
"""Sizes of the embedded models, whose kinds are the first of each modality."""
_OF_THE_SPACE = {"kind": "", "projected": True, "mapped": True, "pixels": {}}
"""What a tower's settings say besides its sizes."""


def tower_settings(modality: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what is not told of a tower.

    Raises:
        ConfigError: There is no such kind.
    """
    kinds = _KINDS[modality]
    first = next(iter(kinds))
    kind = given.get("kind", first)
    if kind not in kinds:
        raise ConfigError(
            f"towers.{modality}.kind={kind!r} is no tower (one of {', '.join(kinds)}; see the "
            "config.json that came with the weights)"
        )
    sizes = _EMBEDDED[modality] if kind == first else {}
    return {**_OF_THE_SPACE, **sizes, **given, "kind": kind}


def new_tower(modality: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build an untrained tower from what :func:`tower_settings` gives."""
    sizes = {name: value for name, value in settings.items() if name not in _OF_THE_SPACE}
    return _KINDS[modality][settings["kind"]](**sizes)
