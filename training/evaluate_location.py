"""What place encoders are worth: a published protocol again, and probes at unseen places.

The protocol is that of the mean temperature of weather stations in RANGE's table: a random split
of 80 to 20 (seed 42), features scaled to 0..1, ridge regression with penalties of 0.1, 1 and 10 in
three folds. Its random split lets neighbours stand on both sides, so the probes beside it split by
blocks of 10 degrees, with intervals by bootstrap over blocks.

Source:
    Dhakal et al., "RANGE" (CVPR 2025), Table 1; Klemmer et al., "SatCLIP" (2023), for the stations.
"""

import csv
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from generation.checkpoint import sha256_file
from generation.console import Progress
from generation.encoders.location import LocationEncoder
from generation.encoders.place_encoder import PlaceEncoder, load_place_encoder
from generation.encoders.retrieval import check_places
from generation.errors import ConfigError, MissingExtraError, MissingFileError, TerrascapeError
from generation.pipelines.satellite import load_pipeline
from training.evaluate_controls import Scores
from training.location_probes import TARGETS, Answers, blocks, features, probe, read_table
from training.metrics import bootstrap

COLUMNS = ("Lat", "Lon", "meanT")
ENCODERS = (
    *("direct", "cartesian3d", "wrap", "sinr-input", "spherec-plus"),
    *("harmonics-5", "harmonics-10", "harmonics-16", "harmonics-20", "harmonics-32"),
    *("geoclip-location", "satellite-nano", "satellite-nano-untrained"),
    *("range-key", "range", "range-plus"),
)
INSIDE, UNTRAINED = "satellite-nano", "satellite-nano-untrained"
"""The encoder that the satellite model learnt together with the rest, and the same before."""
KEY, RETRIEVED = "range-key", ("range", "range-plus")
YES, NO, UNKNOWN = "yes", "no", "no evidence"
_LEAST = 50


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a measurement of place encoders is told."""

    data: Path
    """The table of weather stations."""
    train: str | None = None
    """Pattern of Parquet files of tiles to probe with; without it, the stations alone."""
    test: str | None = None
    encoders: tuple[str, ...] = ENCODERS
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.train is None) != (self.test is None):
            raise ConfigError("--train and --test belong together (give both or neither)")
        if not self.encoders:
            raise ConfigError("no encoder is named (give one or more)")


def measured(settings: Settings) -> tuple[dict[str, Any], Scores, Scores]:
    """Measure all encoders.

    Returns:
        The report without its command, the scores and the controls.

    Raises:
        TerrascapeError: An encoder or a file is not here, or is damaged.
    """
    chosen = [_encoder(name) for name in settings.encoders]
    latlon, temperature = read_stations(settings.data)
    metrics, controls, answers = Scores(), Scores(), dict[str, dict[str, str]]()
    progress = Progress("encoder")
    for number, encoder in enumerate(chosen):
        metrics.add(f"{encoder.name}/stations_r2", station_r2(encoder, latlon, temperature))
        progress(number + 1, len(chosen))
    dealt = np.random.default_rng(settings.seed).permutation(len(temperature))
    controls.add(
        f"{chosen[-1].name}/stations_r2_shuffled",
        station_r2(chosen[-1], latlon[dealt], temperature),
    )
    files = {settings.data.name: sha256_file(settings.data)}
    if settings.train is not None and settings.test is not None:
        answers = _probed(settings, chosen, metrics, controls)
    report = {
        "task": "location",
        "model": [encoder.name for encoder in chosen],
        "data": {"files": files, "stations": len(temperature)},
        "settings": {"seed": settings.seed, "probes": settings.train is not None},
        "answers": answers,
    }
    return report, metrics, controls


def _encoder(name: str) -> PlaceEncoder:
    if name not in (INSIDE, UNTRAINED):
        return load_place_encoder(name)
    model: LocationEncoder = load_pipeline(INSIDE).conditioner.location_encoder
    if name == UNTRAINED:
        torch.manual_seed(0)
        model = LocationEncoder.from_config(model.config)
    model = model.eval()
    dim = model(torch.zeros(1, 2)).shape[1]
    return PlaceEncoder(name, dim, lambda latlon: model(latlon.float()).to(latlon))


def read_stations(path: Path) -> tuple[Float[torch.Tensor, "n 2"], Float[np.ndarray, " n"]]:
    """Read places, degrees with latitude first, and mean temperatures in degrees Celsius.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: It is no such table.
    """
    if not path.is_file():
        raise MissingFileError(f"no table of stations at {path} (give stationDataAll.csv)")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        figures = np.array([[float(row[name]) for name in COLUMNS] for row in rows])
    except (UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no table of stations: {error} (give a CSV with numbers in the columns "
            f"{', '.join(COLUMNS)})"
        ) from error
    if len(figures) < _LEAST or not np.isfinite(figures).all():
        raise ConfigError(
            f"{path}: {len(figures)} rows, some of them without a number (give {_LEAST} or more "
            "whole ones)"
        )
    latlon = torch.from_numpy(figures[:, :2])
    try:
        check_places(latlon)
    except TerrascapeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return latlon, figures[:, 2]


def station_r2(
    encoder: PlaceEncoder, latlon: Float[torch.Tensor, "n 2"], temperature: Float[np.ndarray, " n"]
) -> float:
    """Follow the published protocol.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import RidgeCV
        from sklearn.preprocessing import MinMaxScaler
    except ImportError as error:
        raise MissingExtraError(
            "the published protocol is scikit-learn's (pip install 'terrascape[train]')"
        ) from error
    count = len(temperature)
    first = int(0.8 * count)
    parts: list[Any] = torch.utils.data.random_split(
        torch.arange(count),  # type: ignore[arg-type]  # any sequence can be split
        [first, count - first],
        generator=torch.Generator().manual_seed(42),
    )
    train, test = (np.array(part.indices) for part in parts)
    x = encoder(latlon).double().numpy()
    scaler = MinMaxScaler().fit(x[train])
    model = RidgeCV(alphas=(0.1, 1.0, 10.0), cv=3).fit(
        scaler.transform(x[train]), temperature[train]
    )
    return float(model.score(scaler.transform(x[test]), temperature[test]))


