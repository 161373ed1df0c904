"""Weights of large language models of transformers, held to be whole before they are used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from generation.checkpoint import load_safetensors
from generation.errors import WeightsError


def open_whole(
    kinds: tuple[Any, Any], folder: Path, files: Sequence[Path], name: str, half: torch.dtype
) -> tuple[Any, Any]:
    """Open a reader of text, or of more, and its model, which is frozen.

    Args:
        kinds: The classes of transformers: of the tokenizer or processor, and of the model.
        folder: Where both lie.
        files: Its weights, which are read once to see that they are whole, finite and no pickle.
        name: What messages call the model.
        half: The precision on a GPU, where there is one.

    Raises:
        WeightsError: A file is damaged, or one is missing.
    """
    for file in files:
        load_safetensors(file)
    gpu = torch.cuda.is_available()
    reader_kind, model_kind = kinds
    try:
        reader = reader_kind.from_pretrained(folder, local_files_only=True)
        model, told = model_kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=half if gpu else torch.float32,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise WeightsError(
            f"{folder} is no whole {name}: {' '.join(str(error).split())[:160]} (download it again)"
        ) from error
    if lacking := sorted(told["missing_keys"]):
        raise WeightsError(
            f"{folder}: {', '.join(lacking[:3])} is missing ({len(lacking)} such; use the weights "
            "that its config.json was saved with)"
        )
    return reader, model.to("cuda" if gpu else "cpu").eval().requires_grad_(False)
