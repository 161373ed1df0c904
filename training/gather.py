"""Negatives from all processes, and large batches on small memories.

A contrastive loss compares all with all, so its batch cannot be cut into parts whose losses are
added: the parts would be told from fewer negatives. Here the *embeddings* are computed part by part
and process by process, and the loss sees all of them at once.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from generation.encoders.heads import Embedding

Name = TypeVar("Name", bound=str)
Batch = Mapping[str, Tensor]


def gathered(embedding: Embedding) -> Embedding:
    """Join the batches of all processes, in the order of their ranks; gradients find the way back.

    Every process then computes the whole loss. A gradient comes back to its process as the sum over
    all of them, of which the mean that distributed training takes is the gradient of the one loss.
    """
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return embedding
    from torch.distributed.nn.functional import all_gather

    def joined(part: Tensor) -> Tensor:
        return torch.cat(all_gather(part.contiguous()))

    log_variance, weights = embedding.log_variance, embedding.weights
    return Embedding(
        joined(embedding.vector),
        None if log_variance is None else joined(log_variance),
        None if weights is None else joined(weights),
    )


def in_parts(
    embed: Callable[[Batch], dict[Name, Embedding]], batch: Batch, size: int
) -> dict[Name, Embedding]:
    """Embed a batch in parts, of which only the embeddings are kept until the gradient comes back.

    What lies between is computed a second time then, so the memory is that of one part and the
    result is that of the whole batch, with the same random numbers.

    Args:
        embed: Embeds a batch, each modality.
        batch: Tensors with the samples along their first axis.
        size: Samples of a part; 0 for all at once.

    Source:
        Gao et al., "Scaling deep contrastive learning batch size under memory limited setup"
        (GradCache, 2021), by recomputation inside autograd.
    """
    count = len(next(iter(batch.values())))
    if not size or size >= count:
        return embed(batch)
    parts = [
        checkpoint(
            embed, {k: v[start : start + size] for k, v in batch.items()}, use_reentrant=False
        )
        for start in range(0, count, size)
    ]
    return {name: Embedding.cat([part[name] for part in parts]) for name in parts[0]}
