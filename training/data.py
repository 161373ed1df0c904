"""Training data: a folder of plain arrays, built once from Parquet, read by memory map.

    python -m training.data --data 'DIR/train-*.parquet' --out runs/tiles

Any Parquet files with the columns ``tile_id, lat, lon, image, roads, koppen, igbp, elev_m,
t_mean_c, p_year_mm, lit_frac, road_frac`` will do, images being encoded files of 256x256 pixels
that are web-mercator tiles named ``zoom/x/y``.
"""

import argparse
import glob
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from generation.encoders.text import MAX_TOKENS
from generation.errors import ConfigError, MissingFileError, TerrascapeError
from generation.geo.layers import EmbeddedSource
from generation.geo.layout import LAYERS
from generation.geo.mercator import Window, tile_window
from training.captions import compose
from training.trainer import LoopConfig

TILE = 256
FIELDS = ("elev_m", "t_mean_c", "p_year_mm", "lit_frac", "road_frac", "koppen", "igbp")
_SHAPES = "images", "classes", "roads"


@dataclass(frozen=True, slots=True)
class TileRow:
    """One real tile with all that is known of it."""

    tile_id: str
    window: Window
    image: UInt8[np.ndarray, "256 256 3"]
    roads: UInt8[np.ndarray, "256 256"]
    figures: dict[str, float]

    def classes(self, source: EmbeddedSource, *, roads: bool) -> UInt8[np.ndarray, "256 256"]:
        """Give its layout, with or without the real roads."""
        classes = source.layout(self.window).classes.copy()
        if roads:
            classes[self.roads > 0] = LAYERS.index("road")
        return classes


