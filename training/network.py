"""The sizes of a U-Net, as the recipes of every denoiser configure them."""

from typing import Any

from generation.config import config


@config
class UNetConfig:
    """Sizes of a denoiser's U-Net and of what it is told."""

    block_out_channels: tuple[int, ...] = (64, 96, 160)
    attention_head_dim: tuple[int, ...] = (1, 2, 2)
    layers_per_block: int = 1
    norm_num_groups: int = 16
    token_dim: int = 128
    vector_dim: int = 256

    def sizes(self) -> dict[str, Any]:
        """Name them as the builders of networks do."""
        return {
            "block_out_channels": self.block_out_channels,
            "attention_head_dim": self.attention_head_dim,
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "cross_attention_dim": self.token_dim,
            "vector_dim": self.vector_dim,
        }
