"""The decoder of panoramas: latents to pixels without borders between patches.

The patch codec draws every patch by itself, so whatever a latent gets wrong ends at the border of
its patch, and smooth skies show all of them. This network sees the patches side by side and draws
what the codec's picture lacks, on a grid of 4 pixels and then on that of pixels. It learns from
latents with errors of the size that a draft has.

Source:
    A small network after a codec: Dong et al., "Compression artifacts reduction by a deep
    convolutional network" (2015).
"""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.diffusion.azimuth import conv3
from generation.diffusion.codec import PatchCodec
from generation.diffusion.view_attention import ResidualBlock

_FOLD = 4
"""Side in pixels of a cell of the grid on which most of the work is done."""


class PanoramaDecoder(ModelMixin, ConfigMixin):
    """What stands between the codec's picture and one without borders; begins as nothing."""

    @register_to_config
    def __init__(self, width: int = 64, num_blocks: int = 3, fine_width: int = 16) -> None:
        super().__init__()
        cells = 3 * _FOLD**2
        self.enter = conv3(cells, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(num_blocks))
        self.leave = conv3(width, cells)
        finest = conv3(fine_width, 3)
        self.fine = nn.Sequential(conv3(3, fine_width), nn.SiLU(), finest)
        for last in (self.leave, finest):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, latents: Float[Tensor, "batch channels rows cols"], codec: PatchCodec
    ) -> Float[Tensor, "batch 3 height width"]:
        """Turn latents into the codec's tones; a turned input gives a turned output."""
        tones = codec.toned(latents.float()).to(latents.dtype)
        x = self.enter(F.pixel_unshuffle(tones, _FOLD))
        for block in self.blocks:
            x = block(x)
        tones = tones + F.pixel_shuffle(self.leave(F.silu(x)), _FOLD)
        finer: Tensor = self.fine(tones)
        return tones + finer

    def decode(
        self, latents: Float[Tensor, "batch channels rows cols"], codec: PatchCodec
    ) -> Float[Tensor, "batch 3 height width"]:
        """Turn latents into pixels in [-1, 1]."""
        return codec.untone(self(latents, codec).float())
