"""Vision transformers that learn by filling in what is masked, of one view or of several at once.

A view is ``(height, width, patch)`` in pixels. The tokens of all views stand in one row behind the
class token; positions are sines and cosines of rows and columns, the views being laid below each
other, so that what is masked can be told by its place alone. A masked autoencoder of the usual kind
is one with a single square view.

Source:
    He et al., "Masked autoencoders are scalable vision learners" (CVPR 2022); the blocks with
    convolutions: Zhang et al., "ViTAEv2" (IJCV 2023), as Wang et al. use them in "Advancing plain
    vision transformer towards remote sensing foundation model" (RVSA, 2022).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float, Int
from torch import Tensor, nn

from generation.encoders.heads import Compat
from generation.encoders.image import PatchEmbed, VitBlock
from generation.errors import ConfigError, InvalidSpecError

Images = Float[Tensor, "batch 3 _height _width"]
_BASE = 10_000.0
_SHUFFLE_SEED = 0


def grid_positions(
    rows: int, columns: int, dim: int, first_row: int = 0
) -> Float[Tensor, "patches dim"]:
    """Encode the places of a grid, row by row: the column in the first half, the row in the second.

    Args:
        rows: Of the grid.
        columns: Of the grid.
        dim: Features of a place.
        first_row: The number of its first row.

    Raises:
        ConfigError: ``dim`` is no multiple of four.

    Source:
        He et al. (2022), whose grids are square: the sines of all frequencies, then their cosines.
    """
    if dim % 4:
        raise ConfigError(f"{dim} features hold no positions of a grid (give a multiple of 4)")
    omega = _BASE ** (-torch.arange(dim // 4) / (dim // 4))

    def line(count: int, first: int = 0) -> Float[Tensor, "count half"]:
        angle = (first + torch.arange(count))[:, None] * omega
        return torch.cat([angle.sin(), angle.cos()], 1)

    column = line(columns).expand(rows, columns, dim // 2)
    row = line(rows, first_row)[:, None].expand(rows, columns, dim // 2)
    return torch.cat([column, row], -1).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class Masking:
    """Which patches of each image are seen."""

    kept: Int[Tensor, "batch kept"]
    """Their numbers, in the order in which they are read."""
    patches: int
    """Of all, seen or not."""

    @classmethod
    def random(cls, batch: int, patches: int, ratio: float, device: torch.device) -> "Masking":
        """Hide a share of the patches of each image, drawn apart for each.

        Raises:
            ConfigError: Nothing would be left to see, or to fill in.
        """
        count = int(patches * (1 - ratio))
        if not 0 < count < patches:
            raise ConfigError(
                f"a mask of {ratio} shows {count} of {patches} patches (some must be seen and "
                "some hidden)"
            )
        order = torch.rand(batch, patches, device=device).argsort(1)
        return cls(order[:, :count], patches)

    @property
    def hidden(self) -> Float[Tensor, "batch patches"]:
        """One where a patch is hidden, else zero."""
        every = torch.ones(len(self.kept), self.patches, device=self.kept.device)
        return every.scatter(1, self.kept, 0.0)


def taken(
    tokens: Float[Tensor, "batch n dim"], rows: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch kept dim"]:
    """Take tokens by their numbers."""
    return tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[-1]))


class VitaeBlock(VitBlock):
    """A block that convolves over the grid of its patches beside the attention.

    Source:
        Zhang et al. (ViTAEv2, 2023), its normal cell; four features a group, as in RVSA.
    """

    def __init__(self, dim: int, heads: int, kernel: int = 3) -> None:
        """Build an untrained block."""
        super().__init__(dim, heads)
        groups, pad = dim // 4, kernel // 2
        self.parallel = nn.Sequential(
            nn.Conv2d(dim, 4 * dim, kernel, padding=pad, groups=groups),
            nn.BatchNorm2d(4 * dim),
            nn.SiLU(),
            nn.Conv2d(4 * dim, dim, kernel, padding=pad, groups=groups),
        )

    def _near(
        self, patches: Float[Tensor, "batch dim rows columns"], *, whole: bool
    ) -> Float[Tensor, "batch dim rows columns"]:
        """Convolve; while learning, a grid with holes leaves what is kept of whole ones alone."""
        if whole or not self.training:
            found: Tensor = self.parallel(patches)
            return found
        first, norm, act, last = self.parallel
        scale, shift = cast(Tensor, norm.weight), cast(Tensor, norm.bias)
        x = nn.functional.batch_norm(first(patches), None, None, scale, shift, training=True)
        found = last(act(x))
        return found

    def on_grid(
        self,
        x: Float[Tensor, "batch n dim"],
        grid: tuple[int, int],
        kept: Int[Tensor, "batch kept"] | None,
    ) -> Float[Tensor, "batch n dim"]:
        """Do what :meth:`forward` does, knowing where the patches lie.

        Args:
            x: The class token and the patches.
            grid: Rows and columns of all patches.
            kept: The numbers of those that are there; zeros stand for the others. All in their
                order if absent.
        """
        patches = x[:, 1:]
        if kept is not None:
            rows = kept[..., None].expand_as(patches)
            empty = patches.new_zeros(len(x), grid[0] * grid[1], x.shape[-1])
            patches = empty.scatter(1, rows, patches)
        near = self._near(patches.transpose(1, 2).unflatten(2, grid), whole=kept is None)
        near = near.flatten(2).transpose(1, 2)
        if kept is not None:
            near = taken(near, kept)
        x = x + self.attn(self.norm1(x)) + nn.functional.pad(near, (0, 0, 1, 0))
        return x + self.mlp(self.norm2(x))


class MaskedVit(ModelMixin, ConfigMixin):
    """An encoder of patches and, unless it has no depth, a decoder that fills in masked ones.

    The published code shuffles the patches also where it masks none, so that the convolutions of
    its ViTAE blocks run over neighbours drawn by lot, and the same image is embedded differently
    each time. Here patches stay in their places. ``compat="mvrl"`` is for weights that learnt so:
    patches are shuffled while learning, and always in the same way afterwards.
    """

    @register_to_config
    def __init__(
        self,
        views: Sequence[Sequence[int]] = ((224, 224, 16),),
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder: Sequence[int] = (512, 8, 16),
        cell: str = "vit",
        compat: Compat = "right",
    ) -> None:
        """Build an untrained model.

        Args:
            views: Height, width and side of a patch of each, pixels.
            dim: Width of the tokens.
            depth: Blocks.
            heads: Of the attention.
            decoder: Its width, depth and heads; a depth of zero is none.
            cell: Kind of the encoder's blocks; ``vitae`` reads one view.
            compat: See above.

        Raises:
            ConfigError: The sizes do not fit each other.
        """
        super().__init__()
        _check_sizes(views, dim, heads, cell)
        self.sizes = tuple((int(h), int(w), int(p)) for h, w, p in views)
        self.shuffles = cell == "vitae" and compat == "mvrl"
        self.grids = tuple((h // p, w // p) for h, w, p in self.sizes)
        self.counts = [rows * columns for rows, columns in self.grids]
        self.patches = nn.ModuleList(PatchEmbed(p, dim) for _, _, p in self.sizes)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", self._positions(dim))
        kind = VitaeBlock if cell == "vitae" else VitBlock
        self.blocks = nn.ModuleList(kind(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.has_decoder = decoder[1] > 0
        if self.has_decoder:
            self._add_decoder(dim, *decoder)
        self.apply(_start)
        for token in (self.cls_token, *([self.mask_token] if self.has_decoder else [])):
            nn.init.normal_(token, std=0.02)

    def _add_decoder(self, dim: int, width: int, depth: int, heads: int) -> None:
        self.decoder_embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed: Tensor
        self.register_buffer("decoder_pos_embed", self._positions(width))
        self.decoder_blocks = nn.ModuleList(VitBlock(width, heads) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.ModuleList(nn.Linear(width, 3 * p * p) for _, _, p in self.sizes)

    def _positions(self, dim: int) -> Float[Tensor, "one n dim"]:
        each, first = [torch.zeros(1, dim)], 0
        for rows, columns in self.grids:
            each.append(grid_positions(rows, columns, dim, first))
            first += rows
        return torch.cat(each)[None]

    def encode(
        self, images: Sequence[Images], masking: Masking | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Give the class token and those patches that are seen; all of them without a masking.

        Args:
            images: Of each view, normalised by ImageNet's mean and deviation.
            masking: Which patches are seen.

        Raises:
            InvalidSpecError: An image has another size than its view.
        """
        for image, (height, width, _) in zip(images, self.sizes, strict=True):
            if image.shape[-2:] != (height, width):
                raise InvalidSpecError(
                    f"images of {image.shape[-1]}x{image.shape[-2]} px for a view of "
                    f"{width}x{height} px (resize them)"
                )
        x = torch.cat([read(each) for read, each in zip(self.patches, images, strict=True)], 1)
        x = x + self.pos_embed[:, 1:]
        kept = self._shuffled(x) if masking is None else masking.kept
        if kept is not None:
            x = taken(x, kept)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        return self._through(torch.cat([first, x], 1), kept)

    def _shuffled(self, x: Float[Tensor, "batch n dim"]) -> Int[Tensor, "batch n"] | None:
        """Give an order as published; none where patches stay in their places."""
        if not self.shuffles:
            return None
        if self.training:
            return torch.rand(x.shape[:2], device=x.device).argsort(1)
        fixed = torch.Generator().manual_seed(_SHUFFLE_SEED)
        return torch.randperm(x.shape[1], generator=fixed).to(x.device).expand(len(x), -1)

    def _through(
        self, x: Float[Tensor, "batch n dim"], kept: Int[Tensor, "batch kept"] | None
    ) -> Float[Tensor, "batch n dim"]:
        grid = self.grids[0]
        if self.shuffles:
            side = math.isqrt(x.shape[1] - 1)
            if side * side != x.shape[1] - 1:
                raise ConfigError(
                    f"{x.shape[1] - 1} patches are no square, as which published blocks convolve "
                    "them (mask another share)"
                )
            grid, kept = (side, side), None
        for block in self.blocks:
            x = block.on_grid(x, grid, kept) if isinstance(block, VitaeBlock) else block(x)
        return self.norm(x)

    def decode(
        self, tokens: Float[Tensor, "batch tokens dim"], masking: Masking
    ) -> list[Float[Tensor, "batch _patches _pixels"]]:
        """Fill in all patches of each view from those that were seen.

        Raises:
            ConfigError: There is no decoder.
        """
        if not self.has_decoder:
            raise ConfigError("this tower has no decoder (give it one of a depth of 1 or more)")
        x = self.decoder_embed(tokens)
        first, seen = x[:, :1], x[:, 1:]
        every = self.mask_token.to(seen.dtype).expand(len(x), masking.patches, -1)
        every = every.scatter(1, masking.kept[..., None].expand_as(seen), seen)
        x = torch.cat([first, every], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        parts = self.decoder_norm(x)[:, 1:].split(self.counts, 1)
        return [predict(part) for predict, part in zip(self.decoder_pred, parts, strict=True)]


def patchified(images: Images, patch: int) -> Float[Tensor, "batch patches pixels"]:
    """Cut images into patches, row by row; inside one, row by row too, with colours last."""
    squares = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (batch, 3, h, w, row, col)
    return squares.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def _check_sizes(views: Sequence[Sequence[int]], dim: int, heads: int, cell: str) -> None:
    wrong = [f"view {tuple(v)} is no height, width and patch" for v in views if len(v) != 3]
    wrong += [
        f"view {tuple(v)} is cut into no patches (give multiples of the last)"
        for v in views
        if len(v) == 3 and (min(v) < 1 or v[0] % v[2] or v[1] % v[2])
    ]
    if dim % heads:
        wrong.append(f"dim={dim} is shared by no {heads} heads (give a multiple)")
    if cell not in ("vit", "vitae"):
        wrong.append(f"cell={cell!r} is unknown (give vit or vitae)")
    if cell == "vitae" and len(views) != 1:
        wrong.append(f"cell='vitae' reads one view and not {len(views)} (give vit)")
    if wrong or not views:
        raise ConfigError("; ".join(wrong) or "no view is given (give one or more)")


def _start(layer: nn.Module) -> None:
    """Begin as He et al. do."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, PatchEmbed):
        nn.init.xavier_uniform_(layer.proj.weight.flatten(1))
