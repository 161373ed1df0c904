"""The real tiles that an evaluation compares with, and what a model is told about each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from generation.errors import ConfigError
from generation.geo.layers import EmbeddedSource
from generation.geo.layout import LAYERS
from generation.geo.mercator import Window
from training.captions import compose
from training.data import TileRow, read_rows
from training.faithfulness import Classes
from training.metrics import Images


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Real tiles in the order of their names, with their conditions."""

    names: list[str]
    images: Images
    classes: Classes
    """Layouts: the embedded world layers, and over them the tile's real roads."""
    windows: list[Window]
    captions: list[str]
    climates: Int[np.ndarray, " n"]
    """Köppen classes; only whether two are equal counts."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Int[np.ndarray, " k"]) -> "Tiles":
        """Return some of the tiles, in the order of ``rows``."""
        return Tiles(
            names=[self.names[row] for row in rows],
            images=self.images[rows],
            classes=self.classes[rows],
            windows=[self.windows[row] for row in rows],
            captions=[self.captions[row] for row in rows],
            climates=self.climates[rows],
        )

    def cells(self, degrees: int) -> Int[np.ndarray, " n"]:
        """Return for each tile a number of its cell on a grid of so many degrees."""
        centres = np.array([(w.center.lat + 90, w.center.lon + 180) for w in self.windows])
        row, column = np.floor(centres / degrees).astype(np.int64).T
        return row * (360 // degrees + 1) + column

    def shares(self) -> Float[np.ndarray, "n classes"]:
        """Return how much of each tile every layout class covers."""
        flat = self.classes.reshape(len(self), -1)
        return np.stack([(flat == index).mean(1) for index in range(len(LAYERS))], 1)


def read_tiles(files: Sequence[Path], *, limit: int | None = None, seed: int = 0) -> Tiles:
    """Read tiles with their layouts and captions.

    Args:
        files: Parquet files in the schema of :mod:`training.data`.
        limit: Keep so many tiles, spread evenly over the sorted names; ``None`` keeps all.
        seed: Decides the wording of the captions, tile by tile; a tile's caption does not depend on
            which other tiles are kept.

    Raises:
        ConfigError: There are no tiles, or a limit below one was given.
    """
    rows = sorted(read_rows([str(file) for file in files]), key=lambda row: row.tile_id)
    if not rows or (limit is not None and limit < 1):
        raise ConfigError(
            f"no tile to measure: {len(rows)} in the files, limit {limit} "
            "(at least one is needed; raise --limit or name other files in --data)"
        )
    if limit is not None and limit < len(rows):
        rows = [rows[index] for index in evenly(len(rows), limit)]
    source = EmbeddedSource()
    layouts = [row.classes(source, roads=True) for row in rows]
    return Tiles(
        names=[row.tile_id for row in rows],
        images=np.stack([row.image for row in rows]),
        classes=np.stack(layouts),
        windows=[row.window for row in rows],
        captions=[_caption(row, layout, seed) for row, layout in zip(rows, layouts, strict=True)],
        climates=np.array([int(row.figures["koppen"]) for row in rows], dtype=np.int64),
    )


def _caption(row: TileRow, layout: np.ndarray, seed: int) -> str:
    place = [row.window.zoom, row.window.col_px, row.window.row_px]
    return compose(row.figures, layout, row.image, np.random.default_rng([seed, *place]))


def evenly(total: int, count: int) -> Int[np.ndarray, " count"]:
    """Return ``count`` of the indices below ``total``, evenly spread: the fixed rule of choice."""
    return (np.arange(count) * total) // count


def partners(groups: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """Return for each item another one, each once, of another group wherever that is possible.

    Sorting by group and shifting by the size of the largest group takes every item out of its own,
    as long as no group holds more than half of all.

    Raises:
        ConfigError: A single item has no partner.
    """
    count = len(groups)
    if count < 2:
        raise ConfigError(f"{count} tile cannot be shuffled (give at least two; raise --limit)")
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.permutation(count), groups))
    largest = int(np.unique(groups, return_counts=True)[1].max())
    shift = min(max(1, largest), count - 1)
    result = np.empty(count, dtype=np.int64)
    result[order] = np.roll(order, -shift)
    return result
