"""Training data: a folder of plain arrays, built once from Parquet.

    python -m training.data --data 'DIR/train-*.parquet' --out runs/tiles --names DIR/*.parquet

Any Parquet files with the columns ``tile_id, lat, lon, image, roads, koppen, igbp, elev_m,
t_mean_c, p_year_mm, lit_frac, road_frac`` will do, images being encoded files of 256x256 pixels
that are web-mercator tiles named ``zoom/x/y``.
"""

import argparse
import glob
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from generation.atomic import atomic_path
from generation.console import Parser, guarded, whole
from generation.encoders.text import MAX_TOKENS
from generation.errors import ConfigError, MissingFileError, OutputError
from generation.geo.layers import EmbeddedSource
from generation.geo.layout import LAYERS
from generation.geo.mercator import Window, tile_window
from generation.media.folder import output_folder
from generation.pipelines.scene import Scene
from training.captions import compose
from training.place_names import PlaceNames
from training.trainer import LoopConfig

TILE = 256
FIELDS = ("elev_m", "t_mean_c", "p_year_mm", "lit_frac", "road_frac", "koppen", "igbp")
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
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
        ConfigError: A file is no Parquet or lacks a column, a row is no tile, or there is none.
    """
    if not files:
        raise MissingFileError("no Parquet file matches (quote the pattern: 'DIR/train-*.parquet')")
    number = 0
    for name in files:
        for number, row in enumerate(_raw_rows(name), start=1):
            where = f"{name}, row {number}"
            yield TileRow(
                tile_id=row["tile_id"],
                window=_window(row["tile_id"], where),
                image=_decode(row, "image", "RGB", where),
                roads=_decode(row, "roads", "L", where),
                figures={field: _figure(row, field, where) for field in FIELDS},
            )
    if not number:
        raise ConfigError(f"no tile in {name} (give Parquet files that have rows)")


def _raw_rows(name: str | Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a file as they are."""
    import pyarrow
    import pyarrow.parquet as pq

    needed = ["tile_id", "image", "roads", *FIELDS]
    try:
        table = pq.ParquetFile(name)
        absent = sorted(set(needed) - set(table.schema_arrow.names))
        if absent:
            raise ConfigError(f"{name}: columns {', '.join(absent)} are missing (see --help)")
        for batch in table.iter_batches(batch_size=128, columns=needed):
            yield from batch.to_pylist()
    except ConfigError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"{name}: not readable as Parquet: {reason} (give whole .parquet files; see --help)"
        ) from error


def _window(tile_id: object, where: str) -> Window:
    try:
        zoom, x, y = (int(part) for part in str(tile_id).split("/"))
        return tile_window(zoom, x, y)
    except ValueError as error:  # also a tile that does not exist
        raise ConfigError(
            f"{where}: tile_id={tile_id!r:.40} is no tile (write zoom/x/y, for example 8/132/86)"
        ) from error


def _figure(row: Mapping[str, Any], field: str, where: str) -> float:
    value = row[field]
    if not isinstance(value, int | float) or not abs(value) < 2**31:  # which NaN is not
        raise ConfigError(
            f"{where}: {field}={value!r:.40} is no figure of a tile (give a number between -2^31 "
            "and 2^31, or drop the row)"
        )
    return float(value)


def _decode(row: Mapping[str, Any], column: str, mode: str, where: str) -> np.ndarray:
    """Decode an image of a row; its size is checked before its pixels are."""
    cure = f"store the bytes of a PNG or JPEG file of {TILE}x{TILE} pixels in {column}.bytes"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the size, which is refused below
            with Image.open(io.BytesIO(row[column]["bytes"]), formats=_FORMATS) as file:
                size = file.size
                pixels = np.asarray(file.convert(mode)) if size == (TILE, TILE) else None
    except Exception as error:  # decoders raise of every kind for a damaged image
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise ConfigError(f"{where}: {column} is no readable image: {reason} ({cure})") from error
    if pixels is None:
        raise ConfigError(f"{where}: {column} has {size[0]}x{size[1]} pixels ({cure})")
    return pixels.copy()


def build(files: Sequence[Path], out: Path) -> None:
    """Write the arrays: images, layouts, roads, windows and figures.

    Raises:
        OutputError: The folder holds tiles already.
    """
    from tqdm import tqdm

    if (out / "images.npy").exists():
        raise OutputError(
            f"{out} holds tiles already (choose another folder, remove it, or leave --data away to "
            "make new captions for them)"
        )
    rows: list[list[float]] = []
    source = EmbeddedSource()
    images, classes, roads = [], [], []
    for row in tqdm(read_rows(files), desc="tiles", unit="tile"):
        images.append(row.image)
        classes.append(row.classes(source, roads=False))
        roads.append(np.packbits(row.roads > 0))
        rows.append(
            [row.window.zoom, row.window.col_px, row.window.row_px]
            + [row.figures[name] for name in FIELDS]
        )
    out.mkdir(parents=True, exist_ok=True)
    _save(out / "rows.npy", np.array(rows, np.float64))
    for name, arrays in zip(reversed(_SHAPES), (roads, classes, images), strict=True):
        _save(out / f"{name}.npy", np.stack(arrays))


