"""A sheet of test places chosen by a fixed rule: the layout, the generated and the real picture.

    python -m training.contact_sheet --data 'DIR/test-*.parquet' --out sheet.png --places 12

The places lie evenly spread over the sorted names of the test tiles; nobody picks them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.atomic import atomic_path
from generation.console import DONE, Parser, Progress, guarded, whole
from generation.errors import ConfigError, OutputError
from generation.geo.layout import PALETTE
from training.data import list_files
from training.evaluate_geosynth import in_batches, scenes_of
from training.evaluate_tiles import Tiles, evenly, read_tiles
from training.metrics import Images

GAP_PX = 4
BESIDE_PX = 16
"""White space between two places."""
PLACES = 12
ACROSS = 2
"""Places side by side."""


def compose_sheet(tiles: Tiles, images: Images, across: int = ACROSS) -> UInt8[np.ndarray, "h w 3"]:
    """Return the sheet: for each tile its layout, the generated and the real picture.

    Args:
        tiles: The places, in reading order.
        images: The generated pictures, in the same order.
        across: Places in a row of the sheet.
    """
    height, width = images.shape[1:3]
    place_width = 3 * width + 2 * GAP_PX + BESIDE_PX
    down = -(-len(tiles) // across)
    sheet = np.full(
        (down * (height + GAP_PX) - GAP_PX, across * place_width - BESIDE_PX, 3), 255, np.uint8
    )
    for index in range(len(tiles)):
        top, left = (index // across) * (height + GAP_PX), (index % across) * place_width
        triple = PALETTE[tiles.classes[index]], images[index], tiles.images[index]
        for step, picture in enumerate(triple):
            start = left + step * (width + GAP_PX)
            sheet[top : top + height, start : start + width] = picture
    return sheet


def save_sheet(tiles: Tiles, images: Images, out: Path, places: int = PLACES) -> None:
    """Write the sheet of evenly spread places as PNG.

    Args:
        tiles: All tiles that were drawn.
        images: Their generated pictures.
        out: A new file.
        places: How many to show.
    """
    from PIL import Image

    rows = evenly(len(tiles), min(places, len(tiles)))
    sheet = compose_sheet(tiles.take(rows), images[rows])
    with atomic_path(out) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG", optimize=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the places and write the sheet."""
    parser = Parser(
        prog="training.contact_sheet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, metavar="PATTERN", help="Parquet files of tiles")
    parser.add_argument("--out", type=Path, required=True, help="a new .png file")
    parser.add_argument("--places", type=whole, default=PLACES, help="how many places to show")
    parser.add_argument("--model", default="satellite-nano", help="see `terrascape models`")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument("--batch", type=whole, default=4, help="pictures drawn at once")
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded("training.contact_sheet", lambda: _run(parser.parse_args(words)))


def _run(args: argparse.Namespace) -> int:
    if args.out.exists():
        raise OutputError(
            f"{args.out} exists and is not overwritten (remove it, or choose another)"
        )
    if args.places < 1 or args.batch < 1:
        raise ConfigError(f"--places {args.places} --batch {args.batch}: both must be at least 1")
    from training.painter import PipelinePainter

    tiles = read_tiles(list_files(args.data), limit=args.places, seed=args.seed)
    bar = Progress("places")
    draw = in_batches(
        PipelinePainter(args.model), args.batch, lambda _, done, total: bar(done, total)
    )
    save_sheet(tiles, draw("places", scenes_of(tiles, args.seed)), args.out, args.places)
    print(args.out)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
