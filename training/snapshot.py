"""Snapshots that survive a crash at any moment.

A snapshot is written to a staging folder, its manifest (a sha256 for each file) last; then the
folder is renamed; then old ones are removed. A folder without a true manifest is no snapshot, and
resuming falls back to the one before it.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from generation.checkpoint import load_safetensors, save_safetensors, sha256_file
from generation.errors import TerrascapeError

_FILES = ("weights.safetensors", "average.safetensors", "moments.safetensors", "state.json")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is needed to go on."""

    step: int
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    record: str = field(default="")


def write_snapshot(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write a snapshot whole or not at all, then remove all but the newest ``keep``."""
    final = folder / f"step-{snapshot.step:08d}"
    staging = folder / f".{final.name}.writing"
    for left_over in folder.glob(".step-*.writing"):  # of a run that was cut off
        shutil.rmtree(left_over, ignore_errors=True)
    staging.mkdir(parents=True)
    moments, rest = _split(snapshot.optimizer)
    save_safetensors(dict(snapshot.weights), staging / "weights.safetensors")
    save_safetensors(dict(snapshot.average), staging / "average.safetensors")
    save_safetensors(moments, staging / "moments.safetensors")
    state = {"step": snapshot.step, "optimizer": rest, "record": snapshot.record}
    (staging / "state.json").write_text(json.dumps(state))
    manifest = {name: sha256_file(staging / name) for name in _FILES}
    with (staging / "manifest.json").open("w") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    for old in _folders(folder)[keep:]:
        shutil.rmtree(old)
    return final


def newest(folder: Path) -> Snapshot | None:
    """Give the newest whole snapshot, or none; broken ones are passed over."""
    for candidate in _folders(folder):
        try:
            manifest = json.loads((candidate / "manifest.json").read_text())
            if all(sha256_file(candidate / n) == manifest.get(n) for n in _FILES):
                return _read(candidate)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, TerrascapeError):
            continue
    return None


def _folders(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def _read(folder: Path) -> Snapshot:
    state = json.loads((folder / "state.json").read_text())
    return Snapshot(
        step=state["step"],
        weights=load_safetensors(folder / "weights.safetensors"),
        average=load_safetensors(folder / "average.safetensors"),
        optimizer=_join(load_safetensors(folder / "moments.safetensors"), state["optimizer"]),
        record=state["record"],
    )


def _split(optimizer: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Part an optimiser's state into tensors and JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entry in optimizer["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    return tensors, {"numbers": numbers, "groups": optimizer["param_groups"]}


def _join(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.clone()
    for index, entry in rest["numbers"].items():
        state.setdefault(int(index), {}).update(entry)
    return {"state": state, "param_groups": rest["groups"]}