def list_files(pattern: str) -> list[Path]:
    """Return the Parquet files that a pattern names, sorted.

    Raises:
        MissingFileError: There is none.
    """
    files = [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207  # may be absolute
    if not files:
        raise MissingFileError(
            f"--data {pattern!r} matches no file (quote a pattern: 'DIR/test-*.parquet')"
        )
    return files


def read_rows(files: Sequence[str | Path]) -> Iterator[TileRow]:
    """Read tiles from Parquet, a row group at a time.

    Raises:
        MissingFileError: No file was given.
        ConfigError: A column is missing.
    """
    import pyarrow.parquet as pq

    if not files:
        raise MissingFileError("no Parquet file matches (quote the pattern: 'DIR/train-*.parquet')")
    needed = ["tile_id", "image", "roads", *FIELDS]
    for name in files:
        table = pq.ParquetFile(name)
        absent = sorted(set(needed) - set(table.schema_arrow.names))
        if absent:
            raise ConfigError(f"{name}: columns {', '.join(absent)} are missing (see --help)")
        for batch in table.iter_batches(batch_size=128, columns=needed):
            for row in batch.to_pylist():
                zoom, x, y = (int(part) for part in row["tile_id"].split("/"))
                yield TileRow(
                    tile_id=row["tile_id"],
                    window=tile_window(zoom, x, y),
                    image=_decode(row["image"]["bytes"], "RGB"),
                    roads=_decode(row["roads"]["bytes"], "L"),
                    figures={name: float(row[name]) for name in FIELDS},
                )


def _decode(data: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as file:
        return np.asarray(file.convert(mode)).copy()


def build(files: Sequence[Path], out: Path, *, captions: int, seed: int) -> None:
    """Write the arrays: images, layouts, roads, windows, captions and their token states."""
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    rows: list[list[float]] = []
    source = EmbeddedSource()
    images, classes, roads, texts = [], [], [], []
    for row in tqdm(read_rows(files), desc="tiles", unit="tile"):
        rng = np.random.default_rng([seed, len(rows)])
        layout = row.classes(source, roads=False)
        images.append(row.image)
        classes.append(layout)
        roads.append(np.packbits(row.roads > 0))
        texts += [compose(row.figures, layout, row.image, rng) for _ in range(captions)]
        rows.append(
            [row.window.zoom, row.window.col_px, row.window.row_px]
            + [row.figures[name] for name in FIELDS]
        )
    for name, arrays in zip(_SHAPES, (images, classes, roads), strict=True):
        np.save(out / f"{name}.npy", np.stack(arrays))
    np.save(out / "rows.npy", np.array(rows, np.float64))
    (out / "captions.json").write_text(json.dumps(texts, indent=0))


def encode_captions(out: Path, *, batch: int = 64) -> None:
    """Run the frozen text encoder over all captions once."""
    from tqdm import tqdm

    from generation.encoders.text import STATE_DIM, TextEncoder

    texts = json.loads((out / "captions.json").read_text())
    encoder = TextEncoder(max_tokens=MAX_TOKENS, remembered=0)
    states = np.lib.format.open_memmap(
        out / "states.npy", "w+", np.float16, (len(texts), MAX_TOKENS, STATE_DIM)
    )
    mask = np.zeros((len(texts), MAX_TOKENS), bool)
    for start in tqdm(range(0, len(texts), batch), desc="captions"):
        chunk = slice(start, start + batch)
        values, real = encoder(texts[chunk])
        states[chunk], mask[chunk] = values.numpy(), real.numpy()
    states.flush()
    np.save(out / "mask.npy", mask)


class TileDataset(Dataset[dict[str, Tensor]]):
    """Crops of real tiles with their layouts, places and captions.

    An item is asked for by ``(index, draw)``: which tile, and the number that decides its crop and
    its caption, so that a batch is a pure function of the step and a run resumes exactly.
    """

    def __init__(self, root: Path, *, crop_px: int = TILE, road_share: float = 0.5) -> None:
        if crop_px % 8 or not 8 <= crop_px <= TILE:
            raise ConfigError(f"crop_px={crop_px} is no crop (give a multiple of 8, 8 to {TILE})")
        needed = ["images", "classes", "roads", "rows", "states", "mask"]
        names = [*(f"{n}.npy" for n in needed), "captions.json"]
        absent = [name for name in names if not (root / name).is_file()]
        if absent:
            raise MissingFileError(
                f"{root} lacks {', '.join(absent)} (build it: python -m training.data --help)"
            )
        load = {n: np.load(root / f"{n}.npy", mmap_mode="r") for n in needed}
        self.images, self.classes = load["images"], load["classes"]
        self.roads, self.rows = load["roads"], np.asarray(load["rows"])
        self.states, self.mask = load["states"], load["mask"]
        self.captions = json.loads((root / "captions.json").read_text())
        self.per_tile = len(self.captions) // len(self.images)
        self.crop_px, self.road_share = crop_px, road_share

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        rng = np.random.default_rng([draw, index])
        steps = (TILE - self.crop_px) // 8
        top, left = (8 * rng.integers(0, steps + 1, size=2)).tolist()
        window = np.s_[top : top + self.crop_px, left : left + self.crop_px]
        classes = np.array(self.classes[index][window])
        if rng.random() < self.road_share:
            road = np.unpackbits(self.roads[index]).reshape(TILE, TILE)[window]
            classes[road > 0] = LAYERS.index("road")
        zoom, col, row = (int(v) for v in self.rows[index, :3])
        place = Window(zoom, col + left, row + top, self.crop_px, self.crop_px)
        text = index * self.per_tile + int(rng.integers(self.per_tile))
        return {
            "image": torch.from_numpy(np.array(self.images[index][window])),
            "classes": torch.from_numpy(classes),
            "latlon": torch.tensor([place.center.lat, place.center.lon]),
            "gsd_m": torch.tensor(place.gsd_m),
            "states": torch.from_numpy(self.states[text].astype(np.float32)),
            "mask": torch.from_numpy(np.array(self.mask[text])),
        }


class CountedSampler(Sampler[tuple[int, int]]):
    """Endless shuffled passes over a data set, startable at any sample, shared by processes."""

    def __init__(
        self, length: int, *, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.length, self.seed, self.start = length, seed, start
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.start + self.rank
        epoch, order = -1, np.zeros(0, np.int64)
        while True:
            if position // self.length != epoch:
                epoch = position // self.length
                order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            yield int(order[position % self.length]), self.seed * 1_000_003 + position
            position += self.world_size


def tile_batches(
    dataset: TileDataset, loop: LoopConfig, start: int, rank: int, world_size: int
) -> Iterator[dict[str, Tensor]]:
    """Yield batches; the order depends on the seed and the position alone."""
    sampler = CountedSampler(
        len(dataset), seed=loop.seed, start=start, rank=rank, world_size=world_size
    )
    return iter(DataLoader(dataset, batch_size=loop.batch_size, sampler=sampler))


def main(argv: list[str] | None = None) -> None:
    """Build the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="pattern of Parquet files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--captions", type=int, default=2, help="captions per tile")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        build(list_files(args.data), args.out, captions=args.captions, seed=args.seed)
        encode_captions(args.out)
    except TerrascapeError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
