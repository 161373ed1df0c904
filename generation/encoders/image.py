"""Satellite images as patch tokens that know how large a patch is on the ground."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.errors import InvalidSpecError

_BASE = 10_000.0


def scale_positions(
    side: int, dim: int, scale: Float[Tensor, " batch"]
) -> Float[Tensor, "batch patches dim"]:
    """Encode the places of a square of patches, stretched by the size of a pixel on the ground.

    The column is encoded in the first half of the features and the row in the second, each as the
    sines of all frequencies and then their cosines.

    Args:
        side: Patches in a row.
        dim: Features, a multiple of four.
        scale: Ground sample distance over that of reference, for each image.

    Source:
        Reed et al., "Scale-MAE" (ICCV 2023), its ground sample distance positional encoding.
    """
    if dim % 4:
        raise InvalidSpecError(f"{dim} features hold no positions (give a multiple of 4)")
    quarter = dim // 4
    steps = torch.arange(quarter, device=scale.device, dtype=scale.dtype)
    omega = _BASE ** (-steps / quarter)
    line = torch.arange(side, device=scale.device, dtype=scale.dtype)
    angle = scale[:, None, None] * line[:, None] * omega
    axis = torch.cat([angle.sin(), angle.cos()], -1)
    count, half = len(scale), 2 * quarter
    column = axis[:, None].expand(count, side, side, half)
    row = axis[:, :, None].expand(count, side, side, half)
    return torch.cat([column, row], -1).reshape(count, side * side, dim)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n dim"]:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts.unbind(0))
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n dim"]:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), _Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), _Mlp(dim, 4 * dim)

    def forward(self, x: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n dim"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch n dim"]:
        return self.proj(x).flatten(2).transpose(1, 2)


class ScaleVit(ModelMixin, ConfigMixin):
    """A vision transformer without a class token, whose positions are metres.

    Its parameters have the names that timm's ViT gives them, as in the weights of SatMAE and of
    Scale-MAE, but without the learned positions.

    Source:
        Dosovitskiy et al., "An image is worth 16x16 words" (2021), Eqs. 1-4; positions: Scale-MAE.
    """

    @register_to_config
    def __init__(
        self,
        image_px: int = 224,
        patch: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        reference_gsd_m: float = 1.0,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        if image_px % patch:
            raise InvalidSpecError(
                f"image_px={image_px} is cut into no patches of {patch} (give a multiple)"
            )
        self.patch_embed = _PatchEmbed(patch, dim)
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6) if final_norm else nn.Identity()
        self.side, self.dim, self.reference_gsd_m = image_px // patch, dim, reference_gsd_m

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], gsd_m: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch patches dim"]:
        """Give a token for each patch, row by row.

        Args:
            images: Normalised as the weights were trained; ``image_px`` wide and high.
            gsd_m: Metres of a pixel.
        """
        size = self.config["image_px"]
        if images.shape[-2:] != (size, size):
            raise InvalidSpecError(
                f"images of {images.shape[-1]}x{images.shape[-2]} px for a tower of {size}x{size} "
                "px (resize them)"
            )
        x = self.patch_embed(images)
        x = x + scale_positions(self.side, self.dim, (gsd_m / self.reference_gsd_m).to(x))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
