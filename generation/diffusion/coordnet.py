"""CoordNet: a place steers a frozen Stable Diffusion beside its ControlNet, as in GeoSynth.

A chain of blocks carries one location token along; each block also gives a vector that is added,
the same at every pixel, to one skip connection of the U-Net, and the last one to its middle.

As published, each attention has one query and one key, so its softmax is 1 whatever they hold:
the weights of query and key change nothing and get no gradient, the attention's output depends on
the time alone, and the location enters by the residual path only. They are kept for the sake of
the published weights. More location tokens would not help, since the time stays a single key.

Source:
    Sastry et al., "GeoSynth" (2024), arXiv 2404.06637, §3; the layers and their names are those of
    its published checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from diffusers import ConfigMixin, ControlNetModel, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

SD_CHANNELS: tuple[int, ...] = (320,) * 4 + (640,) * 3 + (1280,) * 6
"""Widths of the skip connections of Stable Diffusion's U-Net, then of its middle."""


class CoordNetBlock(nn.Module):
    """One link of the chain."""

    def __init__(self, width: int, embed_dim: int, time_embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.query_embed = nn.Linear(embed_dim, embed_dim, bias=False)
        self.key_embed = nn.Linear(time_embed_dim, embed_dim, bias=False)
        self.value_embed = nn.Linear(time_embed_dim, embed_dim, bias=False)
        self.cross_attn = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.ff = nn.Linear(embed_dim, embed_dim, bias=False)
        self.ff_zero = nn.Linear(embed_dim, width, bias=False)
        nn.init.zeros_(self.ff_zero.weight)  # an untrained CoordNet changes nothing

    def forward(
        self, token: Float[Tensor, "batch 1 embed"], time: Float[Tensor, "batch 1 time"]
    ) -> tuple[Float[Tensor, "batch 1 embed"], Float[Tensor, "batch width"]]:
        """Return the token for the next block, and this block's vector."""
        attended, _ = self.cross_attn(
            self.query_embed(token),
            self.key_embed(time),
            self.value_embed(time),
            need_weights=False,
        )
        token = self.norm1(attended) + token
        token = self.norm2(self.ff(token)) + token
        return token, self.ff_zero(token)[:, 0]


class CoordNet(ModelMixin, ConfigMixin):
    """A location and a time to one vector for each skip connection and the middle."""

    @register_to_config
    def __init__(
        self,
        channels: Sequence[int] = SD_CHANNELS,
        embed_dim: int = 256,
        time_embed_dim: int = 1280,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        *skips, middle = (
            CoordNetBlock(width, embed_dim, time_embed_dim, num_heads) for width in channels
        )
        self.loc_blocks = nn.ModuleList(skips)
        self.loc_middle_block = middle

    @classmethod
    def for_unet(cls, unet: UNet2DConditionModel, embed_dim: int = 256) -> "CoordNet":
        """Make an untrained one that fits a U-Net."""
        return cls(
            channels=residual_widths(unet),
            embed_dim=embed_dim,
            time_embed_dim=unet.time_embedding.linear_2.out_features,
        )

    def forward(
        self, embedding: Float[Tensor, "batch embed"], time: Float[Tensor, "batch time"]
    ) -> list[Float[Tensor, "batch _"]]:
        """Return the vectors, the middle's last.

        Args:
            embedding: Of the location; SatCLIP's for the published weights.
            time: The time embedding of the ControlNet, or of the U-Net where there is none.
        """
        token, vectors = embedding[:, None], []
        for block in (*self.loc_blocks, self.loc_middle_block):
            token, vector = block(token, time[:, None])
            vectors.append(vector)
        return vectors


class LearnedNulls(ModelMixin, ConfigMixin):
    """What a network that was trained with dropped inputs sees instead of them.

    The published models have none: they never saw an input missing.
    """

    @register_to_config
    def __init__(self, layout: bool = True, embed_dim: int = 0) -> None:
        super().__init__()
        if layout:
            self.hint = nn.Parameter(torch.full((3,), 0.5))
        if embed_dim:
            self.location = nn.Parameter(torch.zeros(embed_dim))


@dataclass(frozen=True, slots=True)
class Steering:
    """What the denoiser is told, for a batch."""

    states: Float[Tensor, "batch words dim"]
    """Token states of the prompt, or of the empty one."""
    hint: Float[Tensor, "batch 3 height width"] | None = None
    """The drawn layout, [0, 1]; None: no sample has one."""
    has_layout: Bool[Tensor, " batch"] | None = None
    """Which samples have it; None: all."""
    embedding: Float[Tensor, "batch embed"] | None = None
    """Of the location; None: no sample has one."""
    has_location: Bool[Tensor, " batch"] | None = None


def stacked(parts: Sequence[Steering]) -> Steering:
    """Put batches together that lack the same inputs, if any."""

    def together(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    return Steering(
        states=torch.cat([part.states for part in parts]),
        **{field.name: together(field.name) for field in fields(Steering)[1:]},
    )


@dataclass(frozen=True, slots=True)
class Networks:
    """A U-Net and what steers it."""

    unet: UNet2DConditionModel
    controlnet: ControlNetModel | None = None
    coordnet: CoordNet | None = None
    nulls: LearnedNulls | None = None


def predict_noise(
    networks: Networks,
    x_t: Float[Tensor, "batch channels rows cols"],
    t: Tensor,
    steering: Steering,
) -> Float[Tensor, "batch channels rows cols"]:
    """Predict the noise in latents.

    A missing layout or location adds nothing to the U-Net, or enters as its learned null where
    the networks have one.

    Args:
        networks: What predicts.
        x_t: Noisy latents.
        t: Time steps of the schedule, one a sample.
        steering: What the image should obey.
    """
    if networks.nulls is not None:
        steering = _with_nulls(networks.nulls, steering)
    residuals = _control(networks, x_t, t, steering)
    if networks.coordnet is not None and steering.embedding is not None:
        time = _time_embedding(networks.controlnet or networks.unet, t, x_t.dtype)
        vectors = networks.coordnet(steering.embedding, time)
        placed = [_kept(v[..., None, None], steering.has_location) for v in vectors]  # every pixel
        if residuals is None:
            residuals = placed
        else:
            residuals = [r + v for r, v in zip(residuals, placed, strict=True)]
    return networks.unet(
        x_t,
        t,
        encoder_hidden_states=steering.states,
        down_block_additional_residuals=None if residuals is None else tuple(residuals[:-1]),
        mid_block_additional_residual=None if residuals is None else residuals[-1],
        return_dict=False,
    )[0]


def residual_widths(unet: UNet2DConditionModel) -> list[int]:
    """Channels of each skip connection of a U-Net, then of its middle."""
    blocks, layers = unet.config["block_out_channels"], unet.config["layers_per_block"]
    widths = [blocks[0]]
    for level, width in enumerate(blocks):
        widths += [width] * (layers + (level < len(blocks) - 1))
    return [*widths, blocks[-1]]


def _control(networks: Networks, x_t: Tensor, t: Tensor, steering: Steering) -> list[Tensor] | None:
    if networks.controlnet is None or steering.hint is None:
        return None
    down, middle = networks.controlnet(
        x_t,
        t,
        encoder_hidden_states=steering.states,
        controlnet_cond=steering.hint,
        return_dict=False,
    )
    return [_kept(residual, steering.has_layout) for residual in (*down, middle)]


def _with_nulls(nulls: LearnedNulls, steering: Steering) -> Steering:
    """Put the learned nulls where inputs are missing, so that no input is missing any more."""
    hint, embedding = steering.hint, steering.embedding
    if hint is not None and steering.has_layout is not None and nulls.config["layout"]:
        blank = nulls.hint.to(hint.dtype)[:, None, None]
        hint = torch.where(steering.has_layout[:, None, None, None], hint, blank)
        steering = replace(steering, hint=hint, has_layout=None)
    if embedding is not None and steering.has_location is not None and nulls.config["embed_dim"]:
        nowhere = nulls.location.to(embedding.dtype)
        embedding = torch.where(steering.has_location[:, None], embedding, nowhere)
        steering = replace(steering, embedding=embedding, has_location=None)
    return steering


def _kept(values: Tensor, keep: Tensor | None) -> Tensor:
    return values if keep is None else values * keep[:, None, None, None].to(values.dtype)


def _time_embedding(
    model: ControlNetModel | UNet2DConditionModel, t: Tensor, dtype: torch.dtype
) -> Tensor:
    return model.time_embedding(model.time_proj(t).to(dtype))
