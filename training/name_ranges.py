"""Put the names of all species, and their embeddings, beside the weights of a model of ranges.

    python -m training.name_ranges --ranges ranges.npz --traits traits.csv --weights runs/R/weights

With them ``terrascape species`` compares a place with every species at once, and names that are
misspelt find the nearest known one.
"""

import argparse
from pathlib import Path

import torch

from generation.checkpoint import load_part, save_safetensors
from generation.console import Parser, Progress, guarded
from generation.encoders.range_encoder import EMBEDDED, TAXA, RangeEncoder
from generation.encoders.ranges import RangeModel
from generation.encoders.taxonomy import Taxonomy
from training.ranges_data import LEARNT, read_ranges

_AT_ONCE = 256


def write_names(ranges: Path, traits: Path, folder: Path) -> None:
    """Write the table of names and the embeddings of all species.

    Args:
        ranges: As :func:`training.ranges_data.read_ranges` takes them.
        traits: The same.
        folder: Holds the weights.

    Raises:
        TerrascapeError: The files or the weights are not there.
    """
    found = read_ranges(ranges, traits)
    table = Taxonomy(found.taxa, (found.side == LEARNT).tolist(), found.sea.tolist())
    encoder = RangeEncoder(load_part(RangeModel, folder), table, folder)
    progress, parts = Progress("names"), []
    for start in range(0, len(found.names), _AT_ONCE):
        names = found.names[start : start + _AT_ONCE]
        parts.append(encoder.taxa(names).half())
        progress(min(start + _AT_ONCE, len(found.names)), len(found.names))
    save_safetensors({"taxa": torch.cat(parts)}, folder / EMBEDDED)
    table.write(folder / TAXA)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = Parser(
        prog="training.name_ranges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("ranges", "traits", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH")

    def work() -> None:
        args = parser.parse_args(argv)
        write_names(args.ranges, args.traits, args.weights)

    return guarded("training.name_ranges", work)


if __name__ == "__main__":
    raise SystemExit(main())
