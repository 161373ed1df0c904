"""From embeddings to what a denoiser attends to: tokens, their mask, and one vector.

Conditioners take embeddings, not models, so any encoder can drive any pipeline. A missing input is
a learned null, reached in training by dropping inputs one by one; it is never a zero that could be
mistaken for a place or a word.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from generation.encoders.location import LocationEncoder
from generation.errors import ConfigError
from generation.geo.layout import PALETTE


@dataclass(frozen=True, slots=True)
class Condition:
    """What a denoiser is told, for a batch."""

    tokens: Float[Tensor, "batch tokens dim"]
    mask: Bool[Tensor, "batch tokens"]
    vector: Float[Tensor, "batch features"]
    hint: Float[Tensor, "batch hint rows cols"]
    """The layout (or its null) for the control branch."""

    @classmethod
    def cat(cls, parts: "Sequence[Condition]") -> "Condition":
        """Join batches that have equally many tokens."""
        if len(parts) == 1:
            return parts[0]
        return cls(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Given:
    """The inputs of a batch and, for each, which samples have it."""

    states: Float[Tensor, "batch words 384"]
    words: Bool[Tensor, "batch words"]
    latlon: Float[Tensor, "batch 2"]
    gsd_m: Float[Tensor, " batch"]
    classes: UInt8[Tensor, "batch height width"]
    has_text: Bool[Tensor, " batch"]
    has_location: Bool[Tensor, " batch"]
    has_layout: Bool[Tensor, " batch"]


class TextConditioner(nn.Module):
    """Project token states; without a text, one learned token and a learned vector."""

    def __init__(self, state_dim: int, token_dim: int, vector_dim: int) -> None:
        super().__init__()
        self.to_tokens = nn.Sequential(nn.Linear(state_dim, token_dim), nn.LayerNorm(token_dim))
        self.to_vector = nn.Linear(state_dim, vector_dim)
        self.null_token = nn.Parameter(0.02 * torch.randn(token_dim))
        self.null_vector = nn.Parameter(torch.zeros(vector_dim))

    def forward(
        self,
        states: Float[Tensor, "batch words state"],
        words: Bool[Tensor, "batch words"],
        keep: Bool[Tensor, " batch"],
    ) -> tuple[
        Float[Tensor, "batch words dim"], Bool[Tensor, "batch words"], Float[Tensor, "batch vector"]
    ]:
        """Return tokens, their mask, and a vector made from the mean state."""
        first = F.one_hot(torch.zeros(len(keep), dtype=torch.long), words.shape[1]).bool()
        mask = torch.where(keep[:, None], words, first.to(words.device))
        tokens = torch.where(keep[:, None, None], self.to_tokens(states), self.null_token)
        weight = words.float() / words.sum(1, keepdim=True).clamp_min(1)
        vector = self.to_vector((states * weight[..., None]).sum(1))
        return tokens, mask, torch.where(keep[:, None], vector, self.null_vector)


class LocationConditioner(nn.Module):
    """Project a location embedding to tokens and a vector, with learned nulls."""

    def __init__(self, embed_dim: int, token_dim: int, vector_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.to_tokens = nn.Sequential(
            nn.Linear(embed_dim, num_tokens * token_dim),
            nn.Unflatten(-1, (num_tokens, token_dim)),
            nn.LayerNorm(token_dim),
        )
        self.to_vector = nn.Linear(embed_dim, vector_dim)
        self.null_tokens = nn.Parameter(0.02 * torch.randn(num_tokens, token_dim))
        self.null_vector = nn.Parameter(torch.zeros(vector_dim))

    def forward(
        self, embedding: Float[Tensor, "batch embed"], keep: Bool[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch vector"]]:
        """Return the tokens and the vector; where ``keep`` is false, the nulls."""
        tokens = torch.where(keep[:, None, None], self.to_tokens(embedding), self.null_tokens)
        return tokens, torch.where(keep[:, None], self.to_vector(embedding), self.null_vector)


class ScaleConditioner(nn.Module):
    """Project the ground sample distance to a vector."""

    def __init__(self, vector_dim: int, waves: int = 16) -> None:
        super().__init__()
        self.waves = waves
        self.to_vector = nn.Sequential(
            nn.Linear(2 * waves, vector_dim), nn.SiLU(), nn.Linear(vector_dim, vector_dim)
        )

    def forward(self, gsd_m: Float[Tensor, " batch"]) -> Float[Tensor, "batch vector"]:
        """Take metres per pixel, from centimetres to hundreds of kilometres."""
        octave = torch.log2(gsd_m)[:, None] / 2
        angle = octave * torch.linspace(0.1, math.pi, self.waves, device=gsd_m.device)
        return self.to_vector(torch.cat([angle.sin(), angle.cos()], dim=-1))


class LayoutConditioner(nn.Module):
    """Fold a layout's palette image to the grid of latents; without one, a learned cell."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.null_hint = nn.Parameter(torch.full((3 * patch * patch,), 0.5))
        self.palette: Tensor
        self.register_buffer("palette", torch.from_numpy(PALETTE).float() / 255, persistent=False)

    def forward(
        self, classes: UInt8[Tensor, "batch height width"], keep: Bool[Tensor, " batch"]
    ) -> Float[Tensor, "batch hint rows cols"]:
        """Return hints in [0, 1], three colours for each pixel of a patch."""
        hint = F.pixel_unshuffle(self.colours(classes), self.patch)
        return torch.where(keep[:, None, None, None], hint, self.null_hint[:, None, None])

    def colours(
        self, classes: UInt8[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw layouts in the colours of the palette, in [0, 1]."""
        return self.palette[classes.long()].permute(0, 3, 1, 2)


class SatelliteConditioner(ModelMixin, ConfigMixin):
    """All inputs of a satellite image, any subset of them present."""

    @register_to_config
    def __init__(
        self,
        state_dim: int = 384,
        token_dim: int = 128,
        vector_dim: int = 256,
        location_degree: int = 12,
        location_dim: int = 256,
        location_tokens: int = 2,
        patch: int = 8,
    ) -> None:
        super().__init__()
        self.location_encoder = LocationEncoder(
            degree=location_degree, hidden_dim=location_dim, embed_dim=location_dim
        )
        self.text = TextConditioner(state_dim, token_dim, vector_dim)
        self.location = LocationConditioner(location_dim, token_dim, vector_dim, location_tokens)
        self.scale = ScaleConditioner(vector_dim)
        self.layout = LayoutConditioner(patch)

    def forward(self, given: Given) -> Condition:
        """Gather all tokens, sum all vectors."""
        words, word_mask, text_vector = self.text(given.states, given.words, given.has_text)
        embedding = self.location_encoder(given.latlon)
        places, place_vector = self.location(embedding, given.has_location)
        seen = word_mask.new_ones(places.shape[:2])
        return Condition(
            tokens=torch.cat([places, words], dim=1),
            mask=torch.cat([seen, word_mask], dim=1),
            vector=text_vector + place_vector + self.scale(given.gsd_m),
            hint=self.layout(given.classes, given.has_layout),
        )


class Standardised(nn.Module):
    """A linear layer on features that are first brought to mean zero and deviation one.

    Vectors of a shared space have much in common; what tells them apart must not be lost beside it.
    """

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features_out)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(features_in))
        self.register_buffer("deviation", torch.ones(features_in))

    def fit(self, vectors: Float[Tensor, "n _dim"]) -> None:
        """Take mean and deviation from examples."""
        self.mean.copy_(vectors.mean(0))
        self.deviation.copy_(vectors.std(0).clamp_min(1e-4))

    def forward(self, vectors: Float[Tensor, "batch _dim"]) -> Float[Tensor, "batch _out"]:
        """Standardise and map."""
        return self.linear((vectors - self.mean) / self.deviation)


class SoundConditioner(ModelMixin, ConfigMixin):
    """What a trained denoiser is told besides: an embedding of a space of sounds and places.

    A clip, a sentence and a tile are embedded alike, so each of them can steer. Several spaces may
    have their own way in; the rest is shared. It is trained on a denoiser that does not move, and a
    render without a sound is not touched by it at all.
    """

    @register_to_config
    def __init__(
        self,
        spaces: Mapping[str, int],
        token_dim: int = 128,
        vector_dim: int = 256,
        num_tokens: int = 4,
        width: int = 256,
        made_for: Mapping[str, str] | None = None,
    ) -> None:
        """Build an untrained conditioner.

        Args:
            spaces: Name of each space, and the dimensions of its vectors.
            token_dim: Of the denoiser's tokens.
            vector_dim: Of the denoiser's vector.
            num_tokens: How many tokens a sound becomes.
            width: Of the hidden layer.
            made_for: Name -> SHA-256 of the denoiser and of the spaces that it was trained with.
        """
        super().__init__()
        self.read = nn.ModuleDict({name: Standardised(dim, width) for name, dim in spaces.items()})
        self.to_tokens = nn.Sequential(
            nn.GELU(),
            nn.Linear(width, num_tokens * token_dim),
            nn.Unflatten(-1, (num_tokens, token_dim)),
            nn.LayerNorm(token_dim),
        )
        last = nn.Linear(width, vector_dim)
        nn.init.zeros_(last.weight)  # begin as the denoiser that was there before
        nn.init.zeros_(last.bias)
        self.to_vector = nn.Sequential(nn.GELU(), last)
        self.null_tokens = nn.Parameter(0.02 * torch.randn(num_tokens, token_dim))
        self.null_vector = nn.Parameter(torch.zeros(vector_dim))

    def forward(
        self,
        condition: Condition,
        space: str,
        vectors: Float[Tensor, "batch embed"],
        keep: Bool[Tensor, " batch"],
    ) -> Condition:
        """Add a sound to a condition; where ``keep`` is false, the learned null.

        Args:
            condition: What the denoiser is told already.
            space: Which space the vectors are of.
            vectors: Unit vectors.
            keep: Which samples have a sound.

        Raises:
            ConfigError: It was not trained with this space.
        """
        if space not in self.read:
            raise ConfigError(
                f"space {space!r} has no way in here (one of {', '.join(self.read)}; train "
                "the conditioner with it)"
            )
        hidden = self.read[space](vectors)
        tokens = torch.where(keep[:, None, None], self.to_tokens(hidden), self.null_tokens)
        vector = torch.where(keep[:, None], self.to_vector(hidden), self.null_vector)
        seen = condition.mask.new_ones(tokens.shape[:2])
        return replace(
            condition,
            tokens=torch.cat([condition.tokens, tokens], dim=1),
            mask=torch.cat([condition.mask, seen], dim=1),
            vector=condition.vector + vector,
        )


class StyleConditioner(ModelMixin, ConfigMixin):
    """What a trained denoiser is told besides: the looks of a place, a climate, or who lives there.

    Each part becomes tokens and a vector of its own, so that each can be exchanged alone: the
    visual part of RANGE and its place part, the variables of a climate, an embedding of a taxon.
    It is trained on a denoiser that does not move; where no part is given, it is not asked at all.
    """

    @register_to_config
    def __init__(
        self,
        parts: Mapping[str, int],
        token_dim: int = 128,
        vector_dim: int = 256,
        num_tokens: int = 2,
        width: int = 256,
        made_for: Mapping[str, str] | None = None,
    ) -> None:
        """Build an untrained conditioner.

        Args:
            parts: Name of each part, and the dimensions of its vectors.
            token_dim: Of the denoiser's tokens.
            vector_dim: Of the denoiser's vector.
            num_tokens: How many tokens each part becomes.
            width: Of the hidden layers.
            made_for: Name -> SHA-256 of the denoiser and of the encoders that it was trained with.
        """
        super().__init__()
        self.ways = nn.ModuleDict(
            {
                name: _Way(dim, width, token_dim, vector_dim, num_tokens)
                for name, dim in parts.items()
            }
        )

    def fit(self, part: str, vectors: Float[Tensor, "n _dim"]) -> None:
        """Take mean and deviation of a part from examples."""
        self._way(part).read.fit(vectors)

    def deviation(self, part: str) -> Float[Tensor, " _dim"]:
        """Give the deviation of the examples of a part."""
        return self._way(part).read.deviation

    def _way(self, part: str) -> "_Way":
        way = self.ways[part]
        if not isinstance(way, _Way):
            raise ConfigError(f"{part!r} is no part of a style (one of {', '.join(self.ways)})")
        return way

    def forward(
        self,
        condition: Condition,
        told: Mapping[str, tuple[Float[Tensor, "batch _dim"], Bool[Tensor, " batch"]]],
    ) -> Condition:
        """Add what is told to a condition; what is not told is the learned null of its part.

        Args:
            condition: What the denoiser is told already.
            told: Name of a part -> its vectors, and which samples have it.

        Raises:
            ConfigError: It was not trained with such a part, or its vectors have other dimensions.
        """
        for name, (vectors, _) in told.items():
            dim = self.config["parts"].get(name)
            if vectors.shape[1] != dim:
                raise ConfigError(
                    f"{name!r} with vectors of {vectors.shape[1]} dimensions has no way in here "
                    f"(parts and dimensions: {dict(self.config['parts'])})"
                )
        added = [
            way(*told[name]) if name in told else self._way(name).nothing(len(condition.vector))
            for name, way in self.ways.items()
        ]
        tokens = torch.cat([each for each, _ in added], dim=1)
        seen = condition.mask.new_ones(tokens.shape[:2])
        return replace(
            condition,
            tokens=torch.cat([condition.tokens, tokens], dim=1),
            mask=torch.cat([condition.mask, seen], dim=1),
            vector=condition.vector + sum(vector for _, vector in added),
        )


class _Way(nn.Module):
    """One part to tokens and a vector."""

    def __init__(
        self, features: int, width: int, token_dim: int, vector_dim: int, num_tokens: int
    ) -> None:
        super().__init__()
        self.read = Standardised(features, width)
        self.hidden = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.to_tokens = nn.Sequential(
            nn.Linear(width, num_tokens * token_dim),
            nn.Unflatten(-1, (num_tokens, token_dim)),
            nn.LayerNorm(token_dim),
        )
        self.to_vector = nn.Linear(width, vector_dim)
        nn.init.zeros_(self.to_vector.weight)  # begin as the denoiser that was there before
        nn.init.zeros_(self.to_vector.bias)
        self.null_tokens = nn.Parameter(0.02 * torch.randn(num_tokens, token_dim))
        self.null_vector = nn.Parameter(torch.zeros(vector_dim))

    def forward(
        self, vectors: Float[Tensor, "batch features"], keep: Bool[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch vector"]]:
        hidden = self.hidden(self.read(vectors))
        tokens = torch.where(keep[:, None, None], self.to_tokens(hidden), self.null_tokens)
        return tokens, torch.where(keep[:, None], self.to_vector(hidden), self.null_vector)

    def nothing(
        self, count: int
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch vector"]]:
        return self.null_tokens.expand(count, -1, -1), self.null_vector.expand(count, -1)
