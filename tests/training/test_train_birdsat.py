"""BirdSAT's recipe: pairs, losses, runs of a few steps, and the report on them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_sets import write_sets
from torch.nn import functional as F

from generation.cli import main as terrascape
from generation.encoders.birdsat import CvmMae, as_view
from generation.encoders.cross_view import load_cross_view
from generation.encoders.masked_vit import MaskedVit, Masking, patchified
from generation.errors import ConfigError
from training.birdsat_losses import filling_in, matching, told_apart
from training.cross_view_data import (
    CrossViews,
    CrossViewSamples,
    is_table,
    read_pairs,
    read_photos,
    turned,
)
from training.evaluate_birdsat import cells, strangers
from training.panorama_data import read_sets
from training.train_birdsat import BirdSatConfig, BirdSatTask
from training.train_birdsat import main as train

VIEW, ABOVE = [16, 64, 8], [16, 16, 8]
TOWER = "depth: 1, heads: 2, dim: 16, cell: vit"
TINY = f"""
ground: {{view: {VIEW}, {TOWER}}}
satellite: {{view: {ABOVE}, {TOWER}}}
decoder: [8, 1, 2]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("birdsat")
    write_sets(folder / "sets.parquet", 4)
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pairs(home):
    return read_pairs(read_sets([home / "sets.parquet"]), (16, 64), (16, 16))


def told(home, kind, **loop):
    loop = {"steps": 2, "batch_size": 4, "panel_every": 2, "snapshot_every": 1} | loop
    given = [f"loop.{name}={value}" for name, value in loop.items()]
    data, out = f"data={home}/sets.parquet", f"out={home}/{kind}"
    return [str(home / "tiny.yaml"), data, out, f"kind={kind}", *given]


# --- pairs ---------------------------------------------------------------------------------------
def test_pairs_are_read_at_the_sizes_learnt(pairs):
    assert (pairs.ground.shape, pairs.satellite.shape) == ((16, 16, 64, 3), (16, 16, 16, 3))
    assert np.unique(pairs.sets, return_counts=True)[1].tolist() == [4, 4, 4, 4]
    np.testing.assert_allclose(pairs.latlon[5], [46.027, 7.0], rtol=1e-6)
    assert set(pairs.blocks.tolist()) == {36 * 4}


def test_a_set_without_a_satellite_image_is_refused(home):
    sets = read_sets([home / "sets.parquet"])
    sets[1] = replace(sets[1], satellite=None)
    with pytest.raises(ConfigError, match="1 of 4 sets lack a satellite image, train-1 first"):
        read_pairs(sets, None, None)