def _probed(
    settings: Settings, chosen: Sequence[PlaceEncoder], metrics: Scores, controls: Scores
) -> dict[str, dict[str, str]]:
    """Probe all encoders at the tiles, and compare what is retrieved with its own key."""
    train, test = read_table(str(settings.train)), read_table(str(settings.test))
    groups = blocks(test)
    if set(groups.tolist()) & set(blocks(train).tolist()):
        raise ConfigError(
            "--train and --test share blocks of 10 degrees (give tiles that are split by blocks, "
            "or neighbours answer for each other)"
        )
    found: dict[str, Answers] = {}
    progress = Progress("probe")
    for number, encoder in enumerate(chosen):
        x = features(encoder, train), features(encoder, test)
        found[encoder.name] = probe(x, train, test)
        _record(metrics, encoder.name, found[encoder.name], groups, settings.seed)
        progress(number + 1, len(chosen))
    dealt = np.random.default_rng(settings.seed).permutation(len(groups))
    _record(
        controls, f"{chosen[-1].name}_shuffled", probe((x[0], x[1][dealt]), train, test), groups,
        settings.seed,
    )  # fmt: skip
    if KEY not in found:
        return {}
    return {
        name: _compared(controls, name, found[name], found[KEY], groups, settings.seed)
        for name in RETRIEVED
        if name in found
    }


def _record(scores: Scores, name: str, answers: Answers, groups: np.ndarray, seed: int) -> None:
    for at, target in enumerate(TARGETS):
        table = np.stack([answers.lost[:, at], answers.spread[:, at]], 1)
        scores.add(
            f"{name}/{target}",
            *bootstrap(table, groups, lambda sums: 1 - sums[:, 0] / sums[:, 1], seed=seed),
        )


def _compared(
    controls: Scores, name: str, one: Answers, other: Answers, groups: np.ndarray, seed: int
) -> dict[str, str]:
    """Say for each target whether one encoder beats the other, for certain."""
    told = {}
    for at, target in enumerate(TARGETS):
        gained = other.lost[:, at] - one.lost[:, at]
        table = np.stack([gained, one.spread[:, at]], 1)
        value, low, high = bootstrap(table, groups, lambda sums: sums[:, 0] / sums[:, 1], seed=seed)
        controls.add(f"{name}/{target}_less_key", value, low, high)
        told[target] = YES if low > 0 else NO if high < 0 else UNKNOWN
    return told


def command_of(settings: Settings, out: Path) -> str:
    """Return the command line that gives this report."""
    words = ["terrascape", "evaluate", "location", "--data", f"DIR/{settings.data.name}"]
    if settings.train is not None and settings.test is not None:
        words += ["--train", f"DIR/{Path(settings.train).name}"]
        words += ["--test", f"DIR/{Path(settings.test).name}"]
    if settings.encoders != ENCODERS:
        words += ["--encoders", *settings.encoders]
    return shlex.join([*words, "--seed", f"{settings.seed}", "--out", out.name])


def lines(report: dict[str, Any], metrics: Scores) -> list[str]:
    """Put a report into lines for people."""
    told = []
    for name in report["model"]:
        probes = ", ".join(
            f"{target} {metrics.values[f'{name}/{target}']:.3f}"
            for target in TARGETS
            if metrics.values.get(f"{name}/{target}") is not None
        )
        told.append(
            f"{name:18} stations {metrics.values[f'{name}/stations_r2']:.3f}"
            + (f"; {probes}" if probes else "")
        )
    told += [
        f"{name} beats its key encoder: "
        + ", ".join(f"{target} {answer}" for target, answer in answers.items())
        for name, answers in report["answers"].items()
    ]
    return told
