"""Snapshots that survive a crash at any moment.

A snapshot is written to a staging folder, its manifest (a sha256 for each file) last; then the
folder is renamed; then old ones are removed. A folder without a true manifest is no snapshot, and
resuming falls back to the one before it.
"""

import itertools
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from generation.checkpoint import load_safetensors, read_shapes, save_safetensors, sha256_file
from generation.errors import TerrascapeError

_TENSORS = ("weights.safetensors", "average.safetensors", "moments.safetensors")
_FILES = (*_TENSORS, "state.json")
_NAME = re.compile(r"step-(\d{8,})")
_BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, TerrascapeError)
"""What reading a damaged snapshot may raise."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is needed to go on."""

    step: int
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    record: str = field(default="")


def write_snapshot(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write a snapshot whole or not at all, then remove all but the newest ``keep``.

    The one just written counts as the newest, whatever lies beside it: those of later steps belong
    to a course that the run has left, since it went back behind them. They go, and so do broken
    ones; only whole ones before it take the other ``keep - 1`` places.
    """
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
    before = (old for old in _folders(folder) if _step(old) < snapshot.step and _seems_whole(old))
    kept = {final, *itertools.islice(before, keep - 1)}
    for old in _folders(folder):
        if old not in kept:
            shutil.rmtree(old)
    return final


def newest(folder: Path) -> Snapshot | None:
    """Give the newest whole snapshot, or none; broken ones are passed over."""
    for candidate in _folders(folder):
        try:
            manifest = json.loads((candidate / "manifest.json").read_text())
            if all(sha256_file(candidate / n) == manifest.get(n) for n in _FILES):
                return _read(candidate)
        except _BROKEN:
            continue
    return None


def _folders(folder: Path) -> list[Path]:
    """Newest first; what has another name, such as a copy made by hand, is none of ours."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _seems_whole(folder: Path) -> bool:
    """Tell a broken snapshot without reading its weights, which may be gigabytes.

    Every file must be in the manifest, each weight file as long as its header says, and the state
    have its sha256. A flipped bit among the weights is found by ``newest`` alone, which has hashed
    the one that a run goes on from; those after it were hashed when they were written.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name in _TENSORS:
            read_shapes(folder / name)
        known = all(isinstance(manifest[name], str) for name in _FILES)
        return known and sha256_file(folder / "state.json") == manifest["state.json"]
    except _BROKEN:
        return False


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
