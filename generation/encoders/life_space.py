"""TaxaBind: names of taxa, satellite images, places and environments in one space.

All modalities are bound to one hub, here the taxonomic string. What each of them says on average
is taken off before vectors are compared, so that a name and an image of where it lives can stand
for each other.

Source:
    Sastry et al., "TaxaBind: A Unified Embedding Space for Ecological Applications" (WACV 2025).
    Its hub is a photograph of the species, which this model has none of.
"""

from collections.abc import Mapping

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from generation.encoders.heads import unit
from generation.encoders.location import LocationEncoder, ResidualBlock
from generation.encoders.tile_statistics import STATISTICS
from generation.errors import InvalidSpecError

TEXT, SATELLITE, LOCATION, ENVIRONMENT = "text", "satellite", "location", "environment"
GROUND, AUDIO = "ground", "audio"
"""Which published spaces have, and this one has not."""
MODALITIES = (TEXT, SATELLITE, LOCATION, ENVIRONMENT)
_FARTHEST = 6.0


class EnvironmentEncoder(ModelMixin, ConfigMixin):
    """Variables of a place to a vector; sizes by default as published: 20 variables to 512.

    Variables that are not known count as the mean of those learnt from. Where none is
    known there is nothing to embed, which callers are told by :func:`known`.
    """

    @register_to_config
    def __init__(
        self,
        variables: int = 20,
        width: int = 512,
        dim: int = 512,
        blocks: int = 4,
        drop: float = 0.1,
        clamped: bool = True,
    ) -> None:
        """Build an untrained encoder.

        Args:
            variables: Of the environment.
            width: Of all layers.
            dim: Of the vectors; where it is the width, the last block gives them, as published.
            blocks: Residual blocks.
            drop: Probability of a feature to be dropped while learning.
            clamped: Whether what lies far from all that was learnt counts as just far.
        """
        super().__init__()
        self.clamped = clamped
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(variables))
        self.register_buffer("deviation", torch.ones(variables))
        self.first = nn.Linear(variables, width)
        self.residuals = nn.ModuleList(ResidualBlock(width, drop) for _ in range(blocks))
        self.last = nn.Linear(width, dim) if dim != width else nn.Identity()

    def fit(self, variables: Float[Tensor, "n variables"]) -> None:
        """Take mean and deviation from examples, none of them NaN."""
        self.mean.copy_(variables.mean(0))
        self.deviation.copy_(variables.std(0).clamp_min(1e-3))

    def forward(self, variables: Float[Tensor, "batch variables"]) -> Float[Tensor, "batch dim"]:
        """Embed; a vector of any length."""
        normal = ((variables - self.mean) / self.deviation).nan_to_num(0.0)
        near = normal.clamp(-_FARTHEST, _FARTHEST) if self.clamped else normal
        hidden = torch.relu(self.first(near))
        for block in self.residuals:
            hidden = block(hidden)
        found: Tensor = self.last(hidden)
        return found


def known(variables: Float[Tensor, "batch variables"]) -> Tensor:
    """Tell of which samples any variable is known."""
    return variables.isfinite().any(1)


class LifeSpace(ModelMixin, ConfigMixin):
    """Towers of the four modalities, and what each says on average.

    Names come as mean token states, images as looks: readers of names and pixels stand outside.
    """

    @register_to_config
    def __init__(
        self,
        dim: int = 64,
        state_dim: int = 384,
        statistics: int = STATISTICS,
        variables: int = 18,
        degree: int = 8,
        width: int = 256,
        drop: float = 0.1,
    ) -> None:
        """Build an untrained space.

        Args:
            dim: Of the space.
            state_dim: Of the states of names.
            statistics: Of looks.
            variables: Of the environment.
            degree: Of the spherical harmonics of places.
            width: Of hidden layers.
            drop: Probability of a feature to be dropped while learning.
        """
        super().__init__()
        self.text = _perceptron(state_dim, width, dim, drop)
        self.satellite = _perceptron(statistics, width, dim, drop)
        self.location = LocationEncoder(degree=degree, hidden_dim=width, embed_dim=dim)
        self.environment = EnvironmentEncoder(variables, width, dim, blocks=2, drop=drop)
        for name in MODALITIES:
            self.register_buffer(f"{name}_mean", torch.zeros(dim))

    def raw(self, modality: str, given: Float[Tensor, "n _features"]) -> Float[Tensor, "n dim"]:
        """Embed before the mean is taken off: unit vectors, as they are learnt.

        Raises:
            InvalidSpecError: The space has no such modality.
        """
        if modality not in MODALITIES:
            raise InvalidSpecError(
                f"modality={modality!r} is not of this space (give one of {', '.join(MODALITIES)})"
            )
        found: Tensor = getattr(self, modality)(given)
        return unit(found)

    def forward(self, modality: str, given: Float[Tensor, "n _features"]) -> Float[Tensor, "n dim"]:
        """Embed: unit vectors around the mean of their modality."""
        mean: Tensor = (
            getattr(self, f"{modality}_mean") if modality in MODALITIES else torch.empty(0)
        )
        return unit(self.raw(modality, given) - mean)

    @torch.no_grad()
    def centre(self, examples: Mapping[str, Float[Tensor, "n _features"]]) -> None:
        """Take the mean of each modality from examples."""
        for name, given in examples.items():
            mean: Tensor = getattr(self, f"{name}_mean")
            mean.copy_(self.raw(name, given).mean(0))


def _perceptron(features: int, width: int, dim: int, drop: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(features),
        nn.Linear(features, width),
        nn.GELU(),
        nn.Dropout(drop),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Dropout(drop),
        nn.Linear(width, dim),
    )
