"""Where on Earth: location encoders, latitude first.

``LocationEncoder`` is our own: spherical harmonics, which know no seam and no pole, then a network
with sine activations. ``GeoClipLocationEncoder`` runs published weights.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from generation.checkpoint import load_part


def spherical_harmonics(
    latlon: Float[Tensor, "*batch 2"], degree: int
) -> Float[Tensor, "*batch features"]:
    """Evaluate the real orthonormal spherical harmonics below a degree.

    The associated Legendre functions come from the fully normalised three-term recurrence, whose
    terms stay of order one in float32; the factor sin(theta)^m is carried along, so both poles are
    ordinary points.

    Args:
        latlon: Degrees, latitude first.
        degree: Number of bands L; the result has L squared features.

    Returns:
        Values ordered by band l, then m from -l to l.

    Source:
        Holmes and Featherstone, "A unified approach to the Clenshaw summation and the recursive
        computation of very high degree and order normalised associated Legendre functions",
        J. Geodesy 76 (2002), Eqs. 11-13 (without their factor sqrt(4 pi)).
    """
    lat, lon = torch.deg2rad(latlon).unbind(-1)
    z, ring = torch.sin(lat)[..., None], torch.cos(lat)[..., None]
    angle = torch.arange(degree, device=latlon.device) * lon[..., None]
    sines, cosines = torch.sin(angle), torch.cos(angle)
    before, legendre = z, torch.full_like(z, 1 / math.sqrt(4 * math.pi))  # of orders 0 to the band
    features = [legendre]
    for band in range(1, degree):
        first, second = (factor.to(z) for factor in _recurrence(band))
        inner = first * z * legendre
        if band > 1:
            inner = torch.cat([inner[..., :-1] - second * before, inner[..., -1:]], dim=-1)
        last = legendre[..., -1:] * ring * math.sqrt((2 * band + 1) / (2 * band))
        before, legendre = legendre, torch.cat([inner, last], dim=-1)
        outer, orders = math.sqrt(2) * legendre[..., 1:], slice(1, band + 1)
        features += [
            (outer * sines[..., orders]).flip(-1),
            legendre[..., :1],
            outer * cosines[..., orders],
        ]
    return torch.cat(features, dim=-1)


def _recurrence(band: int) -> tuple[Float[Tensor, " orders"], Float[Tensor, " fewer"]]:
    """Give the factors of the two bands below, for each order that both have."""
    m = torch.arange(band, dtype=torch.float64)
    first = ((4 * band**2 - 1) / (band**2 - m**2)).sqrt()
    k = m[:-1]
    second = (
        (2 * band + 1) * ((band - 1) ** 2 - k**2) / ((2 * band - 3) * (band**2 - k**2))
    ).sqrt()
    return first, second


class _Sine(nn.Module):
    """A linear layer followed by a sine.

    Source:
        Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions"
        (2020), §3.2: weights uniform in ±sqrt(6/n)/omega, ±1/n in the first layer.
    """

    def __init__(self, features_in: int, features_out: int, omega: float, *, first: bool) -> None:
        super().__init__()
        self.omega = omega
        self.linear = nn.Linear(features_in, features_out)
        bound = 1 / features_in if first else math.sqrt(6 / features_in) / omega
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        return torch.sin(self.omega * self.linear(x))


class LocationEncoder(ModelMixin, ConfigMixin):
    """Spherical harmonics and a sine network: coordinates to an embedding.

    Source:
        Rußwurm et al., "Geographic Location Encoding with Spherical Harmonics and Sinusoidal
        Representation Networks" (2024).
    """

    @register_to_config
    def __init__(
        self, degree: int = 12, hidden_dim: int = 256, embed_dim: int = 256, layers: int = 2
    ) -> None:
        super().__init__()
        dims = [degree**2, *[hidden_dim] * layers]
        self.degree = degree
        self.sines = nn.Sequential(
            *(
                _Sine(dims[i], dims[i + 1], 30.0 if i == 0 else 1.0, first=i == 0)
                for i in range(layers)
            )
        )
        self.out = nn.Linear(hidden_dim, embed_dim)

    def forward(self, latlon: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch embed"]:
        """Embed points given as (lat, lon) degrees, in full precision also under autocast.

        The first sine multiplies its argument by 30, and the eight bits of a bfloat16 with it.
        """
        with torch.autocast(latlon.device.type, enabled=False):
            harmonics = spherical_harmonics(latlon.to(self.out.weight.dtype), self.degree)
            return self.out(self.sines(harmonics))


class ResidualBlock(nn.Module):
    """Two layers whose result is added to what they were given.

    Source:
        Cole et al., "Spatial Implicit Neural Representations for Global-Scale Species Mapping"
        (ICML 2023), appendix; with the names of its published weights.
    """

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, width), nn.Linear(width, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Keep the width."""
        return x + torch.relu(self.w2(self.drop(torch.relu(self.w1(x)))))


class GeoClipLocationEncoder(ModelMixin, ConfigMixin):
    """GeoCLIP's location tower: three scales of random Fourier features, summed.

    Source:
        Vivanco Cepeda et al., "GeoCLIP" (NeurIPS 2023), §3.1; Equal Earth projection: Šavrič et
        al., IJGIS 33 (2019), Eqs. 4-7, scaled as in the published weights.
    """

    @register_to_config
    def __init__(
        self,
        sigmas: Sequence[float] = (1.0, 16.0, 256.0),
        fourier_dim: int = 256,
        hidden_dim: int = 1024,
        embed_dim: int = 512,
    ) -> None:
        super().__init__()
        self.frequencies = nn.ParameterList(
            nn.Parameter(s * torch.randn(fourier_dim, 2), requires_grad=False) for s in sigmas
        )
        self.towers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * fourier_dim, hidden_dim),
                nn.ReLU(),
                nn.Linear(hidden_dim, hidden_dim),
                nn.ReLU(),
                nn.Linear(hidden_dim, hidden_dim),
                nn.ReLU(),
                nn.Linear(hidden_dim, embed_dim),
            )
            for _ in sigmas
        )

    def forward(self, latlon: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch embed"]:
        """Embed points given as (lat, lon) degrees."""
        xy = equal_earth(latlon)
        total = xy.new_zeros(len(xy), self.config["embed_dim"])
        for frequency, tower in zip(self.frequencies, self.towers, strict=True):
            angle = 2 * math.pi * xy @ frequency.T.to(xy.dtype)
            total = total + tower(torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1))
        return total


def equal_earth(latlon: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 2"]:
    """Project degrees with the Equal Earth projection, scaled to about [-1, 1]."""
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    lat, lon = torch.deg2rad(latlon).unbind(-1)
    theta = torch.asin(math.sqrt(3) / 2 * torch.sin(lat))
    slope = 3 * (9 * a4 * theta**8 + 7 * a3 * theta**6 + 3 * a2 * theta**2 + a1)
    x = 2 * math.sqrt(3) * lon * torch.cos(theta) / slope
    y = a4 * theta**9 + a3 * theta**7 + a2 * theta**3 + a1 * theta
    return torch.stack([x, y], dim=-1) * 66.50336 / 180


def load_geoclip(folder: Path) -> GeoClipLocationEncoder:
    """Load the converted GeoCLIP weights (``terrascape convert geoclip``), in single precision.

    Raises:
        MissingFileError: The folder lacks its configuration or its weights.
        WeightsError: They are damaged, hold NaN or infinity, or do not fit each other.
    """
    return load_part(GeoClipLocationEncoder, folder).eval()
