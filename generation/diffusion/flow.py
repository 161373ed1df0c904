"""The straight path from clean latents to noise, and how a network is asked for it."""

import torch
from jaxtyping import Float
from torch import Tensor

MapOfLatents = Float[Tensor, "batch channels rows cols"]


def noised(x0: MapOfLatents, noise: MapOfLatents, share: Float[Tensor, " batch"]) -> MapOfLatents:
    """Give ``x_t = (1 - s) x0 + s noise``.

    Source:
        Liu, Gong and Liu, "Flow straight and fast" (ICLR 2023), Eq. 1.
    """
    mix = share[:, None, None, None]
    return (1 - mix) * x0 + mix * noise


def velocity_of(
    x_t: MapOfLatents, share: Float[Tensor, " batch"], told: MapOfLatents
) -> MapOfLatents:
    """Give the velocity ``noise - x0`` of what a network says that ``x_t`` does not tell.

    Of latents and noise of unit variance, some of the velocity follows from ``x_t`` alone; the
    network is asked for the rest, which has unit variance at every time. From noise alone that is
    ``x0`` itself: a network that knows nothing expects the mean, and adds no noise to it.

    Args:
        x_t: Noisy latents.
        share: Of noise in them, 0 to 1.
        told: What the network says.

    Source:
        Karras et al., "Elucidating the design space of diffusion-based generative models" (2022),
        §5 and Eq. 7, for this path.
    """
    s = share[:, None, None, None].to(x_t.dtype)
    variance = s**2 + (1 - s) ** 2
    return x_t * (2 * s - 1) / variance - told / variance.sqrt()


def shares(
    count: int, *, mean: float, deviation: float, device: torch.device, pure: float = 0.0
) -> Float[Tensor, " count"]:
    """Draw shares of noise to learn from: the sigmoid of a normal law, and some all noise.

    Source:
        Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis"
        (2024), Eq. 19, for the law.
    """
    drawn = torch.sigmoid(mean + deviation * torch.randn(count, device=device))
    return drawn.masked_fill(torch.rand_like(drawn) < pure, 1.0) if pure else drawn
