"""What a shared space of places and sounds is worth on places and clips that it has not seen.

Pairs are those of :mod:`training.sound_pairs`; where their places are simulated, so are the scores
of everything that has a place in it.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import default_collate

from generation.encoders.heads import Embedding
from generation.encoders.sound_space import SoundSpace
from training.evaluate_controls import Scores
from training.ranks import Rule, chance, ranks, summary
from training.train_binding import SoundPairs, embed

Parts = Mapping[str, Embedding]
WAYS = (("image", "audio"), ("audio", "image"), ("text", "audio"), ("audio", "text"))
_BATCH = 32


@torch.no_grad()
def embed_all(
    space: SoundSpace, dataset: SoundPairs, known: Literal["all", "none"] = "all"
) -> Parts:
    """Embed every pair; ``known="none"`` keeps place, month and hour to itself."""
    parts: dict[str, list[Embedding]] = {"image": [], "audio": [], "text": []}
    for start in range(0, len(dataset), _BATCH):
        rows = range(start, min(start + _BATCH, len(dataset)))
        batch: dict[str, Tensor] = default_collate([dataset[row, 0] for row in rows])
        if known == "none":
            for name in ("latlon", "month", "hour"):
                batch[name] = torch.full_like(batch[name], float("nan"))
        for part, embedding in zip(parts.values(), embed(space, batch), strict=True):
            part.append(embedding)
    return {name: Embedding.cat(every) for name, every in parts.items()}


def measure(
    space: SoundSpace, dataset: SoundPairs, *, seed: int = 0, rule: Rule = "inclusive"
) -> tuple[Scores, Scores]:
    """Score retrieval in four directions.

    Returns:
        The scores, named ``image_to_audio/recall_at_10_percent`` and so on; and their controls:
        chance, pairs that were shuffled, and, where metadata join the image, the image without
        them.
    """
    metrics, controls = Scores(), Scores()
    cells = dataset.pairs[:, 0].astype(np.int64)
    parts = embed_all(space, dataset)
    other = np.random.default_rng(seed).permutation(len(dataset))
    for a, b in WAYS:
        way = f"{a}_to_{b}"
        _add(metrics, way, "", parts[a], parts[b], cells, seed, rule)
        moved = parts[b][torch.from_numpy(other)]
        _add(controls, way, "_shuffled", parts[a], moved, cells, seed, rule)
        for name, value in chance(len(dataset), rule).items():
            controls.add(f"{way}/{name}_chance", value)
    if space.config["joined"] != "none":
        alone = embed_all(space, dataset, "none")
        for a, b in WAYS[:2]:
            way = f"{a}_to_{b}"
            _add(controls, way, "_without_metadata", alone[a], alone[b], cells, seed, rule)
    return metrics, controls


def _add(
    scores: Scores,
    way: str,
    suffix: str,
    queries: Embedding,
    gallery: Embedding,
    cells: Int[np.ndarray, " n"],
    seed: int,
    rule: Rule,
) -> None:
    for name, value in summary(ranks(queries, gallery), cells, seed=seed, rule=rule).items():
        scores.add(f"{way}/{name}{suffix}", *value)