def write_captions(out: Path, *, captions: int, names: Sequence[Path], seed: int) -> None:
    """Compose captions for the tiles of a folder and run the frozen text encoder over them once.

    Args:
        out: A folder that :func:`build` wrote; older captions in it are replaced.
        captions: How many a tile.
        names: Files of named shapes, see :class:`training.place_names.PlaceNames`.
        seed: Decides their wording.

    Raises:
        MissingFileError: The folder holds no tiles.
    """
    from tqdm import tqdm

    arrays = _open_arrays(out, [*_SHAPES, "rows"])
    known, texts = PlaceNames(names), []
    for index, row in enumerate(tqdm(arrays["rows"], desc="captions", unit="tile")):
        rng = np.random.default_rng([seed, index])
        zoom, col, top = (int(value) for value in row[:3])
        here = known.at(Window(zoom, col, top, TILE, TILE).center)
        figures = dict(zip(FIELDS, row[3:].tolist(), strict=True))
        layout, image = arrays["classes"][index], arrays["images"][index]
        texts += [compose(figures, layout, image, rng, here) for _ in range(captions)]
    states, mask = _encode(texts)
    _save(out / "states.npy", states)
    _save(out / "mask.npy", mask)
    with atomic_path(out / "captions.json") as temporary:
        temporary.write_text(json.dumps(texts, indent=0), encoding="utf-8")


def _encode(texts: Sequence[str], batch: int = 64) -> tuple[np.ndarray, np.ndarray]:
    from tqdm import tqdm

    from generation.encoders.text import STATE_DIM, TextEncoder

    encoder = TextEncoder(max_tokens=MAX_TOKENS, remembered=0)
    states = np.zeros((len(texts), MAX_TOKENS, STATE_DIM), np.float16)
    mask = np.zeros((len(texts), MAX_TOKENS), bool)
    for start in tqdm(range(0, len(texts), batch), desc="token states"):
        chunk = slice(start, start + batch)
        values, real = encoder(list(texts[chunk]))
        states[chunk], mask[chunk] = values.numpy(), real.numpy()
    return states, mask


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _open_arrays(
    root: Path, names: Sequence[str], *, also: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Map arrays of a folder into memory; ``also`` names files that must lie beside them."""
    files = [*(f"{name}.npy" for name in names), *also]
    absent = [file for file in files if not (root / file).is_file()]
    if absent:
        raise MissingFileError(
            f"{root} lacks {', '.join(absent)} (build it: python -m training.data --help)"
        )
    return {name: np.load(root / f"{name}.npy", mmap_mode="r") for name in names}


class TileDataset(Dataset[dict[str, Tensor]]):
    """Crops of real tiles with their layouts, places and captions.

    An item is asked for by ``(index, draw)``: which tile, and the number that decides its crop and
    its caption, so that a batch is a pure function of the step and a run resumes exactly.
    """

    def __init__(self, root: Path, *, crop_px: int = TILE, road_share: float = 0.5) -> None:
        if crop_px % 8 or not 8 <= crop_px <= TILE:
            raise ConfigError(f"crop_px={crop_px} is no crop (give a multiple of 8, 8 to {TILE})")
        load = _open_arrays(root, [*_SHAPES, "rows", "states", "mask"], also=("captions.json",))
        # Random reads of a file that has left the page cache cost more than a step of the network.
        self.images, self.classes = np.array(load["images"]), np.array(load["classes"])
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

    def scene(self, index: int) -> Scene:
        """Give what a pipeline is asked to draw a whole tile again, with its first caption."""
        zoom, col, row = (int(v) for v in self.rows[index, :3])
        return Scene(
            window=Window(zoom, col, row, TILE, TILE),
            prompt=self.captions[index * self.per_tile],
            layout=np.asarray(self.classes[index]),
            seed=index,
        )


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


def held_blocks(rows: Float[np.ndarray, "n figures"], every: int) -> Bool[np.ndarray, " n"]:
    """Choose the tiles of each n-th block of 10 degrees, by the rows of a folder."""
    held = []
    for zoom, col, row in rows[:, :3].astype(int).tolist():
        centre = Window(zoom, col, row, TILE, TILE).center
        held.append(int(centre.lat // 10 * 36 + centre.lon // 10) % every == 0)
    return np.array(held)


def counted_batches(
    dataset: Dataset[dict[str, Tensor]], loop: LoopConfig, start: int, rank: int, world_size: int
) -> Iterator[dict[str, Tensor]]:
    """Yield batches of a data set with a length that is asked for by ``(index, draw)``.

    The order depends on the seed and the position alone.
    """
    length = len(dataset)  # type: ignore[arg-type]  # torch does not say that it has one
    sampler = CountedSampler(length, seed=loop.seed, start=start, rank=rank, world_size=world_size)
    return iter(DataLoader(dataset, batch_size=loop.batch_size, sampler=sampler))


def main(argv: list[str] | None = None) -> None:
    """Build the folder."""
    code = guarded("training.data", lambda: _run(argv))
    if code:
        raise SystemExit(code)


def _run(argv: list[str] | None) -> None:
    parser = Parser(
        prog="training.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", help="pattern of Parquet files; without it, the tiles of --out get new captions"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--captions", type=whole, default=2, help="captions per tile, 1 to 100")
    parser.add_argument(
        "--names", type=Path, nargs="*", default=[], help="GeoParquet files of named regions"
    )
    parser.add_argument("--seed", type=whole, default=0, help="0 to 2^63 - 1")
    args = parser.parse_args(argv)
    for name, low, high in (("captions", 1, 100), ("seed", 0, 2**63 - 1)):
        value = getattr(args, name)
        if not low <= value <= high:
            raise ConfigError(f"--{name} {str(value)[:40]} is not allowed (give {low} to {high})")
    with output_folder(args.out):
        if args.data is not None:
            build(list_files(args.data), args.out)
        write_captions(args.out, captions=args.captions, names=args.names, seed=args.seed)


if __name__ == "__main__":
    main()
