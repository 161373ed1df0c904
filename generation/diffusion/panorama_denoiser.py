"""The denoiser of panoramas: a U-Net that wraps in azimuth, and its control branch."""

from collections.abc import Sequence

from diffusers import ConfigMixin, ControlNetModel, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.diffusion.azimuth import conv3, wrap_azimuth
from generation.diffusion.flow import velocity_of
from generation.diffusion.surroundings import Guide


class FeatureDenormalization(nn.Module):
    """Normalise features, then scale and shift each cell as a map says.

    Source:
        Park et al., "Semantic image synthesis with spatially-adaptive normalization" (2019),
        Eq. 1, as Zhao et al., "Uni-ControlNet" (2023), §3.2, and Xiong et al. (2025) use it.
    """

    def __init__(self, channels: int, guide_dim: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, affine=False)
        self.to_scale_shift = conv3(guide_dim, 2 * channels)

    def forward(
        self,
        features: Float[Tensor, "batch channels rows cols"],
        guide: Float[Tensor, "batch guide rows cols"],
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Modulate a batch."""
        scale, shift = self.to_scale_shift(F.silu(guide)).chunk(2, dim=1)
        return self.norm(features) * (1 + scale) + shift


class ViewControlNet(ModelMixin, ConfigMixin):
    """A copy of the U-Net's encoder, modulated at every resolution by what was found around.

    It may be narrower than the U-Net: ``residual_channels`` are the U-Net's block widths, to which
    the last layers lead.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913 - the sizes of a network, as its configuration lists them
        self,
        in_channels: int = 16,
        block_out_channels: Sequence[int] = (32, 48, 80),
        residual_channels: Sequence[int] = (64, 96, 160),
        attention_head_dim: Sequence[int] = (1, 1, 1),
        layers_per_block: int = 1,
        cross_attention_dim: int = 128,
        norm_num_groups: int = 16,
        vector_dim: int | None = 256,
        level_dims: Sequence[int] = (64, 64, 64),
        down_block_types: Sequence[str] = (
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
        ),
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = ControlNetModel(
            in_channels=in_channels,
            down_block_types=down_block_types,
            block_out_channels=block_out_channels,
            attention_head_dim=attention_head_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            norm_num_groups=norm_num_groups,
            class_embed_type=None if vector_dim is None else "projection",
            projection_class_embeddings_input_dim=vector_dim,
            use_linear_projection=True,
        )
        self.encoder.controlnet_cond_embedding = nn.Identity()  # the maps come in another way
        inner = _residual_widths(block_out_channels, layers_per_block)
        outer = _residual_widths(residual_channels, layers_per_block)
        self.encoder.controlnet_down_blocks = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(inner, outer, strict=True)
        )
        self.encoder.controlnet_mid_block = nn.Conv2d(
            block_out_channels[-1], residual_channels[-1], 1
        )
        widths = [block_out_channels[0], *block_out_channels[:-1]]
        self.guided = nn.ModuleList(
            FeatureDenormalization(width, dim, norm_num_groups)
            for width, dim in zip(widths, level_dims, strict=True)
        )
        if zero_start:  # protects a trained U-Net; one that learns along would only hear less
            for layer in (
                *self.encoder.controlnet_down_blocks,
                self.encoder.controlnet_mid_block,
            ):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        wrap_azimuth(self)

    def forward(
        self,
        x_t: Float[Tensor, "batch channels rows cols"],
        t: Float[Tensor, " batch"],
        guide: Guide,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return what is added to the U-Net's skip connections and to its middle."""
        net = self.encoder
        emb = net.time_embedding(net.time_proj(t).to(x_t.dtype))
        if net.class_embedding is not None:
            emb = emb + net.class_embedding(guide.vector)
        away = (1 - guide.mask.to(x_t.dtype))[:, None] * -1e4
        words = {"encoder_hidden_states": guide.tokens, "encoder_attention_mask": away}
        x = self.guided[0](net.conv_in(x_t), guide.levels[0])
        skips: list[Tensor] = [x]
        for number, block in enumerate(net.down_blocks, start=1):
            attends = getattr(block, "has_cross_attention", False)
            x, outputs = block(x, emb, **(words if attends else {}))
            if number < len(net.down_blocks):
                x = self.guided[number](x, guide.levels[number])
                outputs = (*outputs[:-1], x)
            skips.extend(outputs)
        x = net.mid_block(x, emb, **words)
        down = tuple(
            layer(skip) for layer, skip in zip(net.controlnet_down_blocks, skips, strict=True)
        )
        return down, net.controlnet_mid_block(x)


class MixedViewDenoiser(nn.Module):
    """A U-Net that is told its surroundings: ``velocity = denoiser(x_t, t, guide)``."""

    def __init__(self, unet: UNet2DConditionModel, control: ViewControlNet) -> None:
        super().__init__()
        self.unet = wrap_azimuth(unet)
        self.control = control

    def forward(
        self,
        x_t: Float[Tensor, "batch channels rows cols"],
        t: Float[Tensor, " batch"],
        guide: Guide,
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Predict what the U-Net was trained to predict.

        Args:
            x_t: Noisy latents.
            t: Times, 0 to 1000.
            guide: What was found around the places of the batch.
        """
        down, mid = self.control(x_t, t, guide)
        return self.unet(
            x_t,
            t,
            encoder_hidden_states=guide.tokens,
            encoder_attention_mask=guide.mask,
            class_labels=guide.vector if self.unet.class_embedding is not None else None,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]


class FlowDenoiser(MixedViewDenoiser):
    """Predict the velocity of a flow, by way of what the input does not tell.

    See :func:`generation.diffusion.flow.velocity_of`.
    """

    def forward(
        self,
        x_t: Float[Tensor, "batch channels rows cols"],
        t: Float[Tensor, " batch"],
        guide: Guide,
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Predict the velocity; see :class:`MixedViewDenoiser`."""
        return velocity_of(x_t, t / 1000, super().forward(x_t, t, guide))


def _residual_widths(blocks: Sequence[int], layers: int) -> list[int]:
    """List the widths of an encoder's skip connections, first to last."""
    widths = [blocks[0]]
    for number, block in enumerate(blocks):
        widths += [block] * (layers + (number + 1 < len(blocks)))
    return widths
