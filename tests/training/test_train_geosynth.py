"""The recipe of the satellite model, from its command line to weights that draw."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from tiny import make_pipeline, smooth_images

from generation.checkpoint import save_part
from generation.config import load_config
from generation.diffusion.codec import PatchCodec
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.pipelines.satellite import SatellitePipeline
from generation.pipelines.scene import Scene
from training.snapshot import newest
from training.train_geosynth import GeoSynthConfig, GeoSynthModel, main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT, TINY = ROOT / "training/train_geosynth.py", ROOT / "configs/geosynth_nano_tiny.yaml"


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Accelerate keeps one state a process; every run here is a run of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def words(tile_folder, out, *overrides):
    parts = f"autoencoder={tile_folder / 'autoencoder'}"
    return [str(TINY), f"data={tile_folder}", f"out={out}", parts, *overrides]


def run(tile_folder, out, *overrides):
    try:
        main(words(tile_folder, out, *overrides))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return newest(out / "snapshots")


def test_a_run_leaves_weights_that_draw_panels_and_its_settings(tile_folder, tmp_path):
    found = run(tile_folder, tmp_path / "run")
    assert found.step == 2
    cfg = load_config(GeoSynthConfig, write(tmp_path, found.record))
    assert cfg.loop.steps == 2
    assert cfg.data == tile_folder
    with Image.open(tmp_path / "run/panels/step-0000002.png") as panel:
        assert panel.size == (2 * 3 * 256, 256)  # layout, generated, real; two tiles
    pipeline = SatellitePipeline.from_pretrained(tmp_path / "run/weights")
    image = pipeline([Scene(Window.around(Location(46.0, 7.0), 8, 64))], num_inference_steps=2)
    assert image.shape == (1, 64, 64, 3)
    again = run(tile_folder, tmp_path / "next", f"start_from={tmp_path / 'run/weights'}")
    assert again.weights.keys() == found.weights.keys()


def test_a_second_stage_on_other_latents_is_refused(tile_folder, tmp_path, capsys):
    run(tile_folder, tmp_path / "run", "loop.steps=1")
    codec = PatchCodec.fit(smooth_images(64, 32), patch=8, latent_channels=8, whitening=0.2)
    shutil.copytree(tile_folder / "autoencoder", tmp_path / "other")
    save_part(codec, tmp_path / "other/codec")
    changes = f"start_from={tmp_path / 'run/weights'}", f"autoencoder={tmp_path / 'other'}"
    with pytest.raises(SystemExit):
        run(tile_folder, tmp_path / "next", *changes)
    assert "latents of another codec" in capsys.readouterr().err


def write(folder, text):
    path = folder / "recorded.yaml"
    path.write_text(text)
    return path


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(tile_folder, tmp_path):
    changes = ("loop.steps=3", "loop.panel_every=0", "loop.keep_snapshots=3")
    whole = run(tile_folder, tmp_path / "whole", *changes)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"cut/snapshots/step-{step:08d}")
    resumed = run(tile_folder, tmp_path / "cut", *changes, "--resume")
    assert whole.step == resumed.step == 3
    for name in ("weights", "average"):
        first, second = getattr(whole, name), getattr(resumed, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_image_that_is_always_the_same_is_learnt():
    torch.manual_seed(0)
    pipeline = make_pipeline()
    pipeline.decoder.hand_over = 0.0  # an untrained decoder can do nothing about noise
    image = np.full((16, 32, 32, 3), (190, 120, 60), np.uint8)
    scene = Scene(Window.around(Location(46.0, 7.0), 8, 32), layout=np.zeros((32, 32), np.uint8))

    def error():
        drawn = pipeline([scene], num_inference_steps=10)[0]
        return np.abs(drawn.astype(float) - image[0]).mean()

    model, untrained = GeoSynthModel(pipeline, GeoSynthConfig(drop=0.0, drop_all=0.0)), error()
    batch = {
        "image": torch.from_numpy(image),
        "classes": torch.zeros(16, 32, 32, dtype=torch.uint8),
        "latlon": torch.tensor([[46.0, 7.0]]).repeat(16, 1),
        "gsd_m": torch.full((16,), scene.window.gsd_m),
        "states": torch.zeros(16, 24, 384),
        "mask": torch.ones(16, 24, dtype=torch.bool),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    losses = []
    for _ in range(200):
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    assert error() < 0.5 * untrained


def test_dropping_is_decided_for_each_input_and_sample(tiny_pipeline):
    torch.manual_seed(0)
    count = 4000
    batch = {
        "image": torch.zeros(count, 1), "states": torch.zeros(count, 1, 384),
        "mask": torch.ones(count, 1).bool(), "latlon": torch.zeros(count, 2),
        "gsd_m": torch.ones(count), "classes": torch.zeros(count, 1, 1).byte(),
    }  # fmt: skip
    for drop, drop_all in ((0.1, 0.2), (0.0, 0.0), (1.0, 0.0)):
        model = GeoSynthModel(tiny_pipeline, GeoSynthConfig(drop=drop, drop_all=drop_all))
        given = model.given(batch)
        kept = torch.stack([given.has_text, given.has_location, given.has_layout]).float()
        assert kept.mean(1).tolist() == pytest.approx([(1 - drop) * (1 - drop_all)] * 3, abs=0.03)
        none = float((kept.sum(0) == 0).float().mean())
        assert none == pytest.approx(drop_all + (1 - drop_all) * drop**3, abs=0.03)


# --- the command line ----------------------------------------------------------------------------
def test_all_mistakes_of_a_configuration_are_told_at_once(tmp_path, capsys):
    bad = tmp_path / "typo.yaml"
    bad.write_text("crop_pix: 64\nloop:\n  lr: fast\n  num_step: 3\nnetwork: {token_dim: x}\n")
    with pytest.raises(SystemExit) as stopped:
        main([str(bad), "loop.steps=0", "network.depth=8"])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for name in ("crop_pix", "loop.lr", "loop.num_step", "network.token_dim", "network.depth"):
        assert name in told


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data=nowhere", "nowhere lacks images.npy"),
        ("autoencoder=nowhere", "nowhere/codec/config.json is not there"),
        ("drop=1.5", "drop=1.5 is no probability"),
        ("loop.log_every=0", "log_every=0"),
        ("loop.world_size=2", "world_size=2 but 1 processes run"),
    ],
)
def test_mistakes_are_one_message_and_no_folder(tile_folder, tmp_path, capsys, override, told):
    with pytest.raises(SystemExit) as stopped:
        main(words(tile_folder, tmp_path / "run", override))
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("geosynth_nano*.yaml")), ids=str)
def test_every_nano_configuration_is_valid(path):
    cfg = load_config(GeoSynthConfig, path)
    assert 8 * 2 ** (len(cfg.network.block_out_channels) - 1) <= cfg.crop_px
    assert len(cfg.network.attention_head_dim) == len(cfg.network.block_out_channels)


def test_the_script_runs_as_a_script(tile_folder, tmp_path, monkeypatch):
    path = list(sys.path)
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *path])
    monkeypatch.setattr(sys, "argv", ["x", *words(tile_folder, tmp_path / "run", "loop.steps=1")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert sys.path[0] == str(ROOT)
    assert (tmp_path / "run/weights/model_index.json").is_file()


def test_importing_the_recipe_leaves_the_path_alone():
    before = list(sys.path)
    runpy.run_path(str(SCRIPT), run_name="not_main")
    assert sys.path == before


def launch(*command):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_learn_together(tile_folder, tmp_path):
    """The first process alone would see the same sample with the same noise and learn otherwise."""
    changes = ("loop.batch_size=1", "loop.steps=1")
    rest = words(tile_folder, tmp_path / "two", "loop.world_size=2", *changes, "--resume")
    launch("torch.distributed.run", "--nproc_per_node=2", "--master_port=29517", str(SCRIPT), *rest)
    two = newest(tmp_path / "two/snapshots")
    one = run(tile_folder, tmp_path / "one", *changes)
    assert two.step == one.step == 1
    assert two.weights.keys() == one.weights.keys()
    moved = [name for name in one.weights if not torch.equal(one.weights[name], two.weights[name])]
    assert any(name.startswith("denoiser.unet.") for name in moved)
    assert any(name.startswith("denoiser.controlnet.") for name in moved)
    assert (tmp_path / "two/weights/model_index.json").is_file()


@pytest.mark.slow
def test_accelerate_launches_the_script(tile_folder, tmp_path):
    rest = words(tile_folder, tmp_path / "run", "loop.steps=1")
    launch("accelerate.commands.launch", "--cpu", "--num_processes", "1", str(SCRIPT), *rest)
    assert newest(tmp_path / "run/snapshots").step == 1
