"""Heads of a shared space: from the tokens of one modality to what modalities are compared by.

Three published systems differ here and almost nowhere else: a unit vector (GeoCLAP), a Gaussian
(PSM) and a sparse mixture of shared codes (Sat2Sound). All take ``(modality, tokens, mask)`` and
give an :class:`Embedding`; :func:`likeness` compares two batches of any of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.errors import ConfigError

Compat = Literal["right", "mvrl"]
"""``mvrl`` computes what the published code computes, also where that is a slip."""
START_LOG_VARIANCE = -4.0
EPS = 1e-8


@dataclass(frozen=True, slots=True)
class Embedding:
    """A batch in a shared space."""

    vector: Float[Tensor, "batch dim"]
    """What is compared; of unit length but for a mixture of codes, which is summed before."""
    log_variance: Float[Tensor, "batch dim"] | None = None
    """Of a Gaussian: the logarithm of its variance along each axis."""
    weights: Float[Tensor, "batch codes"] | None = None
    """Of a mixture: the share of each code, most of them zero."""

    def __len__(self) -> int:
        return len(self.vector)

    def __getitem__(self, rows: slice | Tensor) -> "Embedding":
        """Take some of the batch."""
        log_variance, weights = (
            None if part is None else part[rows] for part in (self.log_variance, self.weights)
        )
        return Embedding(self.vector[rows], log_variance, weights)

    @classmethod
    def cat(cls, parts: "Sequence[Embedding]") -> "Embedding":
        """Join batches of one head."""

        def joined(every: list[Tensor | None]) -> Tensor | None:
            there = [part for part in every if part is not None]
            return torch.cat(there) if there else None

        return cls(
            torch.cat([part.vector for part in parts]),
            joined([part.log_variance for part in parts]),
            joined([part.weights for part in parts]),
        )

    @property
    def uncertainty(self) -> Float[Tensor, " batch"]:
        """The sum of a Gaussian's standard deviations over its axes; zero for a point.

        Source:
            Khanal et al., "PSM: learning probabilistic embeddings for multi-scale zero-shot
            soundscape mapping" (ACM MM 2024).
        """
        if self.log_variance is None:
            return self.vector.new_zeros(len(self))
        return torch.exp(self.log_variance / 2).sum(1)


def unit(vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Scale vectors to unit length; a vector of zeros stays one."""
    return F.normalize(vectors, dim=-1, eps=EPS)


