"""What a conversion took, what it left and why; and the files that it writes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from generation.atomic import atomic_path

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = Mapping[str, "torch.Tensor"]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
REPORT_NAME = "conversion.json"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What became of a foreign file, key by key."""

    kind: str
    source: str
    """The file's name, without its folder."""
    source_sha256: str
    mapped: dict[str, str] = field(default_factory=dict)
    """Key in the source -> ``folder/key`` in the result."""
    left: dict[str, str] = field(default_factory=dict)
    """Key in the source -> why it was not taken."""
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """What was written, relative to the output folder."""

    def summary(self) -> str:
        """Tell in one line what was taken and what was left."""
        return (
            f"{self.kind}: {len(self.mapped)} tensors of {self.source} converted, "
            f"{len(self.left)} left ({REPORT_NAME} names each), {len(self.notes)} notes"
        )


def shapes_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Name -> shape of tensors in memory."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a readable JSON file, whole or not at all."""
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
