import argparse
import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from generation.errors import ConfigError, MissingFileError
from generation.geo.layout import LAYERS
from training import evaluate
from training.data import list_files
from training.evaluate_controls import Scores, Yardstick, measure_controls
from training.evaluate_geosynth import (
    derived,
    in_batches,
    measure_latents,
    measure_model,
    scenes_of,
)
from training.evaluate_steering import (
    Contrast,
    PlaceJudge,
    Probe,
    fit_probes,
    place_table,
    stand_ins,
)
from training.evaluate_tiles import evenly, partners, read_tiles
from training.metrics import LiteFeatures

PLACES = [(8, 132 + 3 * (i % 4), 86 + 9 * (i // 4)) for i in range(12)]


@pytest.fixture(scope="session")
def parquet(tmp_path_factory):
    """Twelve painted tiles in the schema of the training data: desert, forest, and a sea."""
    rng, rows = np.random.default_rng(0), []
    for number, (zoom, x, y) in enumerate(PLACES):
        image = np.empty((256, 256, 3))
        image[:] = ((190, 150, 110), (28, 40, 14))[number % 2]
        image[: 60 + 10 * number] = (10, 38, 90)
        image += rng.normal(0, 3, image.shape)
        road = np.zeros((256, 256), np.uint8)
        road[200] = 255
        rows.append(
            {
                "tile_id": f"{zoom}/{x}/{y}",
                "image": {"bytes": encoded(image.clip(0, 255).astype(np.uint8)), "path": None},
                "roads": {"bytes": encoded(road), "path": None},
                "elev_m": 100.0,
                "t_mean_c": 10.0,
                "p_year_mm": 500.0,
                "lit_frac": 0.0,
                "road_frac": 0.004,
                "koppen": 4 + number % 2,
                "igbp": 16,
            }
        )
    path = tmp_path_factory.mktemp("data") / "test-00000.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def encoded(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def tiles(parquet):
    return read_tiles([parquet])


@pytest.fixture(scope="session")
def yardstick(tiles):
    return Yardstick(tiles, LiteFeatures())


def test_tiles_come_sorted_with_roads_in_their_layouts(tiles):
    assert tiles.names == sorted(tiles.names)
    assert (tiles.classes[:, 200] == LAYERS.index("road")).all()
    assert all(tiles.captions)
    np.testing.assert_allclose(tiles.shares().sum(1), 1)


def test_a_caption_does_not_depend_on_which_tiles_are_kept(parquet, tiles):
    few = read_tiles([parquet], limit=5)
    assert len(few) == 5
    kept = dict(zip(tiles.names, tiles.captions, strict=True))
    assert all(kept[name] == text for name, text in zip(few.names, few.captions, strict=True))


def test_a_pattern_without_files_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="matches no file"):
        list_files(str(tmp_path / "*.parquet"))


def test_evenly_spread_rows_are_a_fixed_rule():
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(4, 4).tolist() == [0, 1, 2, 3]


def test_partners_come_from_other_groups_and_each_once():
    groups = np.array([0] * 5 + [1] * 3 + [2] * 4)
    other = partners(groups, seed=1)
    assert sorted(other) == list(range(12))
    assert (groups[other] != groups).all()
    alone = partners(np.zeros(6, np.int64), seed=1)
    assert (alone != np.arange(6)).all()
    with pytest.raises(ConfigError, match="cannot be shuffled"):
        partners(np.zeros(1, np.int64), seed=0)


def test_a_painter_that_copies_the_real_tiles_reaches_the_floor(yardstick):
    real = dict(zip(yardstick.tiles.windows, yardstick.tiles.images, strict=True))
    calls = []

    def copies(scenes):
        calls.append(len(scenes))
        blank = np.zeros((256, 256, 3), np.uint8)
        return np.stack([real.get(scene.window, blank) for scene in scenes])

    metrics, controls, images = measure_model(yardstick, in_batches(copies, 5))
    controls.update(measure_controls(yardstick))
    derived(metrics, controls)
    np.testing.assert_array_equal(images, yardstick.tiles.images)
    assert max(calls) == 5
    assert metrics.values["psnr_db"] == 60
    assert metrics.values["ssim"] == pytest.approx(1)
    assert metrics.values["gradient_energy"] == pytest.approx(1)
    assert metrics.values["water_iou_of_real"] == pytest.approx(1)
    assert metrics.values["lite_kid_of_blurred"] == pytest.approx(0, abs=1e-9)
    assert metrics.values["location_pairs"] == 1
    assert metrics.values["location_top1"] == 1
    assert controls.values["location_pairs_shuffled"] < 0.5
    for name in ("layout", "location", "text"):  # the same pictures, whatever is shuffled
        assert controls.values[f"gradient_energy_shuffled_{name}"] == pytest.approx(1)
    assert controls.values["psnr_db_shuffled"] < controls.values["psnr_db_blurred"] < 60
    low, high = metrics.intervals["ssim"]
    assert low <= 1 <= high


def test_latents_that_lose_nothing_reach_the_floor_and_a_model_without_them_has_no_score(yardstick):
    controls = measure_controls(yardstick)
    controls.update(measure_latents(yardstick, lambda scenes, images: images, 5))
    floor = controls.values["lite_kid_real_floor"]
    assert controls.values["lite_kid_reconstructed"] == pytest.approx(floor, abs=1e-9)
    assert controls.values["psnr_db_reconstructed"] == 60
    assert not measure_latents(yardstick, lambda scenes, images: None, 5).values


def test_a_score_that_is_no_number_is_absent_and_not_zero():
    scores = Scores()
    scores.add("a", float("nan"), 0.0, 1.0)
    scores.add("b", 1.0, float("nan"), 2.0)
    assert scores.values == {"a": None, "b": 1.0}
    assert list(scores.intervals) == ["a"]


def test_shuffled_scenes_change_one_condition_only(tiles):
    from training.evaluate_geosynth import _shuffled

    scenes, other = scenes_of(tiles, 3), partners(np.arange(len(tiles)), 0)
    for name, changed in _shuffled(scenes, other).items():
        for own, new, row in zip(scenes, changed, other, strict=True):
            assert (own.window, own.seed) == (new.window, new.seed)
            assert (new.layout is scenes[row].layout) == (name == "shuffled_layout")
            assert (new.place is not None) == (name == "shuffled_location")
            assert (new.prompt is scenes[row].prompt) or name != "shuffled_text"


def test_the_place_judge_finds_a_picture_of_the_place():
    rng = np.random.default_rng(0)
    colours, features = rng.random((30, 48)), rng.random((30, 64))
    judge, climates = PlaceJudge(colours, features), np.arange(30) % 3
    rows = np.arange(10)
    same = judge.distances(colours[rows] + 0.01, features[rows] + 0.01)
    table = place_table(same, rows, climates, seed=0)
    assert table[:, :2].min() == 1
    chance = place_table(rng.random((10, 30)), rows, climates, seed=0)
    assert 0.2 < chance[:, 0].mean() < 0.8


def test_a_stand_in_shares_block_and_climate():
    cells, climates = np.array([0, 0, 0, 1, 1]), np.array([1, 1, 2, 1, 1])
    assert stand_ins(cells, climates).tolist() == [1, 0, -1, 4, 3]


def test_a_probe_separates_what_it_was_shown_and_reports_its_doubt():
    rng = np.random.default_rng(0)
    positive = np.arange(60) < 20
    rows = rng.normal(size=(60, 200)) + 0.6 * positive[:, None]
    probe = Probe(rows, positive)
    assert probe.accuracy > 0.9
    fresh = rng.normal(size=(40, 200)) + 0.6 * (np.arange(40) < 20)[:, None]
    assert ((probe(fresh) > 0) == (np.arange(40) < 20)).mean() > 0.9
    noise = Probe(rng.normal(size=(60, 200)), positive)
    assert 0.25 < noise.accuracy < 0.75


def test_left_out_predictions_are_those_of_refitting():
    from sklearn.kernel_ridge import KernelRidge

    rng = np.random.default_rng(1)
    positive = np.arange(16) % 2 == 0  # equal sides: every weight is the same
    rows = rng.normal(size=(16, 12))
    probe = Probe(rows, positive)
    x = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    target, hits = np.where(positive, 1.0, -1.0), []
    for out in range(16):
        keep = np.arange(16) != out
        ridge = KernelRidge(alpha=1.0, kernel="precomputed")
        ridge.fit(x[keep] @ x[keep].T / 12, target[keep])
        hits.append((ridge.predict(x[[out]] @ x[keep].T / 12)[0] > 0) == positive[out])
    assert probe.accuracy == pytest.approx(np.mean(hits))


def test_contrasts_without_enough_real_tiles_are_not_judged(tiles):
    rows = np.random.default_rng(0).random((len(tiles), 8)).astype(np.float32)
    rare = Contrast("rare", "a glacier", "a city", ("glacier",), ("urban",))
    assert fit_probes(tiles, rows, [rare]) == {}


def test_the_controls_can_be_measured_from_the_command_line(parquet, tmp_path, capsys):
    words = ["geosynth", "--data", str(parquet), "--controls-only", "--limit", "8", "--out"]
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert evaluate.main([*words, str(first)]) == 0
    assert capsys.readouterr().out.strip() == str(first)
    assert evaluate.main([*words, str(second)]) == 0
    a, b = (json.loads(file.read_text()) for file in (first, second))
    assert a.pop("command").replace("a.json", "b.json") == b.pop("command")
    assert a == b
    assert {"metrics", "controls", "intervals", "data", "feature_network"} <= set(a)
    assert a["data"]["tiles"] == 8
    assert a["controls"]["lite_kid_real_floor"] < a["controls"]["lite_kid_noise"]


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        (["--batch", "0"], "--batch 0"),
        (["--limit", "2"], "at least 4"),
        (["--seed", "-1"], "negative"),
        (["--steps", "1.5"], "whole number"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(parquet, tmp_path, capsys, extra, hint):
    out = tmp_path / "report.json"
    words = ["geosynth", "--data", str(parquet), "--out", str(out), *extra]
    assert evaluate.main(words) == 2
    told = capsys.readouterr().err
    assert hint in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_a_report_is_never_overwritten(parquet, tmp_path, capsys):
    out = tmp_path / "report.json"
    out.write_text("mine")
    assert evaluate.main(["geosynth", "--data", str(parquet), "--out", str(out)]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_the_command_is_declared_without_torch():
    code = (
        "import sys, argparse; from training.evaluate import command; from training import bench;"
        "subs = argparse.ArgumentParser().add_subparsers(); command(subs); bench.command(subs);"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_fits_the_main_parser():
    parser = argparse.ArgumentParser()
    evaluate.command(parser.add_subparsers())
    args = parser.parse_args(["evaluate", "geosynth", "--data", "x", "--out", "y"])
    assert callable(args.run)


@pytest.fixture
def _tiny(tiny_pipeline, tmp_path, monkeypatch):
    """Make satellite-nano an untrained, tiny pipeline."""
    tiny_pipeline.save_pretrained(tmp_path / "home" / "satellite-nano")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("_tiny")
def test_a_whole_model_is_measured_from_the_command_line(parquet, tmp_path, capsys):
    out, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    words = ["geosynth", "--data", str(parquet), "--limit", "6", "--steps", "1", "--batch", "3"]
    assert evaluate.main([*words, "--out", str(out), "--sheet", str(sheet)]) == 0
    assert capsys.readouterr().out.split() == [str(sheet), str(out)]
    report = json.loads(out.read_text())
    assert len(report["model"]) == 64
    assert report["sampler"]["steps"] == 1
    metrics, controls = report["metrics"], report["controls"]
    for name in ("lite_kid", "psnr_db", "ssim", "water_iou", "location_pairs", "gradient_energy"):
        assert np.isfinite(metrics[name])
        assert any(control.startswith(name) for control in controls)
    shuffled = ("shuffled_layout", "shuffled_location", "shuffled_text")
    for name in ("real_floor", "blurred", "reconstructed", *shuffled):
        assert np.isfinite(controls[f"lite_kid_{name}"])
    assert metrics["lite_kid_of_blurred"] > 1  # nothing was learnt
    with Image.open(sheet) as file:
        assert file.size == (2 * (3 * 256 + 8 + 16) - 16, 3 * 260 - 4)


@pytest.mark.usefixtures("_tiny")
def test_guidance_that_no_render_takes_is_refused_here_too(parquet, tmp_path, capsys):
    words = ["geosynth", "--data", str(parquet), "--limit", "4", "--text-guidance", "99"]
    assert evaluate.main([*words, "--out", str(tmp_path / "r.json")]) == 2
    assert "text_guidance" in capsys.readouterr().err
