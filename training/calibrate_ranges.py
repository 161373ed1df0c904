"""Choose how much to add to the scores of taxa that a model of ranges did not learn from.

    python -m training.calibrate_ranges --ranges ranges.npz --traits traits.csv --weights DIR

A name that was never learnt is scored too low where its taxon lives, and everything else by which
its places are told apart stays as it is: one number for new species and one for new genera are
chosen, by the least cost in kilometres, on the species that are held out for validation. They are
written into the configuration beside the weights; the order of a taxon's places, and so its average
precision, cannot change by them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from generation.atomic import atomic_path
from generation.checkpoint import load_part
from generation.console import Parser, Progress, guarded
from generation.encoders.range_encoder import RangeEncoder
from generation.encoders.ranges import RangeModel, logits
from generation.encoders.taxonomy import Taxonomy
from training.range_metrics import ProximityMetric
from training.ranges_data import (
    LEARNT,
    VALIDATION_GENUS,
    VALIDATION_SPECIES,
    Ranges,
    read_ranges,
)

BIASES = tuple(np.linspace(-1, 7, 33).tolist())
_SIDES = {"species": VALIDATION_SPECIES, "genera": VALIDATION_GENUS}


def costs(
    encoder: RangeEncoder, ranges: Ranges, side: int, limit: int
) -> Float[np.ndarray, " biases"]:
    """Give the mean cost of a side's species, in kilometres, for each of :data:`BIASES`."""
    rows = ranges.of(side)
    rows = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
    places = encoder.places(ranges.cells.latlon)
    scores = logits(places, encoder.taxa([ranges.names[row] for row in rows])).T.numpy()
    metric, progress = ProximityMetric(ranges.cells.latlon), Progress("species")
    found = []
    for number, (row, score) in enumerate(zip(rows.tolist(), scores, strict=True)):
        found.append(
            [
                metric(1 / (1 + np.exp(-(score + bias))), ranges.present[row]).cost_km
                for bias in BIASES
            ]
        )
        progress(number + 1, len(rows))
    return np.array(found).mean(0)


def calibrate(ranges: Path, traits: Path, folder: Path, *, limit: int = 200) -> dict[str, float]:
    """Choose both numbers and write them beside the weights.

    Returns:
        For new species and new genera the bias, and the costs without it and with it.
    """
    found = read_ranges(ranges, traits)
    table = Taxonomy(found.taxa, (found.side == LEARNT).tolist())
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"novel_bias": [0.0, 0.0]}
    _write(path, settings)  # measured from nothing, so that a second run gives the same
    encoder = RangeEncoder(load_part(RangeModel, folder), table, folder)
    report: dict[str, float] = {}
    chosen = []
    for name, side in _SIDES.items():
        each = costs(encoder, found, side, limit)
        best = int(each.argmin())
        chosen.append(BIASES[best])
        report |= {
            f"{name}_bias": BIASES[best],
            f"{name}_cost_km": float(each[best]),
            f"{name}_cost_km_without": float(each[BIASES.index(0.0)]),
        }
    _write(path, settings | {"novel_bias": chosen})
    return report


def _write(path: Path, settings: dict[str, object]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = Parser(
        prog="training.calibrate_ranges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("ranges", "traits", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH")

    def work() -> None:
        args = parser.parse_args(argv)
        print(json.dumps(calibrate(args.ranges, args.traits, args.weights), indent=2))

    return guarded("training.calibrate_ranges", work)


if __name__ == "__main__":
    raise SystemExit(main())
