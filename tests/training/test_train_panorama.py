"""The recipe of the panorama model, from its command line to weights that draw."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from tiny_sets import HEIGHT, WIDTH, write_sets

from generation.checkpoint import load_safetensors
from generation.config import load_config
from generation.pipelines.panorama import PanoramaPipeline
from training.panorama_data import surroundings
from training.snapshot import newest
from training.train_panorama import PanoramaConfig, PanoramaTask, main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = f"""
height: {HEIGHT}
width: {WIDTH}
panel_rows: 2
network:
  block_out_channels: [16, 32]
  attention_head_dim: [1, 2]
  control_channels: [16, 16]
  norm_num_groups: 8
  token_dim: 16
  vector_dim: 16
  dim: 16
codec: {{latent_channels: 8, fit_images: 8}}
loop: {{steps: 2, batch_size: 2, warmup_steps: 0, panel_every: 2, log_every: 1, snapshot_every: 1}}
"""


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Accelerate keeps one state a process; every run here is a run of its own."""
    yield
    forget()


def forget():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panoramas")
    write_sets(folder / "train-00000.parquet")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def words(folder, out, *overrides):
    return [str(folder / "tiny.yaml"), f"data={folder}/train-*.parquet", f"out={out}", *overrides]


def run(folder, out, *overrides):
    try:
        main(words(folder, out, *overrides))
    finally:
        forget()
    return newest(out / "snapshots")


def task(folder, *overrides):
    path, *changes = words(folder, folder / "unused", *overrides)
    return PanoramaTask(load_config(PanoramaConfig, Path(path), changes))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    run(folder, out)
    return out


def same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_leaves_weights_that_draw_panels_and_its_settings(folder, finished, tmp_path):
    found = newest(finished / "snapshots")
    assert found.step == 2
    (tmp_path / "recorded.yaml").write_text(found.record)
    assert load_config(PanoramaConfig, tmp_path / "recorded.yaml").network.dim == 16
    with Image.open(finished / "panels/step-0000002.png") as panel:
        assert panel.size == (5 * WIDTH, 2 * HEIGHT)  # nearest, drawn with 0, 1 and 3, real
    pipeline = PanoramaPipeline.from_pretrained(finished / "weights")
    batch = next(task(folder).batches(0, 0, 1))
    drawn = pipeline(surroundings(batch), seeds=[0, 1], num_inference_steps=1)
    assert drawn.images.shape == (2, HEIGHT, WIDTH, 3)


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(folder, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/snapshots/step-00000002")
    resumed, whole = run(folder, tmp_path / "cut", "--resume"), newest(finished / "snapshots")
    assert resumed.step == whole.step == 2
    same(whole.weights, resumed.weights)
    same(whole.average, resumed.average)


def test_the_draft_is_learnt_first_and_held_while_the_denoiser_learns(folder, tmp_path):
    """The two stages of the embedded model, one after the other."""
    run(folder, tmp_path / "draft", "stage=draft", "loop.panel_every=0")
    first = {name: weights(tmp_path / "draft", name) for name in ("unet", "views")}
    start = f"start_from={tmp_path / 'draft/weights'}"
    run(folder, tmp_path / "joint", "stage=denoiser", start, "loop.panel_every=0")
    then = {name: weights(tmp_path / "joint", name) for name in ("unet", "views")}
    moved = {
        f"{part}.{name.split('.')[0]}"
        for part in first
        for name in first[part]
        if not torch.equal(first[part][name], then[part][name])
    }
    assert "unet.conv_in" in moved
    assert "views.to_level" in moved
    assert "views.spread" in moved
    assert not moved & {"views.score", "views.found", "views.correction", "views.profile"}


def test_the_decoder_learns_alone_and_what_it_learns_is_kept(folder, tmp_path):
    run(folder, tmp_path / "joint", "loop.panel_every=0")
    start = f"start_from={tmp_path / 'joint/weights'}"
    run(folder, tmp_path / "decoder", "stage=decoder", start, "loop.panel_every=0")
    again = f"start_from={tmp_path / 'decoder/weights'}"
    run(folder, tmp_path / "denoiser", "stage=denoiser", again, "loop.panel_every=0")
    parts = ("unet", "control", "decoder")
    first, then, last = (
        {name: weights(tmp_path / stage, name) for name in parts}
        for stage in ("joint", "decoder", "denoiser")
    )
    same(first["unet"], then["unet"])
    same(first["control"], then["control"])
    same(then["decoder"], last["decoder"])
    assert not torch.equal(first["decoder"]["leave.weight"], then["decoder"]["leave.weight"])
    assert not torch.equal(then["unet"]["conv_in.weight"], last["unet"]["conv_in.weight"])


def weights(out, part):
    return load_safetensors(out / "weights" / part / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(("stage", "share"), [("draft", 0.7), ("joint", 0.85), ("decoder", 0.9)])
def test_two_sets_are_learnt(folder, stage, share):
    learner = task(folder, f"stage={stage}", "keep_depth=0.0", "drop_satellite=0.0")
    model, batch = learner.model.train(), next(learner.batches(0, 0, 1))
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=8e-3)
    torch.manual_seed(0)
    losses = []
    for _ in range(24):
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-6:]) < share * np.mean(losses[:3])