def masked_mean(
    tokens: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """Average the tokens that are there."""
    weight = mask.to(tokens.dtype)
    return (tokens * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(1)


def sparsemax(scores: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Project scores on the probability simplex: like softmax, with exact zeros.

    Source:
        Martins and Astudillo, "From softmax to sparsemax" (2016), Algorithm 1.
    """
    ordered = scores.sort(dim=-1, descending=True).values
    total = ordered.cumsum(-1)
    rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
    support = (1 + rank * ordered > total).sum(-1, keepdim=True)
    threshold = (total.gather(-1, support - 1) - 1) / support
    return (scores - threshold).clamp_min(0)


def gaussian_distance(a: Embedding, b: Embedding) -> Float[Tensor, "rows cols"]:
    """Give the expected squared distance of a draw from each Gaussian of ``a`` and of ``b``.

    Source:
        Chun, "Improved probabilistic image-text representations" (PCME++, 2024):
        ``|mean - mean'|^2 + sum(variance + variance')``.
    """
    if a.log_variance is None or b.log_variance is None:
        raise ConfigError(
            "a point has no variance, so it has no distance to a Gaussian (compare two batches of "
            "one head)"
        )
    apart = a.vector.square().sum(1)[:, None] + b.vector.square().sum(1) - 2 * a.vector @ b.vector.T
    spread = a.log_variance.exp().sum(1)[:, None] + b.log_variance.exp().sum(1)
    return apart.clamp_min(0) + spread


def likeness(a: Embedding, b: Embedding) -> Float[Tensor, "rows cols"]:
    """Compare every row of ``a`` with every row of ``b``: higher is more alike.

    Gaussians are compared by their negative distance, everything else by the cosine.
    """
    if a.log_variance is not None or b.log_variance is not None:
        return -gaussian_distance(a, b)
    return unit(a.vector) @ unit(b.vector).T


class PooledHead(nn.Module):
    """Average, project, scale to unit length.

    Source:
        Khanal et al., "Learning tri-modal embeddings for zero-shot soundscape mapping" (GeoCLAP,
        BMVC 2023).
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.project = nn.ModuleDict({name: nn.Linear(size, dim) for name, size in dims.items()})

    def forward(
        self,
        modality: str,
        tokens: Float[Tensor, "batch tokens _dim"],
        mask: Bool[Tensor, "batch tokens"],
    ) -> Embedding:
        """Return unit vectors."""
        return Embedding(unit(self.project[modality](masked_mean(tokens, mask))))


def _mlp(dim_in: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim_in, dim), nn.GELU(), nn.Linear(dim, dim))


class GaussianHead(nn.Module):
    """Average, then a unit mean and a log-variance for each axis.

    Source:
        PSM. What its code names a standard deviation is a log-variance; both layers that
        give it begin with biases of -4, so that learning begins from narrow Gaussians.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.mean = nn.ModuleDict({name: _mlp(size, dim) for name, size in dims.items()})
        self.log_variance = nn.ModuleDict({name: _mlp(size, dim) for name, size in dims.items()})
        for layer in self.log_variance.modules():
            if isinstance(layer, nn.Linear):
                nn.init.constant_(layer.bias, START_LOG_VARIANCE)

    def forward(
        self,
        modality: str,
        tokens: Float[Tensor, "batch tokens _dim"],
        mask: Bool[Tensor, "batch tokens"],
    ) -> Embedding:
        """Return unit means and log-variances."""
        pooled = masked_mean(tokens, mask)
        return Embedding(unit(self.mean[modality](pooled)), self.log_variance[modality](pooled))


class CodebookHead(nn.Module):
    """Each code takes the token that fits it best; the codes are mixed by sparsemax.

    Source:
        Chen et al., "Revisiting multimodal representation in contrastive learning: from patch and
        token embeddings to finite discrete tokens" (CVPR 2023), as Khanal et al. use it in
        "Sat2Sound" (2025).

    Where a batch has filled-up tokens, the published code gives them a score of zero, which wins
    whenever all real scores of a code are negative: an embedding then depends on how long the
    longest text of its batch was. Here they never win; ``compat="mvrl"`` scores them as published.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int,
        codes: int,
        *,
        temperature: float = 1000.0,
        compat: Compat = "right",
    ) -> None:
        super().__init__()
        self.temperature, self.compat = temperature, compat
        self.codes = nn.Parameter(torch.randn(codes, dim))
        self.query = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.LayerNorm(size),
                    nn.Linear(size, dim),
                    nn.GELU(),
                    nn.LayerNorm(dim),
                    nn.Linear(dim, dim),
                )
                for name, size in dims.items()
            }
        )

    def scores(
        self,
        modality: str,
        tokens: Float[Tensor, "batch tokens _dim"],
        mask: Bool[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch tokens codes"]:
        """Say how well each token fits each code; the map that explains a match."""
        query = self.query[modality](tokens)
        scores = query @ self.codes.T / math.sqrt(self.codes.shape[1])
        filled = 0.0 if self.compat == "mvrl" else -math.inf
        return scores.masked_fill(~mask[..., None], filled) / self.temperature

    def forward(
        self,
        modality: str,
        tokens: Float[Tensor, "batch tokens _dim"],
        mask: Bool[Tensor, "batch tokens"],
    ) -> Embedding:
        """Return mixtures of codes, not scaled, so that two of them may be summed."""
        if not bool(mask.any(1).all()):
            raise ConfigError("a sample has no token at all (give each at least one)")
        weights = sparsemax(self.scores(modality, tokens, mask).amax(1))
        return Embedding(weights @ self.codes, weights=weights)