def test_a_quarter_turn_moves_what_lies_north_to_the_east():
    """North is the middle of a panorama and up in an image."""
    ground, satellite = np.zeros((4, 16, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    ground[:, 8], satellite[0, 4] = 255, 255
    panorama, image = turned(ground, satellite, 1, False)
    assert panorama[0, 12].all()  # east is a quarter right of the middle
    assert image[4, 7].all()
    panorama, image = turned(ground, satellite, 1, True)
    assert panorama[0, 3].all()  # and west as far left
    assert image[4, 0].all()


def test_a_sample_is_a_function_of_its_draw(pairs):
    samples = CrossViewSamples(pairs)
    one, same, other = samples[3, 0], samples[3, 0], samples[3, 1]
    assert all(torch.equal(one[name].nan_to_num(-1), same[name].nan_to_num(-1)) for name in one)
    seen = {samples[3, draw]["satellite"].numpy().tobytes() for draw in range(40)}
    assert len(seen) == 8  # four turns, mirrored or not
    assert torch.equal(one["latlon"], other["latlon"])


# --- losses --------------------------------------------------------------------------------------
def test_only_what_is_hidden_is_to_be_filled_in(monkeypatch):
    torch.manual_seed(0)
    tower = MaskedVit([VIEW], 16, 1, 2, [8, 1, 2]).eval()
    masking = Masking(torch.tensor([[0, 3, 7, 9]]), 16)
    monkeypatch.setattr(Masking, "random", lambda *_: masking)
    image = torch.randn(1, 3, 16, 64)
    guess = tower.decode(tower.encode([image], masking), masking)[0]
    hidden = [row for row in range(16) if row not in (0, 3, 7, 9)]
    expected = (guess - patchified(image, 8))[:, hidden].square().mean()
    torch.testing.assert_close(filling_in(tower, [image]), expected)


def test_false_pairs_have_the_image_and_the_place_of_the_row_before():
    torch.manual_seed(0)
    model = CvmMae({"views": [VIEW, ABOVE], "dim": 16, "depth": 1, "heads": 2}).eval()
    ground, satellite = torch.randn(3, 3, 16, 64), torch.randn(3, 3, 16, 16)
    known = (torch.rand(3, 2) * 40, torch.full((3, 2), torch.nan))
    found = matching(model, ground, satellite, known)
    back = [2, 0, 1]
    torch.testing.assert_close(found[0], model(ground, satellite, *known))
    torch.testing.assert_close(found[1], model(ground, satellite[back], *(e[back] for e in known)))
    expected = (-F.logsigmoid(found[0]) - F.logsigmoid(-found[1])).mean() / 2
    torch.testing.assert_close(told_apart(found), expected)
    more = matching(model, ground, satellite, known, false=2)
    torch.testing.assert_close(more[:2], found)
    further = [1, 2, 0]
    torch.testing.assert_close(
        more[2], model(ground, satellite[further], *(e[further] for e in known))
    )
    halves = F.softplus(-more[0]).mean() / 2 + F.softplus(more[1:]).mean() / 2
    torch.testing.assert_close(told_apart(more), halves)
    with pytest.raises(ConfigError, match="no 1 false pairs"):
        matching(model, ground[:1], satellite[:1], tuple(e[:1] for e in known))


def test_masks_are_filled_in_half_precision_too():
    torch.manual_seed(0)
    tower = MaskedVit([VIEW], 16, 1, 2, [8, 1, 2], cell="vitae")
    with torch.autocast("cpu", torch.bfloat16):
        loss = filling_in(tower, [torch.randn(2, 3, 16, 64)])
    loss.backward()
    assert tower.mask_token.grad.isfinite().all()


def test_what_is_masked_leaves_no_trace_in_batch_norms():
    torch.manual_seed(0)
    tower = MaskedVit([VIEW], 16, 1, 2, [8, 1, 2], cell="vitae").train()
    before = {n: v.clone() for n, v in tower.named_buffers() if "running" in n}
    filling_in(tower, [torch.randn(2, 3, 16, 64)]).backward()
    assert all(torch.equal(v, before[n]) for n, v in tower.named_buffers() if n in before)
    tower.encode([torch.randn(2, 3, 16, 64)])
    assert any(not torch.equal(v, before[n]) for n, v in tower.named_buffers() if n in before)


# --- the recipe ----------------------------------------------------------------------------------
def test_both_parts_of_a_run_are_a_model_that_the_report_measures(home, capsys):
    for kind in ("embed", "match"):
        train(told(home, kind))
        panel = json.loads(next((home / kind / "panels").glob("*.json")).read_text())
        assert panel["learnt_from"]  # no block is held out
        assert panel["pairs"] == 16
    model = home / "model"
    model.mkdir()
    for kind in ("embed", "match"):
        (home / kind / "weights" / kind).rename(model / kind)
    assert load_cross_view(str(model)).reads == ("place",)
    out = home / "report.json"
    assert terrascape([
        "evaluate", "birdsat", "--data", f"{home}/sets.parquet", "--model", str(model),
        "--first", "3", "--limit", "4", "--out", str(out),
    ]) == 0  # fmt: skip
    report = json.loads(out.read_text())
    assert report["data"]["pairs"] == 16
    assert report["model"] == load_cross_view(str(model)).sha256
    metrics, controls = report["metrics"], report["controls"]
    ways = {name.split("/")[0] for name in metrics}
    assert ways == {"image", "place", "matched", "pairs"}
    assert {"colour", "other_place", "other_image", "chance"} <= {n.split("/")[0] for n in controls}
    assert 1 <= metrics["image/median_rank"] <= 16
    assert controls["chance/recall_at_10"] == pytest.approx(10 / 16)
    assert "--limit 4" in report["command"]
    assert "chance within 10" in capsys.readouterr().err


def test_a_matching_model_begins_with_an_embedding_one_and_reads_views_alone(home, tmp_path):
    train([*told(home, "embed"), f"out={tmp_path}/first"])
    cfg = replace(
        BirdSatConfig(**_sizes(home)),
        kind="match",
        begin_with=tmp_path / "first/weights",
        align=1.0,
    )
    task = BirdSatTask(cfg)
    first = load_cross_view(str(tmp_path / "first/weights"))._embed
    tower = task.model.net.joint_tower
    for name, part in first.ground_tower.blocks.state_dict().items():
        assert torch.equal(tower.blocks.state_dict()[name], part)
    above = first.satellite_tower.patches[0].proj.weight
    assert torch.equal(tower.patches[1].proj.weight, above)
    batch = next(task.batches(0, 0, 1))
    found = task.model(batch)
    total = found["told"] + found["filled"] + found["aligned"]
    torch.testing.assert_close(found["loss"], total)
    # what aligns the views reads each of them alone
    task.model.eval()
    net, known = task.model.net, (batch["latlon"], batch["date"])
    ground = as_view(batch["ground"], (16, 64))
    satellite = as_view(batch["satellite"], (16, 16))
    loss = task.model._aligned(net, [ground, satellite], known)
    seen = [(net.joint_tower.patches[0](ground), 0), (net.joint_tower.patches[1](satellite), 16)]
    tokens = []
    for patches, at in seen:
        x = patches + tower.pos_embed[:, 1 + at : 1 + at + patches.shape[1]]
        first_token = (tower.cls_token + tower.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first_token, x], 1)
        for block in tower.blocks:
            x = block(x)
        tokens.append(tower.norm(x)[:, 0])
    tokens[1] = tokens[1] + net.metadata(*known)
    one, other = (F.normalize(each, dim=1) for each in tokens)
    logits = task.model.log_scale.exp() * one @ other.T
    rows = torch.arange(len(one))
    expected = (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="begin_with"):
        BirdSatTask(replace(cfg, ground=replace(cfg.ground, dim=8)))


def test_a_pair_that_is_left_over_is_not_judged(home):
    cfg = replace(BirdSatConfig(**_sizes(home)), kind="match")
    task = BirdSatTask(cfg)
    task.model.eval().requires_grad_(False)
    three = task.learnt.decoded(np.arange(16)[[0, 1, 2] * 11])
    assert len(three) == 33
    found = task._judge(three, torch.full((33, 2), torch.nan))
    assert 0 <= found["right"] <= 1


def test_a_few_steps_learn_a_handful_of_pairs(home):
    """Both losses go down, and the views are found."""
    cfg = BirdSatConfig(**{**_sizes(home), "jitter": 0.0, "drop": 0.0})
    task = BirdSatTask(cfg)
    optimizer = torch.optim.AdamW(task.model.parameters(), 3e-3)
    samples = [CrossViewSamples(task.learnt)[index, 0] for index in range(0, 16, 2)]
    batch = {name: torch.stack([each[name] for each in samples]) for name in samples[0]}
    losses = []
    for _ in range(60):
        found = task.model(batch)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        losses.append(found["told"].item())
    assert losses[0] > 1.5
    assert losses[-1] < 0.5 * losses[0]


def _sizes(home):
    from generation.config import load_config

    cfg = load_config(BirdSatConfig, home / "tiny.yaml", [f"data={home}/sets.parquet"])
    return {name: getattr(cfg, name) for name in ("data", "ground", "satellite", "decoder")}


# --- photographs ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A table of four photographs, two of them dated."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = []
    for number, date in enumerate(("2024-05-31", "", "2023-12-01", "")):
        for name, side in (("g", 40), ("s", 24)):
            pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
        rows.append(f"g{number}.png,s{number}.png,{45 + number},7.5,{date}")
    text = "\n".join(["ground,satellite,lat,lon,date", *rows]) + "\n"
    (folder / "pairs.csv").write_text(text, encoding="utf-8")
    return folder


def test_photographs_are_decoded_when_they_are_asked_for(photos):
    pairs = read_photos(photos / "pairs.csv", (16, 16), (16, 16))
    assert pairs.has_dates
    np.testing.assert_array_equal(pairs.date, [[5, 31], [np.nan] * 2, [12, 1], [np.nan] * 2])
    assert pairs[np.array([False, False, True, False])].latlon.tolist() == [[47.0, 7.5]]
    shown = pairs.decoded(np.array([3, 0]))
    assert shown.ground.shape == (2, 16, 16, 3)
    samples = CrossViewSamples(pairs)
    seen = {samples[0, draw]["satellite"].numpy().tobytes() for draw in range(30)}
    assert len(seen) == 4  # it turns, and is not mirrored
    assert len({samples[0, draw]["ground"].numpy().tobytes() for draw in range(30)}) == 2
    assert torch.equal(samples[2, 0]["date"], torch.tensor([12.0, 1.0]))


def test_a_run_on_photographs_reads_dates_and_goes_on_from_weights(photos, tmp_path):
    words = [
        "configs/birdsat_full.yaml", f"data={photos}/pairs.csv", "ground.view=[16,16,8]",
        "satellite.view=[16,16,8]", "decoder=[8,1,2]", "loop.mixed_precision=no", "loop.steps=1",
        "loop.batch_size=2", "loop.panel_every=1", "loop.snapshot_every=1",
    ]  # fmt: skip
    words += [f"{view}.{n}" for view in ("ground", "satellite") for n in ("dim=16", "depth=1")]
    words += ["ground.heads=2", "satellite.heads=2"]
    train([*words, f"out={tmp_path}/first"])
    first = load_cross_view(str(tmp_path / "first/weights"))
    assert first.reads == ("place", "date")
    again = [f"start_from={tmp_path}/first/weights", f"out={tmp_path}/again", "hold_satellite=true"]
    train([*words, *again])
    before, after = (
        load_file(tmp_path / run / "weights/embed/diffusion_pytorch_model.safetensors")
        for run in ("first", "again")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("ground_tower.") for name in moved)
    assert not any(name.startswith("satellite_tower.") for name in moved)  # batch norms too
    with pytest.raises(SystemExit):
        train([*words, *again, "ground.view=[32,32,8]"])


def test_every_mistake_of_a_table_is_told(photos, tmp_path):
    def refused(told, text):
        file = photos / "wrong.csv"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=told):
            read_photos(file, (16, 16), (16, 16))

    head = "ground,satellite,lat,lon,date\n"
    refused("lacks the column lat", "ground,satellite,lon\na,b,1\n")
    refused("less than two rows", head + "g0.png,s0.png,1,2,\n")
    wrong = "g0.png,s0.png,95,7,\ngone.png,s0.png,1,2,\ng0.png,s0.png,1,2,2024-13-01\n"
    refused(
        r"line 2: .*lat=95.*line 3: .*gone.png is not there.*line 4: .*2024-13-01", head + wrong
    )
    refused("line 2: .*line 3: ", head + "g0.png,s0.png,,2,\ng0.png,s0.png,x,2,\n")
    assert is_table(str(photos / "pairs.csv"))
    assert not is_table(str(photos / "absent.csv"))
    assert not is_table("runs/panoramas/train-*.parquet")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("kind=moco", "embed or match"),
        ("compat=range", "give mvrl"),
        ("drop=1", "drop=1"),
        ("false=0", "nothing to be told apart"),
        ("hold_satellite=true", "has one"),
        ("validation=144", "0 pairs are left"),
    ],
)
def test_settings_that_cannot_be_are_told(home, given, hint, capsys):
    kind = "match" if given.startswith("hold") else "embed"
    with pytest.raises(SystemExit):
        train([*told(home, kind), f"out={home}/wrong", given])
    assert hint in capsys.readouterr().err


def test_strangers_share_no_ground():
    latlon = np.array([[40.0, 20.0], [40.1, 20.0], [43.0, 20.0], [40.0, 26.0]], np.float32)
    found = strangers(latlon, seed=0)
    assert found[0] in (2, 3)
    assert found[1] in (2, 3)
    assert found[2] in (0, 1, 3)
    with pytest.raises(ConfigError, match="larger region"):
        strangers(latlon[:2], seed=0)
    assert cells(latlon).tolist() == [20010, 20010, 21010, 20013]


def test_pairs_can_be_taken_by_a_mask():
    made = CrossViews(
        np.zeros((2, 2, 4, 3), np.uint8),
        np.ones((2, 2, 2, 3), np.uint8),
        np.array([[-0.5, 179.0], [12.0, -3.0]], np.float32),
        np.arange(2),
    )
    assert made.blocks.tolist() == [-36 + 17, 36 - 1]
    assert len(made[np.array([True, False])]) == 1
    assert math.isclose(float(made[np.array([1])].latlon[0, 0]), 12)
