"""Soundscape maps: how much every cell of a region looks like the place of a sound.

Two passes. The towers look at each cell once; then what they saw is joined by place, month and
hour and compared with what was asked for. Both are kept, so another question costs the comparison
alone, and another hour the joining.

Source:
    Khanal et al., "Learning tri-modal embeddings for zero-shot soundscape mapping" (GeoCLAP, BMVC
    2023), §3; with uncertainty: PSM (ACM MM 2024); with patches: Sat2Sound (2025).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from generation.cards import SIMULATED
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_encoder import SoundEncoder
from generation.errors import InvalidSpecError
from generation.geo.grid import MapGrid
from generation.geo.imagery import Imagery
from generation.geo.location import Location
from generation.pipelines.maps_cache import BLOCK, Block, MapCache, Shelf
from generation.registry import places_are_simulated

MIN_SEEN = 0.95
"""The share of a view that imagery must cover; the rest is filled with the mean of what is seen."""
BATCH = 64
"""Cells that go through the image tower together."""
BATCH_TOKENS = 4096
"""Tokens of cells that are joined and embedded together: of one token each, a whole block."""
OnCells = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class SoundMap:
    """A finished map and all that tells it from others."""

    grid: MapGrid
    scores: Float32[np.ndarray, "rows cols"]
    """:func:`generation.encoders.heads.likeness`, higher is more alike; NaN without imagery."""
    uncertainty: Float32[np.ndarray, "rows cols"] | None
    """Of a space of Gaussians: :attr:`generation.encoders.heads.Embedding.uncertainty`."""
    about: dict[str, object]
    """How it was made."""

    @property
    def unit(self) -> str:
        """What the scores are."""
        return "cosine" if self.uncertainty is None else "negative expected squared distance"

    @property
    def unread(self) -> list[str]:
        """What was told of the time and changed nothing."""
        told: Any = self.about["unread"]
        return list(told)

    @property
    def missing(self) -> int:
        """Cells without a score."""
        return int(np.isnan(self.scores).sum())


def sound_map(
    encoder: SoundEncoder,
    imagery: Imagery,
    grid: MapGrid,
    query: Embedding,
    *,
    month: int | None = None,
    hour: float | None = None,
    cache: MapCache | None = None,
    on_cells: OnCells | None = None,
) -> SoundMap:
    """Compare every cell of a grid with what was asked for.

    Args:
        encoder: Its space must be that of the query.
        imagery: What the cells look like.
        grid: The cells.
        query: One sound or sentence.
        month: 1 to 12; not told to the space if absent.
        hour: Local time, 0 to below 24; not told if absent.
        cache: Keeps what was seen; nothing is kept for an encoder that was not loaded from files.
        on_cells: Told how many of the cells are done; what it raises stops the work, and what was
            seen until then is kept.

    Raises:
        InvalidSpecError: There is no such month or hour, the space takes none, the query is not
            one, or the imagery shows nothing of the grid.
    """
    encoder.check_time(month, hour)
    check_reach(imagery, grid)
    if len(query) != 1:
        raise InvalidSpecError(f"{len(query)} queries for one map (give one sound or sentence)")
    cells = _Cells(encoder, imagery, grid, cache if encoder.sha256 else None, (month, hour))
    scores = np.full((grid.rows, grid.cols), np.nan, np.float32)
    uncertainty = np.full_like(scores, np.nan) if cells.gaussian else None
    done = 0
    for row, col, out, inside in _blocks(grid):
        wanted = np.zeros((BLOCK, BLOCK), bool)
        wanted[inside] = True
        block = cells.embedded(row, col, wanted.ravel())
        found = block.seen & wanted.ravel()
        if found.any():
            embedding = cells.unpacked(block.values[found])
            place = found.reshape(BLOCK, BLOCK)[inside]
            scores[out][place] = likeness(query, embedding)[0].cpu().numpy()
            if uncertainty is not None:
                uncertainty[out][place] = embedding.uncertainty.cpu().numpy()
        done += int(wanted.sum())
        if on_cells is not None:
            on_cells(done, grid.rows * grid.cols)
    if np.isnan(scores).all():
        raise _unseen(imagery, grid)
    about = _about(encoder, imagery, grid, month, hour)
    return SoundMap(grid, scores, uncertainty, about)


def check_reach(imagery: Imagery, grid: MapGrid) -> None:
    """Refuse imagery that lies elsewhere, before any work.

    Raises:
        InvalidSpecError: See there.
    """
    if not imagery.reaches(grid.window):
        raise _unseen(imagery, grid)


def _unseen(imagery: Imagery, grid: MapGrid) -> InvalidSpecError:
    return InvalidSpecError(
        f"imagery {imagery.label} shows no view of {grid.view_px} px of this region (it lies at "
        f"{imagery.extent}; choose a region inside, or other imagery)"
    )


def kept_bytes(encoder: SoundEncoder, grid: MapGrid) -> int:
    """Tell how much the cache will hold of a map, about."""
    cells = _Cells(encoder, None, grid, None, (None, None))
    looks = int(np.prod(cells.look_shape)) * np.dtype(cells.look_type).itemsize
    joined = looks if encoder.takes_metadata else 0
    return grid.rows * grid.cols * (joined + 4 * cells.width)


def _about(
    encoder: SoundEncoder, imagery: Imagery, grid: MapGrid, month: int | None, hour: float | None
) -> dict[str, object]:
    region = grid.bounds
    return {
        "model": encoder.name,
        "model_sha256": encoder.sha256,
        "month": month,
        "hour": hour,
        "unread": encoder.unread(month, hour),
        "zoom": grid.zoom,
        "cell_px": grid.cell_px,
        "view_px": grid.view_px,
        "min_seen": MIN_SEEN,
        "bounds": [region.west, region.south, region.east, region.north],
        "imagery": imagery.label,
        "imagery_identity": imagery.identity,
        "imagery_synthetic": imagery.synthetic,
        "attribution": imagery.attribution,
        "location_source": SIMULATED if places_are_simulated(encoder.name) else "",
    }


def _blocks(
    grid: MapGrid,
) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """Give the blocks of a grid: row and column, its cells in the grid, those cells in the block.

    Columns are counted once around the Earth, so a grid over the antimeridian meets the blocks of
    both sides.
    """
    top, left = grid.window.row_px // grid.cell_px, grid.window.col_px // grid.cell_px
    for out_rows, row, rows in _spans(top, grid.rows, None):
        for out_cols, col, cols in _spans(left, grid.cols, grid.world_cells):
            yield row, col, (out_rows, out_cols), (rows, cols)


def _spans(start: int, count: int, period: int | None) -> Iterator[tuple[slice, int, slice]]:
    """Cut a row of cells at the edges of blocks: its part, the block, and the part of that."""
    at = 0
    while at < count:
        cell = start + at if period is None else (start + at) % period
        block, first = divmod(cell, BLOCK)
        length = min(count - at, BLOCK - first)
        if period is not None:
            length = min(length, period - cell)
        yield slice(at, at + length), block, slice(first, first + length)
        at += length


class _Cells:
    """The embeddings of cells: kept ones, and what is missing of them."""

    def __init__(
        self,
        encoder: SoundEncoder,
        imagery: Imagery | None,
        grid: MapGrid,
        cache: MapCache | None,
        time: tuple[int | None, float | None],
    ) -> None:
        self.encoder, self.imagery, self.grid = encoder, imagery, grid
        self.month, self.hour = time
        self.joined: str = encoder.space.config["joined"]
        # Patches are many, and half precision tells them apart well enough.
        self.look_type = np.float16 if self.joined == "early" else np.float32
        side = grid.view_px
        blank = encoder.tokens(np.zeros((1, side, side, 3), np.uint8), np.full(1, 600.0))
        packed = _packed(encoder.headed(blank))
        self.gaussian = encoder.headed(blank).log_variance is not None
        self.width: int = packed.shape[1]
        self.look_shape = self._reduced(blank).shape[1:]
        self.looks, self.finished = self._shelves(cache)

    def _shelves(self, cache: MapCache | None) -> tuple[Shelf | None, Shelf | None]:
        if cache is None or self.imagery is None:
            return None, None
        key = {
            "model": self.encoder.sha256,
            "imagery": self.imagery.identity,
            "grid": [self.grid.zoom, self.grid.cell_px, self.grid.view_px, MIN_SEEN],
        }
        looks = cache.shelf(kind="looks", **key) if self.encoder.takes_metadata else None
        return looks, cache.shelf(kind="joined", month=self.month, hour=self.hour, **key)

    def embedded(self, row: int, col: int, wanted: Bool[np.ndarray, " cells"]) -> Block:
        """Give a block with all wanted cells known."""
        name = f"{row}-{col}"
        block = _load(self.finished, name, (self.width,), np.float32)
        missing = block.missing(wanted)
        if not missing.any():
            return block
        looks = self._looked(row, col, missing)
        seen = looks.seen & missing
        block = block.with_cells(
            missing, seen[missing], self._headed(row, col, seen, looks.values[seen])
        )
        if self.finished is not None:
            self.finished.save_block(name, block)
        return block

    def _looked(self, row: int, col: int, wanted: Bool[np.ndarray, " cells"]) -> Block:
        name = f"{row}-{col}"
        block = _load(self.looks, name, self.look_shape, self.look_type)
        missing = block.missing(wanted)
        if missing.any():
            seen, values = self._look(row, col, missing)
            block = block.with_cells(missing, seen, values)
            if self.looks is not None:
                self.looks.save_block(name, block)
        return block

    def _look(
        self, row: int, col: int, wanted: Bool[np.ndarray, " cells"]
    ) -> tuple[Bool[np.ndarray, " asked"], np.ndarray]:
        """Run the image tower over cells of which nothing is known."""
        index = np.argwhere(wanted.reshape(BLOCK, BLOCK))
        first, last = index.min(0), index.max(0)
        origin = first + np.array([row, col]) * BLOCK
        views, shares = self._views(*origin.tolist(), *(last - first + 1).tolist())
        here = index - first
        seen = shares[tuple(here.T)] >= MIN_SEEN
        index, here = index[seen], here[seen]
        lat, _ = self.grid.centers(index[:, 0] + row * BLOCK, index[:, 1] + col * BLOCK)
        metres = np.array([self.grid.gsd_m(each) for each in lat.tolist()])
        values = [
            self._reduced(
                self.encoder.tokens(_filled(*views, here[some]), metres[some].astype(np.float64))
            )
            for some in _batches(len(here))
        ]
        none = np.zeros((0, *self.look_shape), self.look_type)
        return seen, np.concatenate(values) if values else none

    def _reduced(self, tokens: Float[Tensor, "batch patches dim"]) -> np.ndarray:
        """Keep of tokens what the head needs: where metadata join late, their mean."""
        kept = tokens.mean(1, keepdim=True) if self.joined == "late" else tokens
        return kept.cpu().numpy().astype(self.look_type)

    def _views(
        self, row: int, col: int, rows: int, cols: int
    ) -> tuple[tuple[np.ndarray, np.ndarray], Float[np.ndarray, "rows cols"]]:
        """Read a rectangle of cells: views as windows on the pixels, and the shares seen."""
        grid = self.grid
        view, cell = grid.view_px, grid.cell_px
        shape = (rows - 1) * cell + view, (cols - 1) * cell + view
        rgb, seen = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
        window = grid.views(row, col, rows, cols)
        if window is not None and self.imagery is not None:
            patch = self.imagery.read(window)
            below = window.row_px - (row * cell + (cell - view) // 2)
            rgb[below : below + window.height_px] = patch.rgb
            seen[below : below + window.height_px] = patch.seen
        cut = np.lib.stride_tricks.sliding_window_view
        pictures = cut(rgb, (view, view), (0, 1))[::cell, ::cell]  # (rows, cols, 3, view, view)
        masks = cut(seen, (view, view))[::cell, ::cell]
        shares = np.ones((rows, cols)) if seen.all() else masks.mean((2, 3))
        return (pictures, masks), shares

    def _headed(
        self, row: int, col: int, cells: Bool[np.ndarray, " cells"], looks: np.ndarray
    ) -> Float32[np.ndarray, "seen width"]:
        """Join what is known to what was seen, and embed it."""
        rows, cols = np.divmod(np.flatnonzero(cells), BLOCK)
        lat, lon = self.grid.centers(rows + row * BLOCK, cols + col * BLOCK)
        places = [Location(*place) for place in zip(lat.tolist(), lon.tolist(), strict=True)]
        parts = [np.zeros((0, self.width), np.float32)]
        for some in _batches(len(looks), max(1, BATCH_TOKENS // self.look_shape[0])):
            known = (
                self.encoder.known(places[some], self.month, self.hour)
                if self.encoder.takes_metadata
                else None
            )
            tokens = torch.from_numpy(looks[some].astype(np.float32))
            parts.append(_packed(self.encoder.headed(tokens, known)))
        return np.concatenate(parts)

    def unpacked(self, values: Float32[np.ndarray, "n width"]) -> Embedding:
        """Give rows as they were kept as embeddings."""
        rows = torch.from_numpy(values).to(self.encoder.device)
        return Embedding(*rows.chunk(2, 1)) if self.gaussian else Embedding(rows)


def _packed(embedding: Embedding) -> Float32[np.ndarray, "n width"]:
    """Keep of embeddings what they are compared by."""
    parts = [embedding.vector, embedding.log_variance]
    joined = torch.cat([part for part in parts if part is not None], 1)
    return joined.float().cpu().numpy()


def _load(
    shelf: Shelf | None, name: str, shape: tuple[int, ...], dtype: type[np.floating]
) -> Block:
    return Block.empty(shape, dtype) if shelf is None else shelf.load_block(name, shape, dtype)


def _batches(count: int, size: int = BATCH) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _filled(
    pictures: UInt8[np.ndarray, "rows cols 3 view view"],
    masks: Bool[np.ndarray, "rows cols view view"],
    cells: np.ndarray,
) -> UInt8[np.ndarray, "n view view 3"]:
    """Take the views of cells; what is not seen of one gets the mean colour of what is."""
    images = np.ascontiguousarray(np.moveaxis(pictures[tuple(cells.T)], 1, -1))
    for image, mask in zip(images, masks[tuple(cells.T)], strict=True):
        if not mask.all():
            image[~mask] = image[mask].mean(0).round().astype(np.uint8)
    return images
