"""Compare location encoders by what a linear model can read off them at unseen places.

    python -m training.probe_location --train 'DIR/train-*.parquet' --test 'DIR/test-*.parquet'

Each encoder turns the coordinates of the tiles into features; ridge regression learns climate and
height from the training tiles and is scored on the test tiles, which lie in other 10-degree
blocks. Controls: the bare coordinates, and the encoder's features given to the wrong tiles.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generation.atomic import atomic_path
from generation.encoders.location import LocationEncoder, load_geoclip, spherical_harmonics
from generation.errors import OutputError, TerrascapeError
from generation.pipelines.satellite import load_pipeline
from generation.registry import locate
from training.data import list_files

TARGETS = ("t_mean_c", "p_year_mm", "elev_m")
RIDGES = (1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3)
Encoder = Callable[[Float[Tensor, "n 2"]], Float[Tensor, "n features"]]


def read_table(pattern: str) -> dict[str, np.ndarray]:
    """Read coordinates, targets and Köppen classes of the tiles of some Parquet files."""
    import pyarrow.parquet as pq

    names = ["lat", "lon", "koppen", *TARGETS]
    tables = [pq.read_table(file, columns=names) for file in list_files(pattern)]
    return {n: np.concatenate([t[n].to_numpy() for t in tables]).astype(float) for n in names}


def encoders(model: str) -> dict[str, Encoder]:
    """List the encoders to compare; ``ours`` is the one trained inside the satellite model."""
    trained = load_pipeline(model).conditioner.location_encoder
    degree = trained.config["degree"]
    torch.manual_seed(0)
    fresh = LocationEncoder.from_config(trained.config)
    return {
        "coordinates": lambda latlon: latlon / 90,
        f"harmonics_{degree}": lambda latlon: spherical_harmonics(latlon, degree),
        "ours_untrained": fresh,
        "ours": trained,
        "geoclip": load_geoclip(locate("geoclip-location")),
    }


def ridge(
    x: Float[np.ndarray, "n f"], y: Float[np.ndarray, "n t"], penalty: float
) -> Callable[[Float[np.ndarray, "m f"]], Float[np.ndarray, "m t"]]:
    """Fit ridge regression on standardised features; returns the predictor."""
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    z = (x - mean) / deviation
    gram = z.T @ z + penalty * np.eye(z.shape[1])
    weights = np.linalg.solve(gram, z.T @ (y - y.mean(0)))
    return lambda new: (new - mean) / deviation @ weights + y.mean(0)


def probe(
    x: tuple[np.ndarray, np.ndarray],
    train: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Score features: R2 of each target and accuracy of the Köppen class.

    The penalty is chosen on a fifth of the training tiles, cut by blocks of 10 degrees.
    """
    block = (np.floor(train["lat"] / 10) * 36 + np.floor(train["lon"] / 10)).astype(int)
    held = block % 5 == 0
    zones = np.unique(train["koppen"])
    targets = np.stack([train[n] for n in TARGETS], 1)
    one_hot = (train["koppen"][:, None] == zones).astype(float)
    y = np.concatenate([(targets - targets.mean(0)) / targets.std(0), one_hot], 1)

    def loss(penalty: float) -> float:
        guess = ridge(x[0][~held], y[~held], penalty)(x[0][held])
        return float(((guess - y[held]) ** 2).mean())

    guess = ridge(x[0], y, min(RIDGES, key=loss))(x[1])
    scores = {}
    for i, name in enumerate(TARGETS):
        truth = (test[name] - targets[:, i].mean()) / targets[:, i].std()
        scores[f"r2_{name}"] = 1 - float(
            ((guess[:, i] - truth) ** 2).sum() / truth.var() / len(truth)
        )
    scores["koppen_accuracy"] = float((zones[guess[:, 3:].argmax(1)] == test["koppen"]).mean())
    return scores


def compare(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], model: str
) -> dict[str, dict[str, float]]:
    """Probe every encoder, and GeoCLIP's features on shuffled tiles as the control."""
    results = {}
    for name, encoder in encoders(model).items():
        with torch.no_grad():
            x = tuple(
                encoder(torch.tensor(np.stack([t["lat"], t["lon"]], 1), dtype=torch.float32))
                .double()
                .numpy()
                for t in (train, test)
            )
        results[name] = probe((x[0], x[1]), train, test)
        if name == "geoclip":
            order = np.random.default_rng(0).permutation(len(x[1]))
            results["geoclip_shuffled"] = probe((x[0], x[1][order]), train, test)
    return results


def main(argv: list[str] | None = None) -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--model", default="satellite-nano")
    parser.add_argument("--out", type=Path, help="also write the table here, a new .json file")
    args = parser.parse_args(argv)
    try:
        if args.out is not None and args.out.exists():
            raise OutputError(f"{args.out} exists and is not overwritten (choose another)")
        results = compare(read_table(args.train), read_table(args.test), args.model)
        text = json.dumps(results, indent=2)
        if args.out is not None:
            with atomic_path(args.out) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
    except TerrascapeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    print(text)


if __name__ == "__main__":
    main()
