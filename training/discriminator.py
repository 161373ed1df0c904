"""The judge of an adversarial decoder: is this patch, under this layout, of a real tile?"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_FOLD = 4
_FINE = 16.0
"""What the fine texture is multiplied by: without that it would be lost beside the colours, and in
the eight bits of a bfloat16."""


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(
        self, x: Float[Tensor, "batch width rows cols"]
    ) -> Float[Tensor, "batch width rows cols"]:
        h = self.first(F.leaky_relu(x, 0.2))
        return x + self.second(F.leaky_relu(h, 0.2))


class PatchDiscriminator(nn.Module):
    """Scores of overlapping patches at three scales; a higher score looks more real.

    Pixels are folded to a grid of 4 first, which costs a tenth of full resolution and lets it see
    on which pixel of a cell an artefact sits. No normalisation: the loss holds its slope.
    """

    def __init__(self, widths: tuple[int, int, int] = (64, 128, 192)) -> None:
        super().__init__()
        first, second, third = widths
        self.entry = nn.Conv2d(9 * _FOLD * _FOLD, first, 3, padding=1)
        self.fine = _Block(first)
        self.down = nn.Conv2d(4 * first, second, 1)
        self.middle = nn.Sequential(_Block(second), _Block(second))
        self.down_again = nn.Conv2d(4 * second, third, 1)
        self.coarse = _Block(third)
        self.score_fine = nn.Conv2d(first, 1, 1)
        self.score_middle = nn.Conv2d(second, 1, 1)
        self.score_coarse = nn.Conv2d(third, 1, 1)

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        hint: Float[Tensor, "batch 3 height width"],
    ) -> list[Float[Tensor, "batch 1 _rows _cols"]]:
        """Score the patches of images in [-1, 1] under layouts drawn in colours of [0, 1]."""
        coarse = F.avg_pool2d(F.pad(pixels, (2, 2, 2, 2), mode="reflect"), 5, stride=1)
        seen = torch.cat([pixels, _FINE * (pixels - coarse), hint], dim=1)
        x = self.fine(self.entry(F.pixel_unshuffle(seen, _FOLD)))
        y = self.middle(self.down(F.pixel_unshuffle(x, 2)))
        z = self.coarse(self.down_again(F.pixel_unshuffle(y, 2)))
        heads = (self.score_fine, x), (self.score_middle, y), (self.score_coarse, z)
        with torch.autocast(pixels.device.type, enabled=False):
            return [head(features.float()) for head, features in heads]