def test_the_spread_is_how_far_the_truth_lies_from_the_draft(folder):
    learner = task(folder, "drop_satellite=0.0", "keep_depth=0.0")
    spread = learner.pipeline.views.spread
    assert spread.shape == (8, HEIGHT // 8)
    assert float(spread.min()) > 0.01
    assert float(spread.max()) < 5
    assert float((spread[:, 0] / spread[:, -1]).log().abs().max()) > 0.1  # sky and ground


def test_inputs_are_left_out_as_often_as_the_settings_say(folder):
    learner = task(folder, "stage=draft", "drop_satellite=0.3", "keep_depth=0.2")
    batch = next(learner.batches(0, 0, 1))
    for name in ("panoramas", "satellite"):  # pictures of one pixel: what is there counts alone
        batch[name] = batch[name][..., :1, :1, :]
    batch["depth"] = batch["depth"][:, :1, :1]
    many = {name: value[:1].expand(4000, *value.shape[1:]) for name, value in batch.items()}
    torch.manual_seed(0)
    given = learner.model.given(many)
    assert float(given.has_satellite.float().mean()) == pytest.approx(0.7, abs=0.03)
    assert float(given.has_depth.float().mean()) == pytest.approx(0.2, abs=0.03)
    counts = given.valid.sum(1)
    shares = [float((counts == n).float().mean()) for n in range(4)]
    assert shares == pytest.approx([0.25] * 4, abs=0.03)
    assert bool((given.valid.int().diff(dim=1) <= 0).all())  # the first slots stay


# --- the command line ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data=nowhere-*.parquet", "'nowhere-*.parquet' matches no file"),
        ("drop_satellite=1.5", "drop_satellite=1.5 is no probability"),
        ("keep_depth=-1", "keep_depth=-1.0 is no probability"),
        ("stage=all", "stage"),
        ("decoder_errors=-1.0", "decoder_errors=-1"),
        ("pure_noise=1.5", "pure_noise=1.5"),
        ("start_from=nowhere", "nowhere/unet/config.json is not there"),
        ("network.dims=3", "network.dims"),
        ("loop.world_size=2", "world_size=2 but 1 processes run"),
    ],
)
def test_mistakes_are_one_message_and_no_folder(folder, tmp_path, capsys, override, told):
    with pytest.raises(SystemExit) as stopped:
        run(folder, tmp_path / "run", override)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("panorama_nano*.yaml")), ids=lambda p: p.name)
def test_every_nano_configuration_is_valid(path):
    cfg = load_config(PanoramaConfig, path)
    cell = cfg.codec.patch * 2 ** (len(cfg.network.block_out_channels) - 1)
    assert cfg.height % cell == 0
    assert cfg.width % cell == 0
