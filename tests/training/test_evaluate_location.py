"""Place encoders measured: the published protocol, and probes at unseen places."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from generation.cli import main
from generation.encoders.place_encoder import PlaceEncoder, load_place_encoder
from generation.errors import ConfigError, MissingFileError
from training.evaluate_location import Settings, measured, read_stations, station_r2
from training.location_probes import TARGETS, blocks, probe

STATIONS = Path(__file__).parents[3] / "shared" / "data" / "stations" / "stationDataAll.csv"
PUBLISHED = {"direct": 0.381, "cartesian3d": 0.362, "wrap": 0.861, "geoclip-location": 0.916}
"""RANGE (CVPR 2025), the table of temperature."""
HARMONICS = {5: 0.906, 10: 0.936, 16: 0.933, 20: 0.931, 32: 0.931}


def stations(path, count=300):
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-80, 80, count), rng.uniform(-180, 180, count)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Lon", "Lat", "nObs", "meanT"])
        writer.writerows(zip(lon, lat, lat, 30 * np.cos(np.radians(lat)) - 5, strict=True))
    return path


def tiles(path, count, first_row, seed=0):
    """Tiles in blocks of even or odd rows; temperature falls with latitude."""
    rng = np.random.default_rng(seed)
    lat = 20 * rng.integers(-3, 3, count) + 10 * first_row + rng.uniform(0.5, 9.5, count)
    lon = rng.uniform(-180, 180, count)
    temperature = 30 * np.cos(np.radians(lat))
    table = {
        "lat": lat, "lon": lon, "t_mean_c": temperature, "elev_m": 100 * np.abs(lon),
        "koppen": (temperature > 20).astype(float), "igbp": (lon > 0).astype(float),
    }  # fmt: skip
    pq.write_table(pa.table(table), path)
    return path


@pytest.mark.shared
@pytest.mark.parametrize(("name", "value"), PUBLISHED.items())
def test_published_figures_come_out_to_three_decimals(name, value):
    latlon, temperature = read_stations(STATIONS)
    assert len(latlon) == 3076
    assert round(station_r2(load_place_encoder(name), latlon, temperature), 3) == value


@pytest.mark.shared
@pytest.mark.parametrize(("degree", "value"), HARMONICS.items())
def test_harmonics_without_a_network_come_out_too(degree, value):
    latlon, temperature = read_stations(STATIONS)
    encoder = load_place_encoder(f"harmonics-{degree}")
    assert round(station_r2(encoder, latlon, temperature), 3) == value


def test_a_probe_finds_what_is_there_and_nothing_else(tmp_path):
    import pyarrow.parquet as pq

    def table(path):
        found = pq.read_table(path)
        return {n: found[n].to_numpy() for n in ("lat", "lon", *TARGETS)}

    train = table(tiles(tmp_path / "a.parquet", 400, 0))
    test = table(tiles(tmp_path / "b.parquet", 150, 1, seed=1))
    assert not set(blocks(train)) & set(blocks(test))
    x = tuple(
        np.stack([np.cos(np.radians(t["lat"])), np.abs(t["lon"]), np.sign(t["lon"])], 1)
        for t in (train, test)
    )
    good = probe(x, train, test)
    noise = tuple(np.random.default_rng(2).normal(size=each.shape) for each in x)
    bad = probe(noise, train, test)
    score = 1 - good.lost.sum(0) / good.spread.sum(0)
    assert score[:2].min() > 0.99
    assert score[2:].min() > 0.9
    assert (1 - bad.lost.sum(0) / bad.spread.sum(0))[:2].max() < 0.1


def test_ridge_agrees_with_scikit_learn():
    from sklearn.linear_model import Ridge

    from training.location_probes import _path

    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(60, 7)), rng.normal(size=(60, 3)), rng.normal(size=(5, 7))
    for penalty, found in zip((0.1, 10.0), _path(x, y, np.array([0.1, 10.0]))(new), strict=True):
        np.testing.assert_allclose(found, Ridge(penalty).fit(x, y).predict(new), rtol=1e-6)


def test_the_command_writes_a_report_with_controls(tmp_path, capsys):
    data = stations(tmp_path / "s.csv")
    tiles(tmp_path / "train.parquet", 300, 0)
    tiles(tmp_path / "test.parquet", 120, 1, seed=1)
    words = ["evaluate", "location", "--data", str(data), "--train", f"{tmp_path}/train.parquet"]
    words += ["--test", f"{tmp_path}/test.parquet", "--out", str(tmp_path / "r.json")]
    words += ["--encoders", "direct", "harmonics-5", "range-key", "range-plus"]
    assert main(words) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["metrics"]["harmonics-5/stations_r2"] > 0.9
    assert report["controls"]["range-plus/stations_r2_shuffled"] < 0.3
    assert set(report["answers"]) == {"range-plus"}
    assert set(report["answers"]["range-plus"].values()) <= {"yes", "no", "no evidence"}
    assert "range-plus/t_mean_c_less_key" in report["intervals"]
    assert "beats its key encoder" in capsys.readouterr().err
    assert main(words) == 2  # a report is not overwritten


def test_tiles_that_share_blocks_are_refused(tmp_path):
    data = stations(tmp_path / "s.csv")
    file = str(tiles(tmp_path / "t.parquet", 100, 0))
    with pytest.raises(ConfigError, match="share blocks of 10 degrees"):
        measured(Settings(data=data, train=file, test=file, encoders=("direct",)))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Lon,Lat\n1,2\n", "meanT"),
        ("Lon,Lat,meanT\n1,2,x\n", "no table of stations"),
        ("Lon,Lat,meanT\n1,2,3\n", "1 rows"),
        ("Lon,Lat,meanT\n" + 60 * "45,98,3\n", "swapped"),
    ],
)
def test_what_is_no_table_of_stations_is_refused(tmp_path, text, hint):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ConfigError, match=hint):
        read_stations(tmp_path / "s.csv")


def test_a_missing_table_and_half_a_probe_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no table of stations"):
        read_stations(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="belong together"):
        Settings(data=tmp_path / "s.csv", train="x")


def test_an_encoder_that_knows_temperature_scores_one(tmp_path):
    latlon, temperature = read_stations(stations(tmp_path / "s.csv"))
    knows = PlaceEncoder("knows", 1, lambda where: torch.cos(torch.deg2rad(where[:, :1])))
    assert station_r2(knows, latlon, temperature) > 0.999
