"""The denoiser: a U-Net of diffusers, and its control branch for the layout."""

from typing import Any

from diffusers import ControlNetModel, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from generation.conditioning import Condition

NANO: dict[str, Any] = {
    "block_out_channels": (64, 128, 256),
    "attention_head_dim": (1, 2, 4),
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "norm_num_groups": 16,
    "vector_dim": 256,
}
"""Sizes of the embedded model; with 32 latent channels about 4 GFLOP an evaluation."""


def build_networks(
    *, latent_channels: int, latent_size: int, patch: int, sizes: dict[str, Any] = NANO
) -> tuple[UNet2DConditionModel, ControlNetModel]:
    """Make a U-Net and a control branch of the same shape.

    Args:
        latent_channels: Channels of the codec's latents.
        latent_size: Rows and columns of latents it is trained on.
        patch: The codec's patch; a hint has the layout colours of one patch in each cell.
        sizes: See :data:`NANO`.
    """
    depth = len(sizes["block_out_channels"])
    shared = {
        "in_channels": latent_channels,
        "block_out_channels": sizes["block_out_channels"],
        "attention_head_dim": sizes["attention_head_dim"],
        "layers_per_block": sizes["layers_per_block"],
        "cross_attention_dim": sizes["cross_attention_dim"],
        "norm_num_groups": sizes["norm_num_groups"],
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": sizes["vector_dim"],
        "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * (depth - 1)),
    }
    unet = UNet2DConditionModel(
        sample_size=latent_size,
        out_channels=latent_channels,
        up_block_types=(*["CrossAttnUpBlock2D"] * (depth - 1), "UpBlock2D"),
        **shared,
    )
    controlnet = ControlNetModel(
        conditioning_channels=3 * patch * patch,
        conditioning_embedding_out_channels=(64,),
        **shared,
    )
    # Zero convolutions protect a trained U-Net; in one that learns together with its control
    # branch they only keep the layout from being heard.
    for layer in (
        *controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
        controlnet.controlnet_cond_embedding.conv_out,
    ):
        layer.reset_parameters()
    return unet, controlnet


class ControlledDenoiser(nn.Module):
    """A U-Net that is told a condition, its layout through the control branch.

    Every caller sees ``velocity = denoiser(x_t, t, condition)``.
    """

    def __init__(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(
        self,
        x_t: Float[Tensor, "batch channels rows cols"],
        t: Float[Tensor, " batch"],
        condition: Condition,
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Predict the velocity noise - x0.

        Args:
            x_t: Latents at time t, ``(1 - s) x0 + s noise`` with ``s = t / 1000``.
            t: Times in [0, 1000].
            condition: Everything the image should obey.
        """
        context = {
            "encoder_hidden_states": condition.tokens,
            "class_labels": condition.vector,
        }
        down, mid = self.controlnet(
            x_t,
            t,
            controlnet_cond=condition.hint,
            return_dict=False,
            **context,
        )
        return self.unet(
            x_t,
            t,
            encoder_attention_mask=condition.mask,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
            **context,
        )[0]
