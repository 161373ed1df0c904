"""The U-Net that panoramas and sounds share."""

from typing import Any

from diffusers import UNet2DConditionModel


def build_unet(
    *, latent_channels: int, latent_size: tuple[int, int], sizes: dict[str, Any]
) -> UNet2DConditionModel:
    """Make an embedded model's U-Net."""
    depth = len(sizes["block_out_channels"])
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=sizes["block_out_channels"],
        attention_head_dim=sizes["attention_head_dim"],
        layers_per_block=sizes["layers_per_block"],
        cross_attention_dim=sizes["cross_attention_dim"],
        norm_num_groups=sizes["norm_num_groups"],
        class_embed_type="projection",
        projection_class_embeddings_input_dim=sizes["vector_dim"],
        use_linear_projection=True,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (depth - 1)),
        up_block_types=(*["CrossAttnUpBlock2D"] * (depth - 1), "UpBlock2D"),
    )
