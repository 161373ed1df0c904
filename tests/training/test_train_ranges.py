"""From packed ranges to a model of them to its report, at tiny sizes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_ranges import TAXA, write_ranges

from generation.checkpoint import load_part, save_part
from generation.cli import main as terrascape
from generation.config import load_config
from generation.encoders.language_model import text_encoder
from generation.encoders.range_encoder import EMBEDDED, RangeEncoder
from generation.encoders.ranges import RangeModel, logits
from generation.encoders.taxonomy import Taxonomy
from generation.errors import ConfigError, MissingFileError
from generation.geo.environment import VARIABLES
from training import calibrate_ranges
from training.evaluate_ranges import relatives
from training.name_ranges import main as name
from training.range_metrics import ProximityMetric
from training.ranges_data import LEARNT, UNSEEN_GENUS, UNSEEN_SPECIES, RangeSamples, read_ranges
from training.train_ranges import RangesConfig
from training.train_ranges import main as train

CONFIG = Path(__file__).resolve().parents[2] / "configs/ranges_nano.yaml"
TINY = ["own=2", "land=8", "elsewhere=4", "degree=3", "width=8", "blocks=1", "dim=8", "queries=1",
        "loop.steps=2", "loop.batch_size=4", "loop.warmup_steps=1", "loop.snapshot_every=1",
        "loop.panel_every=2", "loop.log_every=1"]  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phylacine")
    write_ranges(folder)
    return folder


@pytest.fixture(scope="module")
def ranges(packed):
    return read_ranges(packed / "ranges.npz", packed / "traits.csv")


def test_species_have_ranks_ranges_and_a_side(ranges):
    assert ranges.taxa == TAXA  # the extinct one is left out
    assert ranges.names[0] == " ".join(TAXA[0])
    assert ranges.present.any(1).all()
    assert ranges.present.shape == (24, 72)
    assert (abs(ranges.cells.latlon) <= [90, 180]).all()
    assert ranges.cells.latlon[0, 0] > 50 > -50 > ranges.cells.latlon[-1, 0]
    assert [int((ranges.side == side).sum()) for side in range(5)] == [16, 3, 4, 1, 0]
    genera = [ranks[2] for ranks in ranges.taxa]
    learnt = {genera[row] for row in ranges.of(LEARNT)}
    assert not learnt & {genera[row] for row in ranges.of(UNSEEN_GENUS)}
    assert all(genera[row] in learnt for row in np.flatnonzero(ranges.side == 1))


def test_strings_are_cut_and_ranges_are_those_of_all_members(ranges):
    data = RangeSamples(ranges, own=5, encoder=text_encoder())
    genus = ranges.taxa[int(data.rows[0])][:3]
    members = [row for row in data.rows if ranges.taxa[row][:3] == genus]
    np.testing.assert_array_equal(data.union(genus), ranges.present[members].any(0))
    shares, lengths = set(), set()
    for draw in range(40):
        item = data[0, draw]
        assert item["present"][item["own"]].all()
        assert item["share"] == pytest.approx(item["present"].float().mean().item())
        shares.add(item["share"].item())
        lengths.add(int(item["words"].sum()))
    assert len(shares) > 1
    assert len(lengths) > 1
    again = data[0, 3], data[0, 3]
    assert all(torch.equal(again[0][name], again[1][name]) for name in again[0])


def test_kin_stand_in_for_what_is_not_known(ranges):
    side = np.zeros(len(TAXA), np.int64)
    side[0], side[4:8] = 1, 2
    split = replace(ranges, side=side)
    np.testing.assert_allclose(relatives(split, 0), ranges.present[1:4].mean(0))
    family = [*range(1, 4), *range(8, 12)]  # the rest of its family
    np.testing.assert_allclose(relatives(split, 4), ranges.present[family].mean(0))


@pytest.mark.parametrize("loss", ["surveyed", "an_full_me", "an_slds", "asl", "ral"])
def test_a_model_learns_by_every_loss(packed, tmp_path, loss):
    given = [f"ranges={packed / 'ranges.npz'}", f"traits={packed / 'traits.csv'}"]
    train([str(CONFIG), *given, *TINY, f"loss={loss}", f"out={tmp_path}"])
    model = load_part(RangeModel, tmp_path / "weights")
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert list(tmp_path.glob("panels/*.png"))


def test_a_trained_model_is_named_and_measured(packed, tmp_path, capsys):
    files = [packed / "ranges.npz", packed / "traits.csv"]
    given = [f"ranges={files[0]}", f"traits={files[1]}"]
    train([str(CONFIG), *given, *TINY, f"out={tmp_path}"])
    weights = tmp_path / "weights"
    words = ["--ranges", str(files[0]), "--traits", str(files[1])]
    assert name([*words, "--weights", str(weights)]) == 0
    encoder = RangeEncoder(
        load_part(RangeModel, weights), Taxonomy.read(weights / "taxa.csv"), weights
    )
    assert (weights / EMBEDDED).is_file()
    place = np.array([[10.0, 20.0]], np.float32)
    every, one = encoder.all_species(place), encoder.likely([" ".join(TAXA[5])], place)
    assert every[0, 5] == pytest.approx(one[0, 0], abs=1e-3)
    out = tmp_path / "report.json"
    ask = ["evaluate", "ranges", *words, "--model", str(weights), "--limit", "4"]
    assert terrascape([*ask, "--out", str(out)]) == 0
    assert "better than the relatives" in capsys.readouterr().err
    report = json.loads(out.read_text())
    assert set(report["answers"]) == {"unseen_species", "unseen_genera"}
    for side in report["answers"]:
        assert 0 <= report["metrics"][f"{side}/map"] <= 1
        assert report["metrics"][f"{side}/pac_km"] > 0
        assert f"{side}/pac_km_relatives" in report["controls"]
    assert report["command"].startswith("terrascape evaluate ranges --ranges DIR/ranges.npz")


def test_mistakes_are_told(packed, tmp_path):
    with pytest.raises(MissingFileError, match="give the ranges and the traits"):
        read_ranges(tmp_path / "ranges.npz", packed / "traits.csv")
    lines = (packed / "traits.csv").read_text().splitlines()
    (tmp_path / "traits.csv").write_text("\n".join(lines[:3]) + "\n")
    with pytest.raises(ConfigError, match="has no ranks of"):
        read_ranges(packed / "ranges.npz", tmp_path / "traits.csv")
    with pytest.raises(ConfigError, match="own=0"):
        load_config(RangesConfig, CONFIG, ["own=0"])


def test_what_was_not_learnt_is_given_the_bias_of_least_cost(packed, tmp_path, monkeypatch, capsys):
    """The costs that are compared are those of the metric with each bias added by hand."""
    monkeypatch.setattr(calibrate_ranges, "BIASES", (-2.0, 0.0, 3.0))
    monkeypatch.setattr(
        calibrate_ranges, "_SIDES", {"species": UNSEEN_SPECIES, "genera": UNSEEN_GENUS}
    )
    torch.manual_seed(0)
    model = RangeModel(variables=list(VARIABLES), degree=3, width=8, blocks=1, dim=8, queries=1)
    save_part(model, tmp_path)
    files = [f"--ranges={packed}/ranges.npz", f"--traits={packed}/traits.csv"]
    assert calibrate_ranges.main([*files, f"--weights={tmp_path}"]) == 0
    report = json.loads(capsys.readouterr().out)
    chosen = load_part(RangeModel, tmp_path).config["novel_bias"]
    assert chosen == [report["species_bias"], report["genera_bias"]]
    assert report["species_cost_km"] <= report["species_cost_km_without"]
    ranges = read_ranges(packed / "ranges.npz", packed / "traits.csv")
    rows = ranges.of(UNSEEN_SPECIES)
    table = Taxonomy(ranges.taxa, (ranges.side == LEARNT).tolist())
    plain = load_part(RangeModel, tmp_path)
    plain.register_to_config(novel_bias=[0.0, 0.0])
    encoder = RangeEncoder(plain, table, tmp_path)
    scores = logits(
        encoder.places(ranges.cells.latlon), encoder.taxa([ranges.names[row] for row in rows])
    )
    metric = ProximityMetric(ranges.cells.latlon)
    by_hand = np.mean(
        [
            metric((score + report["species_bias"]).sigmoid().numpy(), ranges.present[row]).cost_km
            for row, score in zip(rows, scores.T, strict=True)
        ]
    )
    assert report["species_cost_km"] == pytest.approx(by_hand, rel=1e-4)
    again = calibrate_ranges.main([*files, f"--weights={tmp_path}"])
    assert (again, json.loads(capsys.readouterr().out)) == (0, report)
