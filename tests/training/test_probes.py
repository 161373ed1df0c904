"""The probes behind the choices that the documents report."""

import copy

import numpy as np
import pytest

from training import probe_codec, probe_location
from training.evaluate_tiles import read_tiles
from training.metrics import LiteFeatures


@pytest.fixture(scope="module")
def tables():
    """Places, and figures that follow from them."""

    def table(seed, count):
        rng = np.random.default_rng(seed)
        lat, lon = rng.uniform(-60, 60, count), rng.uniform(-180, 180, count)
        return {
            "lat": lat,
            "lon": lon,
            "t_mean_c": 30 - 0.5 * np.abs(lat),
            "p_year_mm": 1000 + 5 * lon,
            "elev_m": 800 + 10 * lat,
            "koppen": (lat > 0).astype(float),
        }

    return table(0, 600), table(1, 200)


def test_a_probe_reads_off_what_the_features_hold(tables):
    def features(table):
        return np.stack([table["lat"], np.abs(table["lat"]), table["lon"]], 1)

    train, test = tables
    scores = probe_location.probe((features(train), features(test)), train, test)
    assert all(scores[f"r2_{name}"] > 0.99 for name in probe_location.TARGETS)
    assert scores["koppen_accuracy"] > 0.9


def test_features_of_other_places_tell_nothing(tables):
    train, test = tables
    noise = [np.random.default_rng(n).normal(size=(len(t["lat"]), 8)) for n, t in enumerate(tables)]
    scores = probe_location.probe((noise[0], noise[1]), train, test)
    assert all(scores[f"r2_{name}"] < 0.1 for name in probe_location.TARGETS)
    assert scores["koppen_accuracy"] < 0.65


def test_every_way_gives_back_tiles_and_the_tiles_themselves_are_perfect(tile_file, tiny_pipeline):
    tiles = read_tiles([tile_file])
    pipeline = copy.copy(tiny_pipeline)
    pipeline.decoder = copy.copy(tiny_pipeline.decoder)
    found = {
        name: back(slice(0, 2)) for name, back in probe_codec.ways(tiles.images, tiles, pipeline)
    }
    assert len(found) == len(probe_codec.CHANNELS) + len(probe_codec.SHARES)
    assert all(images.shape == (2, 256, 256, 3) for images in found.values())
    errors = [
        np.abs(found[f"linear, {n} channels"] - tiles.images[:2].astype(float)).mean()
        for n in probe_codec.CHANNELS
    ]
    assert errors[0] > errors[1] > errors[2]
    perfect = probe_codec.score(tiles.images, tiles, LiteFeatures())
    assert perfect["gradient_energy"] == 1
    assert perfect["psnr_db"] == 60
