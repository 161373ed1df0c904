"""Pipelines as folders: parts in diffusers' layout, saved and loaded whole."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from generation.atomic import atomic_folder
from generation.checkpoint import load_part, save_part
from generation.errors import MissingFileError, WeightsError
from generation.registry import find, locate
from generation.spec import RunSpec

INDEX = "model_index.json"
_EXACT = ("codec",)
"""Parts that are small and lose by half precision."""


def save_whole(pipeline: Any, parts: Mapping[str, type], folder: Path, *, half: bool) -> None:  # noqa: ANN401
    """Save the parts of a pipeline, its scheduler and an index of them, all or nothing.

    Args:
        pipeline: Has each part, and ``scheduler``, as an attribute.
        parts: Their names and classes.
        folder: Where to.
        half: Whether weights are saved in half precision.
    """
    index = {name: ["generation", part.__name__] for name, part in parts.items()}
    with atomic_folder(folder) as staging:
        for name in parts:
            save_part(getattr(pipeline, name), staging / name, half=half and name not in _EXACT)
        pipeline.scheduler.save_pretrained(staging / "scheduler")
        (staging / INDEX).write_text(
            json.dumps({"_class_name": type(pipeline).__name__, **index}, indent=2) + "\n"
        )


def load_parts(parts: Mapping[str, type], folder: Path, what: str) -> dict[str, Any]:
    """Load the parts that :func:`save_whole` saved, every tensor checked.

    Args:
        parts: Their names and classes.
        folder: Where they lie.
        what: The kind of pipeline, for people.

    Raises:
        MissingFileError: The folder holds no such pipeline.
        WeightsError: A file is damaged, or does not fit its configuration.
    """
    if not (folder / INDEX).is_file():
        raise MissingFileError(
            f"{folder} holds no {what} pipeline: {INDEX} is not there (give the folder that a "
            "training run or save_pretrained wrote)"
        )
    return {name: load_part(part, folder / name) for name, part in parts.items()}


def stamped(name: str) -> tuple[Path, tuple[float, ...]]:
    """Give the folder of a registered model and what changes when its weights do.

    Raises:
        MissingFileError: It is not on this machine.
        WeightsError: The folder holds no weights.
    """
    folder = locate(name)
    stamp = tuple(p.stat().st_mtime for p in sorted(folder.rglob("*.safetensors")))
    if not stamp:
        raise WeightsError(f"{folder} holds no .safetensors (restore the model's folder)")
    return folder, stamp


def made_by(spec: RunSpec, pipeline: Any, *, seconds: float, online: bool) -> dict[str, object]:  # noqa: ANN401
    """Tell which weights, which software and which machine made a picture."""
    return {
        "model": spec.model,
        "model_sha256": pipeline.sha256,
        "licence": find(spec.model).licence,
        "device": str(pipeline.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
        "online": online,
        "synthetic": True,
    }
