"""Make the embedded grid of climate, height and land cover.

    python -m training.environment --climate climate_0p5deg.npz --out assets/world

The climate file holds ``t_month_c`` and ``rain_month_mm`` (12 months) and ``elevation_m`` on a grid
of half a degree, row 0 in the north, column 0 in the west; land cover is the embedded one.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from generation.atomic import atomic_path
from generation.console import Parser, guarded
from generation.errors import ConfigError
from generation.geo.layers import land_cover

CLASSES = 17


def halved(field: Shaped[np.ndarray, "*_ rows cols"]) -> Shaped[np.ndarray, "*_ half_r half_c"]:
    """Average blocks of two by two."""
    *lead, rows, cols = field.shape
    blocks = field.astype(np.float64).reshape(*lead, rows // 2, 2, cols // 2, 2)
    return np.asarray(blocks.mean((-3, -1)))


def cover_shares(grid: UInt8[np.ndarray, "rows cols"]) -> UInt8[np.ndarray, "17 180 360"]:
    """Give the share of each class in each square degree, 255 for all of it."""
    side = grid.shape[0] // 180
    blocks = grid.reshape(180, side, 360, side)
    shares = [(blocks == number).mean((1, 3)) for number in range(CLASSES)]
    return np.stack([(255 * share).round() for share in shares]).astype(np.uint8)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = Parser(
        prog="training.environment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--climate", type=Path, required=True, metavar="FILE", help="an .npz file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="such as assets/world"
    )
    return guarded("training.environment", lambda: _make(parser.parse_args(argv)))


def _make(args: argparse.Namespace) -> None:
    parts: dict[str, Any]
    with np.load(args.climate) as data:
        absent = {"t_month_c", "rain_month_mm", "elevation_m"} - set(data)
        if absent:
            raise ConfigError(f"{args.climate} lacks {', '.join(sorted(absent))}")
        parts = {
            "temperature_dc": (10 * halved(data["t_month_c"])).round().astype(np.int16),
            "rain_mm": halved(data["rain_month_mm"]).round().astype(np.uint16),
            "elevation_m": halved(data["elevation_m"]).round().astype(np.int16),
        }
    parts["cover_255"] = cover_shares(land_cover())
    out = args.out / "environment_1deg.npz"
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **parts)
    print(out)  # noqa: T201 - what it made


if __name__ == "__main__":
    raise SystemExit(main())
