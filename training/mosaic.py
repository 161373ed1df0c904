"""One image of many tiles: a GeoTIFF that shows where tiles are and is masked where none is.

    python -m training.mosaic --data 'DIR/test-*.parquet' --out mosaic.tif --region 60,20,80,35

The files are those of ``training.data``; all tiles must be of one zoom level. A region with west
greater than east runs over the antimeridian.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.console import DONE, Parser, guarded
from generation.errors import ConfigError, OutputError
from generation.geo.grid import parse_region, window_of
from generation.geo.location import Region
from generation.geo.mercator import Window, world_px
from generation.media.folder import atomic_write, output_folder
from generation.media.geotiff import MAX_PIXELS, geotiff_bytes
from training.data import TileRow, list_files, read_rows


def around_all(tiles: Sequence[TileRow]) -> Window:
    """Give the smallest window that holds all tiles."""
    windows = [tile.window for tile in tiles]
    west, north = min(w.col_px for w in windows), min(w.row_px for w in windows)
    east = max(w.col_px + w.width_px for w in windows)
    south = max(w.row_px + w.height_px for w in windows)
    return Window(windows[0].zoom, west, north, east - west, south - north)


def join(
    tiles: Sequence[TileRow], window: Window
) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]:
    """Paste tiles into a window.

    Returns:
        Pixels, black where no tile is; and 255 where one is, else 0.
    """
    rgb = np.zeros((window.height_px, window.width_px, 3), np.uint8)
    seen = np.zeros(rgb.shape[:2], np.uint8)
    for tile in tiles:
        here = tile.window
        for turn in (0, world_px(window.zoom)):
            top, left = here.row_px - window.row_px, here.col_px + turn - window.col_px
            rows = slice(max(0, top), max(0, min(window.height_px, top + here.height_px)))
            cols = slice(max(0, left), max(0, min(window.width_px, left + here.width_px)))
            inside = tile.image[
                rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
            ]
            rgb[rows, cols], seen[rows, cols] = inside, 255
    return rgb, seen


def read_tiles(files: Sequence[Path], region: Region | None) -> tuple[list[TileRow], Window]:
    """Read the tiles of a region and give the window that the mosaic will cover.

    Args:
        files: Parquet files of :func:`training.data.read_rows`.
        region: What to cover; ``None`` for all that the tiles cover.

    Raises:
        ConfigError: No tile lies there, tiles are of several zoom levels, or they cover too much.
    """
    from tqdm import tqdm

    tiles: list[TileRow] = []
    window: Window | None = None
    for row in tqdm(read_rows(files), desc="tiles", unit="tile"):
        if window is not None and row.window.zoom != window.zoom:
            raise ConfigError(
                f"{row.tile_id} is not of zoom level {window.zoom} as the tiles before it (give "
                "files whose tiles are all of one)"
            )
        if region is None:
            window = around_all([*tiles, row])
        else:
            window = window or window_of(region, row.window.zoom)
        _check_size(window)
        if region is None or _overlap(row.window, window):
            tiles.append(row)
    if window is None or not tiles:
        raise ConfigError("none of the tiles lies in the region (give another --region)")
    return tiles, window


def _overlap(tile: Window, window: Window) -> bool:
    ahead = (tile.col_px - window.col_px) % world_px(window.zoom)
    behind = (window.col_px - tile.col_px) % world_px(window.zoom)
    below = tile.row_px - window.row_px
    beside = ahead < window.width_px or behind < tile.width_px
    return beside and -tile.height_px < below < window.height_px


def _check_size(window: Window) -> None:
    if window.width_px * window.height_px > MAX_PIXELS:
        raise ConfigError(
            f"the mosaic would have {window.width_px}x{window.height_px} pixels, {MAX_PIXELS} are "
            "allowed (give a smaller --region W,S,E,N)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Join the tiles and write the file."""
    parser = Parser(
        prog="training.mosaic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, metavar="PATTERN", help="Parquet files of tiles")
    parser.add_argument("--out", type=Path, required=True, help="a new .tif file")
    parser.add_argument("--region", metavar="W,S,E,N", help="degrees; all tiles if absent")
    parser.add_argument("--credit", default="", help="whom the file is to credit")
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded("training.mosaic", lambda: _run(parser.parse_args(words)))


def _run(args: argparse.Namespace) -> int:
    if args.out.exists():
        raise OutputError(
            f"{args.out} exists and is not overwritten (remove it, or choose another)"
        )
    region = None if args.region is None else parse_region(args.region)
    tiles, window = read_tiles(list_files(args.data), region)
    rgb, seen = join(tiles, window)
    tags = {"ATTRIBUTION": args.credit} if args.credit else {}
    with output_folder(args.out.parent):
        atomic_write(args.out, geotiff_bytes(rgb, window, tags, seen))
    print(args.out)  # noqa: T201  # the result
    return DONE


if __name__ == "__main__":
    sys.exit(main())
