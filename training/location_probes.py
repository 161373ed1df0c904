"""What a linear model can read off a place encoder at unseen places.

Ridge regression learns temperature, height, climate class and land cover from the features of
training places and is scored at test places that lie in other blocks of 10 degrees; its penalty is
chosen on blocks of the training places.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from generation.encoders.place_encoder import PlaceEncoder
from training.data import list_files

NUMBERS = ("t_mean_c", "elev_m")
CLASSES = ("koppen", "igbp")
TARGETS = NUMBERS + CLASSES
_PENALTIES = np.logspace(-2, 5, 15)
_FOLDS = 5
_BLOCK_DEG = 10
Table = Mapping[str, Float[np.ndarray, " _n"]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a probe said of the test places, row by row, as sums that a score is made of."""

    lost: Float[np.ndarray, "n targets"]
    """Squared errors of numbers, and 1 for each class that is wrong."""
    spread: Float[np.ndarray, "n targets"]
    """Squared distances of numbers from their mean, and 1 for each class."""


def read_table(pattern: str) -> Table:
    """Read places and targets of the tiles of some Parquet files."""
    import pyarrow.parquet as pq

    names = ["lat", "lon", *TARGETS]
    tables = [pq.read_table(file, columns=names) for file in list_files(pattern)]
    return {n: np.concatenate([t[n].to_numpy() for t in tables]).astype(float) for n in names}


def blocks(table: Table) -> Int[np.ndarray, " n"]:
    """Number the blocks of 10 degrees that places lie in."""
    rows, cols = (np.floor(table[name] / _BLOCK_DEG).astype(int) for name in ("lat", "lon"))
    return np.asarray(rows * 360 // _BLOCK_DEG + cols)


def features(encoder: PlaceEncoder, table: Table) -> Float[np.ndarray, "n dim"]:
    """Encode the places of a table."""
    latlon = torch.tensor(np.stack([table["lat"], table["lon"]], 1), dtype=torch.float32)
    return np.asarray(encoder(latlon).double().numpy())


def probe(
    x: tuple[Float[np.ndarray, "n dim"], Float[np.ndarray, "m dim"]], train: Table, test: Table
) -> Answers:
    """Learn from the features of training places, and answer for test places."""
    y, decode = _targets(train)
    mean, deviation = x[0].mean(0), x[0].std(0) + 1e-6
    z, new = ((each - mean) / deviation for each in x)
    penalties = _chosen(z, y, train, decode)
    guesses = [_path(z, y, np.array([penalty]))(new)[0] for penalty in penalties]
    lost, spread = [], []
    for at, name in enumerate(TARGETS):
        truth = test[name]
        guess = decode[name](guesses[at])
        if name in NUMBERS:
            lost.append((guess - truth) ** 2)
            spread.append((truth - truth.mean()) ** 2)
        else:
            lost.append((guess != truth).astype(float))
            spread.append(np.ones(len(truth)))
    return Answers(np.stack(lost, 1), np.stack(spread, 1))


def _targets(
    train: Table,
) -> tuple[Float[np.ndarray, "n outputs"], dict[str, Callable[[np.ndarray], np.ndarray]]]:
    """Put numbers in deviations and classes as -1 and 1, with the way back for each."""
    columns, decode, at = [], {}, 0
    for name in NUMBERS:
        mean, deviation = train[name].mean(), train[name].std()
        columns.append(((train[name] - mean) / deviation)[:, None])
        decode[name] = _number(at, mean, deviation)
        at += 1
    for name in CLASSES:
        known = np.unique(train[name])
        columns.append(2.0 * (train[name][:, None] == known) - 1)
        decode[name] = _class(slice(at, at + len(known)), known)
        at += len(known)
    return np.concatenate(columns, 1), decode


def _number(at: int, mean: float, deviation: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda outputs: outputs[:, at] * deviation + mean


def _class(columns: slice, known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda outputs: known[outputs[:, columns].argmax(1)]


def _path(
    x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "n outputs"], penalties: np.ndarray
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Fit ridge regression with several penalties at the cost of about one.

    Source:
        Hoerl and Kennard, "Ridge regression" (1970), in the basis of the covariance.
    """
    mean, level = x.mean(0), y.mean(0)
    values, basis = np.linalg.eigh((x - mean).T @ (x - mean))
    projected = basis.T @ ((x - mean).T @ (y - level))
    weights = [basis @ (projected / (values.clip(0)[:, None] + p)) for p in penalties]
    return lambda new: [(new - mean) @ each + level for each in weights]


def _chosen(
    x: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "n outputs"],
    train: Table,
    decode: Mapping[str, Callable[[np.ndarray], np.ndarray]],
) -> list[float]:
    """Choose the penalty of each target on held-out blocks of the training places."""
    fold = blocks(train) % _FOLDS
    lost = np.zeros((len(_PENALTIES), len(TARGETS)))
    for held in range(_FOLDS):
        out = fold == held
        if not out.any() or out.all():
            continue
        for row, guess in enumerate(_path(x[~out], y[~out], _PENALTIES)(x[out])):
            for at, name in enumerate(TARGETS):
                said, truth = decode[name](guess), train[name][out]
                wrong = (said - truth) ** 2 if name in NUMBERS else said != truth
                lost[row, at] += wrong.sum()
    return [float(_PENALTIES[row]) for row in lost.argmin(0)]
