"""What a shared space of places and sounds is worth on places and clips that it has not seen.

Pairs are those of :mod:`training.sound_pairs`; where their places are simulated, so are the scores
of everything that has a place in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import default_collate

from generation.encoders.heads import Embedding
from generation.encoders.sound_space import MODALITIES, Modality, SoundSpace
from training.evaluate_controls import Scores
from training.ranks import Ranks, Rule, both_ranks, chance, ranks, summary
from training.sound_samples import SoundPairs
from training.train_binding import embed

Parts = Mapping[Modality, Embedding]
PAIRS: tuple[tuple[Modality, Modality], ...] = (
    ("image", "audio"),
    ("text", "image"),  # up to here: what is known joins the image
    ("text", "audio"),
)
_WITH_IMAGE = 2
_BATCH = 32


@torch.no_grad()
def embed_all(
    space: SoundSpace, dataset: SoundPairs, known: Literal["all", "none"] = "all"
) -> Parts:
    """Embed every pair; ``known="none"`` keeps place, month and hour to itself."""
    parts: list[dict[Modality, Embedding]] = []
    for start in range(0, len(dataset), _BATCH):
        rows = range(start, min(start + _BATCH, len(dataset)))
        batch: dict[str, Tensor] = default_collate([dataset[row, 0] for row in rows])
        if known == "none":
            for name in ("latlon", "month", "hour"):
                batch[name] = torch.full_like(batch[name], float("nan"))
        parts.append(embed(space, MODALITIES, batch))
    return {name: Embedding.cat([part[name] for part in parts]) for name in MODALITIES}


def measure(
    space: SoundSpace, dataset: SoundPairs, *, seed: int = 0, rule: Rule = "inclusive"
) -> tuple[Scores, Scores]:
    """Score retrieval in six directions.

    Returns:
        The scores, named ``image_to_audio/recall_at_10_percent`` and so on; and their controls:
        chance, pairs that were shuffled, where metadata join the image, the image without them,
        and, where places are simulated, what somebody who knew the rules could reach.
    """
    metrics, controls = Scores(), Scores()
    cells = dataset.pairs[:, 0].astype(np.int64)
    parts = embed_all(space, dataset)
    other = torch.from_numpy(np.random.default_rng(seed).permutation(len(dataset)))

    def add(scores: Scores, way: str, suffix: str, found: Ranks) -> None:
        for name, value in summary(found, cells, seed=seed, rule=rule).items():
            scores.add(f"{way}/{name}{suffix}", *value)

    for way, found in _both_ways(parts, PAIRS):
        add(metrics, way, "", found)
    for a, b in (way for pair in PAIRS for way in (pair, pair[::-1])):
        add(controls, f"{a}_to_{b}", "_shuffled", ranks(parts[a], parts[b][other]))
        for name, value in chance(len(dataset), rule).items():
            controls.add(f"{a}_to_{b}/{name}_chance", value)
    if dataset.plausible is not None:
        best = ranks(*rule_embeddings(dataset.plausible, dataset.labels))
        add(controls, "image_to_audio", "_ceiling", best)
    if space.config["joined"] != "none":
        alone = embed_all(space, dataset, "none")
        for way, found in _both_ways(alone, PAIRS[:_WITH_IMAGE]):
            add(controls, way, "_without_metadata", found)
    return metrics, controls


def _both_ways(
    parts: Parts, pairs: Sequence[tuple[Modality, Modality]]
) -> Iterator[tuple[str, Ranks]]:
    """Name each direction of each pair, and give its ranks."""
    for a, b in pairs:
        there, back = both_ranks(parts[a], parts[b])
        yield f"{a}_to_{b}", there
        yield f"{b}_to_{a}", back


def rule_embeddings(
    plausible: Float[np.ndarray, "pairs sounds"], labels: Int[np.ndarray, " pairs"]
) -> tuple[Embedding, Embedding]:
    """Stand in for a space that knows the rules by which the places were simulated, and no more.

    A place is the probability of each sound there, a sound is its label; sounds of one label tie.

    Args:
        plausible: How much of each sound's pairs lies on the tile of a pair.
        labels: Which sound a pair has.
    """
    share = plausible / plausible.sum(1, keepdims=True)
    heard = np.eye(plausible.shape[1])[labels]
    return tuple(Embedding(torch.from_numpy(each).float()) for each in (share, heard))  # type: ignore[return-value]
