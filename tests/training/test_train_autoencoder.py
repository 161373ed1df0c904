"""The recipe of the decoder, from its command line to weights that draw."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from tiny import smooth_images

from generation.checkpoint import load_part
from generation.config import load_config
from generation.diffusion.codec import PatchCodec, to_signal
from generation.diffusion.decoder import DetailDecoder
from training.snapshot import newest
from training.train_autoencoder import AutoencoderConfig, AutoencoderModel, main, new_decoder

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "configs/autoencoder_nano_tiny.yaml"


def run(tile_folder, out, *overrides):
    try:
        main([str(TINY), f"data={tile_folder}", f"out={out}", *overrides])
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return newest(out / "snapshots")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    cfg = load_config(AutoencoderConfig, TINY)
    codec = PatchCodec.fit(smooth_images(64, 32), patch=8, latent_channels=8)
    return AutoencoderModel(codec, new_decoder(cfg), cfg)


def some_batch():
    return {
        "image": torch.from_numpy(smooth_images(4, 32)),
        "classes": torch.zeros(4, 32, 32, dtype=torch.uint8),
    }


def test_a_run_leaves_a_codec_a_decoder_and_panels(tile_folder, tmp_path):
    assert run(tile_folder, tmp_path / "run").step == 2
    with Image.open(tmp_path / "run/panels/step-0000002.png") as panel:
        assert panel.size == (6 * 128, 2 * 128)  # six columns, two tiles
    codec = load_part(PatchCodec, tmp_path / "run/weights/codec")
    decoder = load_part(DetailDecoder, tmp_path / "run/weights/decoder")
    classes = torch.zeros(1, 32, 32, dtype=torch.uint8)
    share, given = torch.full((1,), 0.1), torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        _, tones = decoder(torch.randn(1, 8, 4, 4), share, classes, given, codec)
    assert tones.shape == (1, 3, 32, 32)


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(tile_folder, tmp_path):
    changes = ("loop.steps=3", "loop.panel_every=0", "loop.keep_snapshots=3")
    whole = run(tile_folder, tmp_path / "whole", *changes)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"cut/snapshots/step-{step:08d}")
    resumed = run(tile_folder, tmp_path / "cut", *changes, "--resume")
    for name in ("weights", "average"):
        first, second = getattr(whole, name), getattr(resumed, name)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_goes_on_from_an_earlier_decoder(tile_folder, tiny_pipeline, tmp_path):
    weights = tmp_path / "weights"
    tiny_pipeline.save_pretrained(weights)
    changes = (f"start_from={weights}", "loop.panel_every=0", "loop.lr=0")
    run(tile_folder, tmp_path / "run", *changes)
    for part, kind in (("codec", PatchCodec), ("decoder", DetailDecoder)):
        before, after = (load_part(kind, at / part) for at in (weights, tmp_path / "run/weights"))
        pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        for (name, old), new in pairs:
            torch.testing.assert_close(new, old, atol=1e-3, rtol=1e-3, msg=name)


def test_neither_player_learns_from_the_loss_of_the_other(model):
    torch.manual_seed(1)
    losses = model(some_batch())
    judge, drawer = (list(p.parameters()) for p in (model.discriminator, model.decoder))

    def reached(loss, parameters):
        slopes = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return any(slope is not None and bool(slope.any()) for slope in slopes)

    for name in ("latents", "colours", "perceptual", "generator"):
        assert reached(losses[name], drawer)
        assert not reached(losses[name], judge)
    assert reached(losses["discriminator"], judge)
    assert not reached(losses["discriminator"], drawer)


def test_a_decoder_that_sees_one_colour_takes_the_noise_off_it():
    torch.manual_seed(0)
    cfg = load_config(
        AutoencoderConfig,
        TINY,
        ["adversarial=0", "colours=0", "perceptual=0", "decoder.max_share=0.6"],
    )
    codec = PatchCodec.fit(smooth_images(64, 32), patch=8, latent_channels=8)
    model = AutoencoderModel(codec, new_decoder(cfg), cfg)
    image = np.full((1, 32, 32, 3), (190, 120, 60), np.uint8)
    batch = {
        "image": torch.from_numpy(image).repeat(4, 1, 1, 1),
        "classes": torch.zeros(4, 32, 32, dtype=torch.uint8),
    }
    x0 = model.codec.encode(to_signal(image))
    noisy = 0.5 * x0 + 0.5 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    given = torch.tensor([0.5]), batch["classes"][:1], torch.tensor([True]), model.codec

    @torch.no_grad()
    def error():
        return float((model.decoder(noisy, *given)[0] - x0).square().mean())

    optimizer, before = torch.optim.AdamW(model.parameters(), lr=4e-3), error()
    for _ in range(300):
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert error() < 0.6 * before


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data=nowhere", "nowhere lacks images.npy"),
        ("start_from=nowhere", "nowhere"),
        ("layout_drop=-1", "layout_drop=-1.0 is no probability"),
        ("decoder.max_share=1.0", "decoder.max_share=1.0 is no share of noise"),
        ("decoder.max_shares=0.1", "decoder.max_shares"),
    ],
)
def test_mistakes_are_one_message_and_no_folder(tile_folder, tmp_path, capsys, override, told):
    with pytest.raises(SystemExit) as stopped:
        run(tile_folder, tmp_path / "run", override)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("autoencoder*.yaml")), ids=str)
def test_every_configuration_is_valid(path):
    assert load_config(AutoencoderConfig, path).crop_px % 8 == 0
