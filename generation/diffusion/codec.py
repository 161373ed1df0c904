"""The nano codec: patches of pixels as latents, by a closed-form space-to-depth autoencoder.

An 8x8 patch of a satellite image has 192 numbers, but 32 principal components hold 99.8 % of
their variance (about 43 dB). The basis is fitted once, in seconds, and encoding and decoding are
one strided convolution each. Components are scaled by a power of their standard deviation: at 0
the many fine components drown in the noise of the diffusion and come out blurred, at 1 they weigh
as much as colour does and patches stop fitting together. Brightness goes through a power first:
most land is dark, and without it snow would be the only texture that counts.
"""

from collections.abc import Iterable

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F


class PatchCodec(ModelMixin, ConfigMixin):
    """Linear autoencoder over non-overlapping patches of ``channels`` colours, or of a spectrogram.

    Signals lie in [-1, 1]; beyond is cut off.
    """

    @register_to_config
    def __init__(
        self,
        patch: int = 8,
        latent_channels: int = 16,
        whitening: float = 0.5,
        gamma: float = 1.0,
        channels: int = 3,
    ) -> None:
        super().__init__()
        dim = channels * patch * patch
        self.patch, self.gamma = patch, gamma
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("basis", torch.eye(dim)[:latent_channels].clone())
        self.register_buffer("scale", torch.ones(latent_channels))

    @classmethod
    def fit(
        cls,
        images: UInt8[np.ndarray, "n height width 3"],
        *,
        patch: int = 8,
        latent_channels: int = 16,
        whitening: float = 0.5,
        gamma: float = 1.0,
    ) -> "PatchCodec":
        """Find the basis of a set of images.

        Args:
            images: A few hundred images or more; sides are multiples of ``patch``.
            patch: Side of a patch in pixels.
            latent_channels: How many components to keep.
            whitening: Exponent of the standard deviations, 0 (none) to 1 (all equal).
            gamma: Exponent of the brightness, 1 (none) or less to widen dark tones.

        Returns:
            A codec whose latents have a root mean square of one.
        """
        codec = cls(patch=patch, latent_channels=latent_channels, whitening=whitening, gamma=gamma)
        codec.adapt(
            to_signal(chunk) for chunk in np.array_split(images, max(1, len(images) // 256))
        )
        return codec

    def adapt(self, chunks: Iterable[Float[Tensor, "_batch channels h w"]]) -> None:
        """Find the basis of signals in [-1, 1] that come in parts."""
        dim, count = len(self.mean), 0
        total = torch.zeros(dim, dtype=torch.float64)
        square = torch.zeros(dim, dim, dtype=torch.float64)
        for chunk in chunks:
            rows = self._patches(chunk).flatten(2).transpose(1, 2).flatten(0, 1).double()
            total, square, count = total + rows.sum(0), square + rows.T @ rows, count + len(rows)
        mean = total / count
        values, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
        kept, whitening = len(self.basis), float(self.config["whitening"])
        deviation = values.flip(0)[:kept].clamp_min(1e-12).sqrt()
        basis = vectors.flip(1)[:, :kept].T
        basis = basis * torch.where(basis.sum(1, keepdim=True) < 0, -1.0, 1.0)  # fix the signs
        rms = (deviation ** (2 - 2 * whitening)).mean().sqrt()
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.scale.copy_(1 / (deviation**whitening * rms))

    def _patches(
        self, pixels: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        return F.pixel_unshuffle(self.tone(pixels), self.patch)

    def tone(
        self, pixels: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch channels h w"]:
        """Turn pixels in [-1, 1] into tones in [-1, 1], where dark ones lie farther apart."""
        return (pixels / 2 + 0.5).clamp(0, 1) ** self.gamma * 2 - 1

    def untone(
        self, tones: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch channels h w"]:
        """Turn tones back into pixels in [-1, 1]."""
        return (tones / 2 + 0.5).clamp(0, 1) ** (1 / self.gamma) * 2 - 1

    def encode(
        self, pixels: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch kept rows cols"]:
        """Turn pixels in [-1, 1] into latents, 1/``patch`` the size."""
        centred = self._patches(pixels) - self.mean[:, None, None]
        return F.conv2d(centred, (self.basis * self.scale[:, None])[:, :, None, None])

    def toned(
        self, latents: Float[Tensor, "batch kept rows cols"]
    ) -> Float[Tensor, "batch channels h w"]:
        """Turn latents into tones."""
        weight = (self.basis / self.scale[:, None]).T
        patches = F.conv2d(latents, weight[:, :, None, None]) + self.mean[:, None, None]
        return F.pixel_shuffle(patches, self.patch)

    def decode(
        self, latents: Float[Tensor, "batch kept rows cols"]
    ) -> Float[Tensor, "batch channels h w"]:
        """Turn latents into pixels in [-1, 1]."""
        return self.untone(self.toned(latents))


def to_signal(images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n 3 height width"]:
    """Turn bytes into the signal that diffusion works on, [-1, 1]."""
    return signal(torch.from_numpy(np.ascontiguousarray(images)))


def signal(
    pixels: UInt8[Tensor, "*batch height width 3"],
) -> Float[Tensor, "*batch 3 height width"]:
    """Turn bytes that are tensors into that signal, channels before rows."""
    return pixels.movedim(-1, -3).float() / 127.5 - 1


def to_bytes(signal: Float[Tensor, "n 3 height width"]) -> UInt8[np.ndarray, "n height width 3"]:
    """Turn a signal back into bytes; what lies outside [-1, 1] is cut off, as in any display."""
    levels = ((signal.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()
