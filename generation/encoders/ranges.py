"""Where a taxon lives: a score for every pair of a taxonomic string and a place.

A string names ranks from the order down, such as ``Carnivora Felidae Panthera leo``, and may stop
at any of them: ``Carnivora Felidae`` asks where any of the family lives.

Source:
    Sastry et al., "LD-SDM: Language-driven hierarchical species distribution modeling" (2023):
    a text encoder's reading of the string against an encoding of location and environment. The
    design of the place's network is SINR's (Cole et al., ICML 2023).
"""

import math
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generation.encoders.location import spherical_harmonics

_SHARPNESS = 4.0
"""Of the product of a taxon and a place: coasts and mountains are steps of many logits."""


class _Residual(nn.Module):
    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(width, width),
            nn.ReLU(),
        )

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        return x + self.layers(x)


class RangeModel(ModelMixin, ConfigMixin):
    """Taxa and places in one space; the sigmoid of their product is how likely the taxon is there.

    The text encoder stands outside: strings come as token states.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913 - the keys of its configuration
        self,
        variables: Sequence[str] = (),
        degree: int = 10,
        width: int = 256,
        blocks: int = 4,
        dim: int = 256,
        state_dim: int = 384,
        queries: int = 4,
        drop: float = 0.1,
        novel_bias: Sequence[float] = (0.0, 0.0),
        text: str = "minilm",
    ) -> None:
        """Build an untrained model.

        Args:
            variables: Of the environment, in the order in which they are given.
            degree: Of the spherical harmonics of the place.
            width: Of the place's network.
            blocks: Its residual blocks.
            dim: Of the shared space.
            state_dim: Width of the text encoder's token states.
            queries: Readings of a string that are put together.
            drop: Probability of a feature to be dropped while learning.
            novel_bias: Added to the scores of a species, and of a genus, that was not learnt from:
                what is not known is scored too low where it lives. Chosen after learning.
            text: What reads the strings: ``minilm``, or a language model by its name or folder.
        """
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(len(variables)))
        self.register_buffer("deviation", torch.ones(len(variables)))
        self.place = nn.Sequential(
            nn.Linear(degree**2 + len(variables), width),
            nn.ReLU(),
            *(_Residual(width, drop) for _ in range(blocks)),
            nn.Linear(width, dim),
        )
        self.readings = nn.Linear(state_dim, queries)
        last = nn.Linear(2 * dim, dim + 1)
        nn.init.constant_(last.bias[-1:], math.log(0.01))  # most taxa live nearly nowhere
        self.taxon = nn.Sequential(
            nn.Linear(queries * state_dim, 2 * dim), nn.GELU(), nn.Dropout(drop), last
        )

    def embed_places(
        self, latlon: Float[Tensor, "n 2"], variables: Float[Tensor, "n variables"]
    ) -> Float[Tensor, "n dim"]:
        """Embed places.

        Args:
            latlon: Degrees, latitude first.
            variables: Their environment; NaN, as at sea, counts as the mean.
        """
        harmonics = spherical_harmonics(latlon.double(), self.config["degree"]).to(self.mean)
        return self.embed_features(harmonics, variables)

    def embed_features(
        self, harmonics: Float[Tensor, "n squares"], variables: Float[Tensor, "n variables"]
    ) -> Float[Tensor, "n dim"]:
        """Embed places whose harmonics are known; they take longer than all the rest."""
        normal = ((variables - self.mean) / self.deviation).nan_to_num().clamp(-6, 6)
        embedded: Tensor = self.place(torch.cat([harmonics, normal], 1))
        return embedded

    def embed_taxa(
        self, states: Float[Tensor, "taxa words state"], words: Bool[Tensor, "taxa words"]
    ) -> Float[Tensor, "taxa one_more"]:
        """Embed taxonomic strings; the last number says how widespread the taxon is at large."""
        weights = self.readings(states).masked_fill(~words[..., None], -torch.inf).softmax(1)
        read = torch.einsum("twq,tws->tqs", weights, states).flatten(1)
        embedded: Tensor = self.taxon(read)
        return embedded


def logits(
    places: Float[Tensor, "n dim"], taxa: Float[Tensor, "taxa one_more"]
) -> Float[Tensor, "n taxa"]:
    """Score every place for every taxon; the sigmoid is a probability."""
    scale = _SHARPNESS / math.sqrt(places.shape[1])
    return scale * places @ taxa[:, :-1].T + taxa[:, -1]
