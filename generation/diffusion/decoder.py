"""The nano decoder: draws the detail that few latent channels cannot hold, and ends the sampling.

The diffusion decides what lies where; texture is not worth its time. It stops while some noise is
left, and this network takes the noisy latents, the share of noise in them and the layout, and draws
the pixels in one evaluation. Since it has learnt from noisy latents of real tiles with a
discriminator, what the diffusion got slightly wrong is drowned in noise that it knows how to read.

Source:
    Adversarial decoders: Rombach et al., "High-resolution image synthesis with latent diffusion
    models" (2022), §3.1. A later stage that is told the noise of its input: Ho et al., "Cascaded
    diffusion models" (2022), §4.1.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from generation.conditioning import LayoutConditioner
from generation.diffusion.codec import PatchCodec
from generation.errors import WeightsError

_FOLD = 4
"""Side in pixels of a cell of the fine grid."""


def _silence(layer: nn.Conv2d) -> None:
    """Let a layer add nothing at first: learning starts from the latents as they are."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight)  # torch's own choice lets the signal fade
    return layer


class _Residual(nn.Module):
    """Two convolutions beside the identity, told the share of noise by a scale and a shift."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.film = nn.Linear(told, 2 * width)
        self.first = _conv(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        _silence(self.second)

    def forward(
        self, x: Float[Tensor, "batch width rows cols"], told: Float[Tensor, "batch told"]
    ) -> Float[Tensor, "batch width rows cols"]:
        scale, shift = self.film(told)[:, :, None, None].chunk(2, dim=1)
        return x + self.second(F.silu(self.first(F.silu(x * (1 + scale) + shift))))


class DetailDecoder(ModelMixin, ConfigMixin):
    """Noisy latents and a layout to pixels, in one evaluation.

    Most of the work happens on the coarse grid of the latents, the rest on a grid of 4 pixels; no
    convolution runs at full resolution. ``max_share`` is the most noise that it has learnt to read,
    ``hand_over`` the noise at which a sampler should leave the rest to it; the buffer ``spread``
    holds the standard deviation of each channel of clean latents.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        patch: int = 8,
        coarse_width: int = 128,
        fine_width: int = 64,
        coarse_blocks: int = 3,
        fine_blocks: int = 2,
        max_share: float = 0.2,
        hand_over: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= hand_over <= max_share:
            raise WeightsError(
                f"hand_over={hand_over} is no share of noise that this decoder reads (give 0 to "
                f"{max_share})"
            )
        self.patch, self.hand_over, told = patch, hand_over, 64
        zoom = patch // _FOLD
        self.layout = LayoutConditioner(_FOLD)
        hint = 3 * _FOLD * _FOLD
        self.to_told = nn.Sequential(nn.Linear(3, told), nn.SiLU(), nn.Linear(told, told))
        self.latents_in = _conv(latent_channels, coarse_width)
        self.hint_in = _conv(hint * zoom**2, coarse_width)
        self.coarse = nn.ModuleList(_Residual(coarse_width, told) for _ in range(coarse_blocks))
        self.to_latents = nn.Conv2d(coarse_width, latent_channels, 3, padding=1)
        self.widen = _conv(coarse_width, fine_width * zoom**2)
        self.fine_in = _conv(hint, fine_width)
        self.fine = nn.ModuleList(_Residual(fine_width, told) for _ in range(fine_blocks))
        self.to_pixels = nn.Conv2d(fine_width, hint, 3, padding=1)
        _silence(self.to_latents)
        _silence(self.to_pixels)
        self.zoom = zoom
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(latent_channels))

    def forward(
        self,
        latents: Float[Tensor, "batch channels rows cols"],
        share: Float[Tensor, " batch"],
        classes: UInt8[Tensor, "batch height width"],
        has_layout: Bool[Tensor, " batch"],
        codec: PatchCodec,
    ) -> tuple[Float[Tensor, "batch channels rows cols"], Float[Tensor, "batch 3 height width"]]:
        """Draw a batch.

        Args:
            latents: ``(1 - s) x0 + s noise``.
            share: The share of noise ``s``, 0 to ``max_share``.
            classes: Layouts at the size of the pixels.
            has_layout: Which samples have one; the others get a learned null.
            codec: Whose latents these are.

        Returns:
            The clean latents as far as they can be told, and the pixels in the codec's tones.
        """
        s = share[:, None]
        told = self.to_told(torch.cat([s, s**2, torch.sqrt(s)], dim=1))
        hint = self.layout(classes, has_layout)
        x = self.latents_in(latents) + self.hint_in(F.pixel_unshuffle(hint, self.zoom))
        for block in self.coarse:
            x = block(x, told)
        clean = self._expected(latents, s[:, :, None, None]) + self.to_latents(F.silu(x))
        y = F.pixel_shuffle(self.widen(F.silu(x)), self.zoom) + self.fine_in(hint)
        for block in self.fine:
            y = block(y, told)
        detail = F.pixel_shuffle(self.to_pixels(F.silu(y)), _FOLD)
        with torch.autocast(latents.device.type, enabled=False):
            clean = clean.float()
            return clean, codec.toned(clean) + detail.float()

    def _expected(
        self, latents: Float[Tensor, "batch channels rows cols"], s: Float[Tensor, "batch 1 1 1"]
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Give the clean latents that each noisy one alone would make one expect.

        Source:
            The best linear estimate (Wiener): Karras et al., "Elucidating the design space of
            diffusion-based generative models" (2022), Eq. 131, with a spread for each channel.
        """
        variance = self.spread[:, None, None] ** 2
        return latents * (1 - s) * variance / ((1 - s) ** 2 * variance + s**2)
