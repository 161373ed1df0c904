"""What was seen and computed for maps, kept on disk so that the next map costs seconds.

Arrays lie in plain ``.npz`` files, one for a block of 32 x 32 cells. What is damaged is computed
again; what was not used for longest goes first when there is too much.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from generation.atomic import atomic_path
from generation.geo.sources import cache_folder

BLOCK = 32
"""Cells along each side of a block."""
CELLS = BLOCK * BLOCK
MAX_BYTES = 4 << 30
UNKNOWN, SEEN, UNSEEN = 0, 1, 2
"""States of a cell: not looked at, looked at, and looked at without finding imagery."""
_TRIM_EVERY = 32


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What is known of a block's cells, row by row."""

    states: UInt8[np.ndarray, " cells"]
    values: np.ndarray
    """One row for each cell; zeros where there is nothing."""

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: type[np.floating]) -> "Block":
        """Give a block of which nothing is known."""
        return cls(np.zeros(CELLS, np.uint8), np.zeros((CELLS, *shape), dtype))

    @property
    def seen(self) -> Bool[np.ndarray, " cells"]:
        """Which cells were seen."""
        return self.states == SEEN

    def missing(self, wanted: Bool[np.ndarray, " cells"]) -> Bool[np.ndarray, " cells"]:
        """Which of the wanted cells are not known."""
        return wanted & (self.states == UNKNOWN)

    def with_cells(
        self,
        cells: Bool[np.ndarray, " cells"],
        seen: Bool[np.ndarray, " asked"],
        values: np.ndarray,
    ) -> "Block":
        """Add what was found of some cells.

        Args:
            cells: Which.
            seen: For each of them, whether there was imagery.
            values: A row for each of them that was seen.
        """
        states, rows = self.states.copy(), self.values.copy()
        states[cells] = np.where(seen, SEEN, UNSEEN)
        rows[np.flatnonzero(cells)[seen]] = values
        return replace(self, states=states, values=rows)


class MapCache:
    """A folder of arrays with a bound on its size.

    Args:
        root: The folder; by default beside the person's other kept answers.
        max_bytes: What all files may take together.
    """

    def __init__(self, root: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.root = root or cache_folder().with_name("maps")
        self.max_bytes = max_bytes
        self._saved = 0

    def shelf(self, **key: object) -> "Shelf":
        """Give the part of the cache for one key, which JSON can hold."""
        text = json.dumps(key, sort_keys=True)
        folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:24]
        return Shelf(self, folder)

    def count_saved(self) -> None:
        """Take note of a new file; from time to time, remove the oldest."""
        self._saved += 1
        if self._saved % _TRIM_EVERY == 0:
            self.trim()

    def trim(self) -> None:
        """Remove what was not used for longest until the rest is within the bound."""
        files = []
        for path in self.root.glob("*/*.npz"):
            with suppress(FileNotFoundError):  # another process was faster
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            with suppress(OSError):  # others lie in it
                path.parent.rmdir()
            total -= size


class Shelf:
    """Arrays under one key, each by its name."""

    def __init__(self, cache: MapCache, folder: Path) -> None:
        self.cache, self.folder = cache, folder

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Give arrays as they were saved; ``None`` if they were not, or are damaged."""
        path = self.folder / f"{name}.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                arrays = {key: found[key] for key in found.files}
            os.utime(path)
        except Exception:  # noqa: BLE001  # damage makes decoders raise errors of every kind
            return None
        return arrays

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays.

        Raises:
            OutputError: The folder cannot be written to, or the disk is full.
        """
        with atomic_path(self.folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # names are ours
        self.cache.count_saved()

    def load_block(self, name: str, shape: tuple[int, ...], dtype: type[np.floating]) -> Block:
        """Give a block; an empty one if there is none of this shape."""
        arrays = self.load(name)
        empty = Block.empty(shape, dtype)
        if arrays is None or set(arrays) != {"states", "values"}:
            return empty
        states, values = arrays["states"], arrays["values"]
        if states.shape != (CELLS,) or states.dtype != np.uint8:
            return empty
        seen = states == SEEN
        if values.shape != (int(seen.sum()), *shape) or values.dtype != dtype:
            return empty
        empty.values[seen] = values
        return replace(empty, states=states)

    def save_block(self, name: str, block: Block) -> None:
        """Keep a block, only the rows of cells that were seen."""
        self.save(name, {"states": block.states, "values": block.values[block.seen]})
