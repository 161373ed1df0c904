"""Satellite images as patch tokens that know how large a patch is on the ground."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.errors import InvalidSpecError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of its red, green and blue in [0, 1]."""
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


class VitBlock(nn.Module):
    """A block of a vision transformer: attention, then two layers, each beside the tokens.

    Source:
        Dosovitskiy et al., "An image is worth 16x16 words" (2021), Eqs. 2 and 3.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), _Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), _Mlp(dim, 4 * dim)

    def forward(self, x: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n dim"]:
        """Give as many tokens as are given."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """A token for each square of pixels, row by row."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch n dim"]:
        """Give the tokens of images whose sides are multiples of the patch."""
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
        pooled: bool = False,
    ) -> None:
        """Build an untrained tower.

        Args:
            image_px: Side of the images.
            patch: Side of a patch, in pixels.
            dim: Width of the tokens.
            depth: Blocks.
            heads: Of the attention.
            reference_gsd_m: Metres of a pixel for which neighbouring patches lie one step apart.
            final_norm: Whether a norm follows the blocks.
            pooled: Whether the patches are averaged, before that norm, to one token.
        """
        super().__init__()
        _check_patches(image_px, patch)
        self.patch_embed = PatchEmbed(patch, dim)
        self.blocks = nn.ModuleList(VitBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6) if final_norm else nn.Identity()
        self.side, self.dim, self.reference_gsd_m = image_px // patch, dim, reference_gsd_m
        self.pooled = pooled

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], gsd_m: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch patches dim"]:
        """Give a token for each patch, row by row, or their mean alone.

        Args:
            images: Normalised as the weights were trained; ``image_px`` wide and high.
            gsd_m: Metres of a pixel.
        """
        _check_size(images, self.config["image_px"])
        x = self.patch_embed(images)
        x = x + scale_positions(self.side, self.dim, (gsd_m / self.reference_gsd_m).to(x))
        for block in self.blocks:
            x = block(x)
        return self.norm(x.mean(1, keepdim=True) if self.pooled else x)


class SatMae(ModelMixin, ConfigMixin):
    """A vision transformer with a class token, learnt positions and classes, as one token.

    The token is what the class token says of each class, where it says anything: GeoCLAP kept the
    thousand classes of an ImageNet model, untrained, and went on from them.

    Source:
        Cong et al., "SatMAE" (NeurIPS 2022); Khanal et al., "GeoCLAP" (BMVC 2023).
    """

    @register_to_config
    def __init__(
        self,
        image_px: int = 224,
        patch: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        _check_patches(image_px, patch)
        count = 1 + (image_px // patch) ** 2
        self.patch_embed = PatchEmbed(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, count, dim))
        self.blocks = nn.ModuleList(VitBlock(dim, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes)
        self.dim = classes

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], gsd_m: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch one classes"]:
        """Give one token; how large a pixel is on the ground makes no difference to it.

        Args:
            images: Normalised as the weights were trained; ``image_px`` wide and high.
            gsd_m: Metres of a pixel.
        """
        _check_size(images, self.config["image_px"])
        first = self.cls_token.expand(len(gsd_m), -1, -1)
        x = torch.cat([first, self.patch_embed(images)], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return F.relu(self.head(self.norm(x[:, :1])))


def _check_patches(image_px: int, patch: int) -> None:
    if image_px % patch:
        raise InvalidSpecError(
            f"image_px={image_px} is cut into no patches of {patch} (give a multiple)"
        )


def _check_size(images: Float[Tensor, "batch 3 height width"], size: int) -> None:
    height, width = images.shape[-2:]
    if (height, width) != (size, size):
        raise InvalidSpecError(
            f"images of {width}x{height} px for a tower of {size}x{size} px (resize them)"
        )
