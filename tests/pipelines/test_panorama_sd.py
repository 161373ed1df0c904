"""The full-size pipeline of panoramas with tiny random weights in the published layout."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn import functional as F

import generation
from generation.checkpoint import PART_WEIGHTS, model_sha256
from generation.diffusion.azimuth import AzimuthDownsample2D
from generation.diffusion.guidance import GuidanceScales
from generation.diffusion.panorama_denoiser import MixedViewDenoiser
from generation.diffusion.surroundings import Guide, Surroundings
from generation.diffusion.views import MixedViewEncoder
from generation.errors import CancelledError, InvalidSpecError, MissingFileError, WeightsError
from generation.pipelines.panorama_parts import control_of
from generation.pipelines.panorama_render import render
from generation.pipelines.panorama_sd import MixedViewPipeline, with_text
from generation.pipelines.parts import (
    SAMPLERS,
    Options,
    load_model,
    load_scheduler,
    load_text,
    set_steps,
)
from generation.registry import find, locate
from generation.render_batch import weights_sha256
from generation.spec import RunSpec
from training.tiny_sd import write_base

HEIGHT, WIDTH, CELL = 32, 128, 8
LEVELS = (16, 16)
CPU = Options(device="cpu", sampler="ddim")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Weights where TERRASCAPE_HOME would have them; the control branch has a say already."""
    folder = tmp_path_factory.mktemp("home")
    write_base(folder / "sd21-base")
    make(folder / "sd21-base").save_pretrained(folder / "mixed-view")
    return folder


def make(base, *, kind=MixedViewPipeline, opened=True):
    unet = load_model(UNet2DConditionModel, base / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        control = control_of(unet, LEVELS)
        views = MixedViewEncoder(
            height=HEIGHT,
            width=WIDTH,
            dim=16,
            token_dim=16,
            vector_dim=1,
            level_dims=LEVELS,
            latent_channels=4,
        )
        if opened:
            for layer in (*control.encoder.controlnet_down_blocks, views.correction):
                torch.nn.init.normal_(layer.weight, std=0.1)
    return kind(
        unet,
        load_model(AutoencoderKL, base / "vae"),
        load_text(base),
        load_scheduler(base / "scheduler", "ddim"),
        control,
        views,
    )


@pytest.fixture(scope="module")
def pipeline(home):
    return MixedViewPipeline.from_pretrained(
        home / "mixed-view", base=home / "sd21-base", options=CPU
    )


def around(count=2, views=3, *, satellite=True):
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count * 3, 3, HEIGHT // 8, WIDTH // 8, generator=draw) * 2 - 1
    return Surroundings(
        panoramas=F.interpolate(coarse, scale_factor=8).unflatten(0, (count, 3)),
        valid=(torch.arange(3) < views).expand(count, 3),
        offset_m=torch.randn(count, 3, 2, generator=draw) * 8000,
        satellite=torch.rand(count, 3, 64, 64, generator=draw) * 2 - 1,
        has_satellite=torch.full((count,), satellite),
        gsd_m=torch.full((count,), 1700.0),
        lat_deg=torch.full((count,), 46.0),
        depth=torch.zeros(count, 1, HEIGHT, WIDTH),
        has_depth=torch.zeros(count, dtype=torch.bool),
    )


def images(pipeline, given, **options):
    return pipeline(given, seeds=[3, 4], num_inference_steps=2, **options).images


def test_every_number_of_views_draws_and_matters(pipeline):
    drawn = [images(pipeline, around(views=n)) for n in range(4)]
    drawn.append(images(pipeline, around(views=0, satellite=False)))
    assert all(d.shape == (2, HEIGHT, WIDTH, 3) and d.dtype == np.uint8 for d in drawn)
    assert len({d.tobytes() for d in drawn}) == 5


def test_a_slot_without_a_panorama_changes_nothing_even_if_it_holds_nan(pipeline):
    given = around(views=1)
    spoilt = replace(
        given,
        panoramas=given.panoramas.clone().index_fill_(1, torch.tensor([1, 2]), torch.nan),
        offset_m=given.offset_m.clone().index_fill_(1, torch.tensor([1, 2]), torch.nan),
    )
    assert np.array_equal(images(pipeline, given), images(pipeline, spoilt))


def test_the_order_of_views_does_not_matter(pipeline):
    given, order = around(), [2, 0, 1]
    other = replace(given, panoramas=given.panoramas[:, order], offset_m=given.offset_m[:, order])
    apart = images(pipeline, given).astype(int) - images(pipeline, other)
    assert abs(apart).max() <= 1


@torch.no_grad()
def sampled(pipeline, x, guide):
    """Latents after three steps of the sampler."""
    told = with_text(guide, pipeline.text_encoder(["a b"] * len(x)))
    scheduler = copy.deepcopy(pipeline.scheduler)
    set_steps(scheduler, 3)
    for t in scheduler.timesteps:
        noise = pipeline.denoiser(x, t.float().expand(len(x)), told)
        x = scheduler.step(noise, t, x, return_dict=False)[0]
    return x


def test_another_heading_rolls_latents_and_pixels(home):
    pipeline, given = make(home / "sd21-base"), around()
    x = torch.cat([pipeline._noise(seed) for seed in (3, 4)])
    with torch.no_grad():
        north, east = (pipeline.views(given, heading_deg=heading) for heading in (0.0, 90.0))
    quarter = x.shape[3] // 4
    assert quarter % 2 == 0, "whole columns at the coarsest level"
    first, turned = sampled(pipeline, x, north), sampled(pipeline, x.roll(-quarter, 3), east)
    torch.testing.assert_close(turned, first.roll(-quarter, 3), atol=1e-4, rtol=0)
    with torch.no_grad():
        pixels = [pipeline._decode(latents) for latents in (first, turned)]
    torch.testing.assert_close(pixels[1], pixels[0].roll(-WIDTH // 4, 3), atol=1e-4, rtol=0)


class TurnedNoise(MixedViewPipeline):
    """Starts from noise that is turned by an eighth."""

    def _noise(self, seed):
        return super()._noise(seed).roll(-2, dims=3)


def test_a_turned_world_gives_a_turned_panorama(home):
    given, angle = around(satellite=False), torch.tensor(-torch.pi / 4)
    matrix = torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])
    turned = replace(  # what lay north-east lies north
        given,
        panoramas=given.panoramas.roll(-WIDTH // 8, dims=4),
        offset_m=given.offset_m @ matrix.T,
    )
    first = images(make(home / "sd21-base"), given)
    second = images(make(home / "sd21-base", kind=TurnedNoise), turned)
    apart = np.roll(first, -WIDTH // 8, axis=2).astype(int) - second
    assert abs(apart).max() <= 1


def test_the_encoder_of_pixels_wraps_too(pipeline):
    halvings = [m for m in pipeline.vae.modules() if isinstance(m, AzimuthDownsample2D)]
    assert len(halvings) == 3
    x = around().panoramas[:, 0]
    with torch.no_grad():
        first, turned = (pipeline.vae.encode(v).latent_dist.mean for v in (x, x.roll(24, 3)))
    torch.testing.assert_close(turned, first.roll(24 // CELL, 3), atol=1e-5, rtol=0)


def test_an_untrained_control_branch_is_a_copy_that_adds_nothing(home):
    pipeline = make(home / "sd21-base", opened=False)
    copied, unet = pipeline.control.encoder, pipeline.unet
    for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
        ours, theirs = (getattr(net, name).state_dict() for net in (copied, unet))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    x, t = torch.cat([pipeline._noise(seed) for seed in (3, 4)]), torch.tensor([500.0, 20.0])
    with torch.no_grad():
        told = with_text(pipeline.views(around()), pipeline.text_encoder(["", ""]))
        down, mid = pipeline.control(x, t, told)
    assert not mid.any()
    assert not any(part.any() for part in down)


def test_text_comes_first_and_what_fills_up_is_not_heard(pipeline):
    with torch.no_grad():
        guide = pipeline.views(around())
        states = pipeline.text_encoder(["a", "b"])
        told = with_text(guide, states)
        x, t = torch.cat([pipeline._noise(s) for s in (1, 2)]), torch.tensor([500.0, 20.0])
        plain = replace(
            guide,
            tokens=torch.cat([states, guide.tokens], 1),
            mask=torch.cat([torch.ones(2, states.shape[1], dtype=torch.bool), guide.mask], 1),
        )
        filled, short = (pipeline.denoiser(x, t, g) for g in (told, plain))
    assert told.tokens.shape[1] % 8 == 0
    assert told.tokens.shape[1] > plain.tokens.shape[1]
    assert torch.equal(told.tokens[:, : states.shape[1]], states)
    torch.testing.assert_close(filled, short, atol=1e-6, rtol=1e-5)


def test_each_guidance_scale_pulls_by_its_own_input(pipeline):
    given, words = around(), ["a", "b"]
    plain = images(pipeline, given, prompts=words)
    assert np.array_equal(plain, images(pipeline, given, prompts=words, guidance=GuidanceScales()))
    for name in ("text", "satellite", "views"):
        pulled = images(pipeline, given, prompts=words, guidance=GuidanceScales(**{name: 4.0}))
        assert not np.array_equal(plain, pulled), name
    # A scale for what is not given does nothing.
    scales = GuidanceScales(text=4.0, satellite=4.0)
    bare = around(satellite=False)
    assert np.array_equal(images(pipeline, bare), images(pipeline, bare, guidance=scales))


def test_a_prompt_matters_and_a_picture_does_not_depend_on_its_batch(pipeline):
    given = around()
    drawn = images(pipeline, given, prompts=["a", ""])
    none = images(pipeline, given)
    assert not np.array_equal(drawn[0], none[0])
    assert abs(drawn[1].astype(int) - none[1]).max() <= 1
    alone = Surroundings(**{n: getattr(given, n)[:1] for n in Surroundings.__slots__})
    single = pipeline(alone, seeds=[3], prompts=["a"], num_inference_steps=2).images
    assert abs(single[0].astype(int) - drawn[0]).max() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws(home, sampler):
    options = Options(device="cpu", sampler=sampler)
    pipeline = MixedViewPipeline.from_pretrained(
        home / "mixed-view", base=home / "sd21-base", options=options
    )
    first, again = (images(pipeline, around()) for _ in range(2))
    assert np.array_equal(first, again)


def test_steps_are_told_and_the_last_is_the_picture(pipeline):
    told = []
    drawn = images(pipeline, around(), on_step=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(1, 2), (2, 2)]
    assert told[0][2].shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(told[-1][2], drawn[0])
    with pytest.raises(CancelledError, match="step 0 of 2"):
        images(pipeline, around(), cancelled=lambda: True)


def test_half_precision_draws(home):
    options = Options(device="cpu", precision="bf16")
    pipeline = MixedViewPipeline.from_pretrained(
        home / "mixed-view", base=home / "sd21-base", options=options
    )
    assert pipeline.control.dtype == torch.bfloat16
    assert pipeline.views.dtype == torch.float32
    assert images(pipeline, around()).shape == (2, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"seeds": [1]}, "1 seeds for 2 places"),
        ({"prompts": ["a"]}, "1 prompts for 2 places"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
    ],
)
def test_what_does_not_fit_is_refused(pipeline, options, reason):
    with pytest.raises(InvalidSpecError, match=reason):
        pipeline(around(), **{"seeds": [1, 2], **options})


def test_panoramas_of_another_size_are_refused(pipeline):
    given = around()
    small = replace(
        given, panoramas=given.panoramas[..., ::2, ::2], depth=given.depth[..., ::2, ::2]
    )
    with pytest.raises(InvalidSpecError, match=r"64x16 px \(this model takes 128x32"):
        images(pipeline, small)


def test_only_what_was_trained_is_saved_and_it_reloads_bit_by_bit(home, pipeline, tmp_path):
    folder = home / "mixed-view"
    assert {file.name for file in folder.iterdir()} == {"control", "views", "model_index.json"}
    assert json.loads((folder / "model_index.json").read_text())["base"] == "sd21-base"
    pipeline.save_pretrained(tmp_path / "again")
    assert model_sha256(tmp_path / "again") == model_sha256(folder)
    assert np.array_equal(images(pipeline, around()), images(make(home / "sd21-base"), around()))


def test_a_registered_model_finds_its_base(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    first = generation.load("mixed-view")
    assert generation.load("mixed-view") is first
    assert len(first.sha256) == 64
    assert weights_sha256("mixed-view", online=False) == first.sha256
    assert find("mixed-view").family == "mixed-view"
    assert first(around(), seeds=[3, 4]).guide.tokens.device.type == "cpu"


def test_a_render_hands_the_prompt_on_and_says_nothing_of_terrain(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    place = {"kind": "panorama", "lat": 45.98, "lon": 7.66, "model": "mixed-view"}
    spec = RunSpec(**place, satellite="none", steps=2, prompt="a")
    drawn = render(spec)
    assert drawn.image.shape == (HEIGHT, WIDTH, 3)
    assert not np.array_equal(drawn.image, render(replace(spec, prompt="")).image)
    assert not np.array_equal(drawn.image, render(replace(spec, text_guidance=8.0)).image)
    assert not any("terrain" in note for note in drawn.provenance["notes"])
    long = render(replace(spec, prompt="a " * 200))
    assert any("mixed-view did not read the prompt" in n for n in long.provenance["notes"])


def test_absent_weights_tell_how_to_train_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    with pytest.raises(MissingFileError, match=r"train_panorama\.py configs/panorama_full\.yaml"):
        locate("mixed-view")


def test_an_absent_base_names_where_to_get_it(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    with pytest.raises(MissingFileError, match="sd21-base"):
        MixedViewPipeline.from_pretrained(home / "mixed-view")


def test_other_folders_are_refused(home, pipeline, tmp_path):
    with pytest.raises(MissingFileError, match="holds no full-size panorama pipeline"):
        MixedViewPipeline.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="describes a StableDiffusionPipeline"):
        MixedViewPipeline.from_pretrained(home / "sd21-base")
    pipeline.save_pretrained(tmp_path / "cut")
    weights = tmp_path / "cut" / "control" / PART_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="not whole"):
        MixedViewPipeline.from_pretrained(tmp_path / "cut", base=home / "sd21-base", options=CPU)


def test_parts_of_other_models_are_refused_by_name(home):
    base = home / "sd21-base"
    good = make(base)
    views = MixedViewEncoder(height=32, width=128, dim=16, token_dim=24, level_dims=(16,), patch=4)
    with pytest.raises(WeightsError, match=r"level_dims.*token_dim is 24 and not 16.*patch is 4"):
        MixedViewPipeline(
            good.unet, good.vae, good.text_encoder, good.scheduler, good.control, views
        )


def test_the_published_sizes_fit_together():
    """Stable Diffusion 2.1's own layout at 256x1024, shapes alone."""
    levels = (128,) * 4
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            attention_head_dim=[5, 10, 20, 20],
            cross_attention_dim=1024,
            use_linear_projection=True,
        )
        control = control_of(unet, levels)
        views = MixedViewEncoder(
            height=256, width=1024, dim=128, token_dim=1024, level_dims=levels, latent_channels=4
        )
        denoiser = MixedViewDenoiser(unet, control)
        guide = Guide(
            tokens=torch.zeros(1, 17, 1024),
            mask=torch.ones(1, 17, dtype=torch.bool),
            vector=torch.zeros(1, 1),
            draft=torch.zeros(1, 3, 256, 1024),
            correction=torch.zeros(1, 4, 32, 128),
            levels=[torch.zeros(1, 128, 32 // 2**n, 128 // 2**n) for n in range(4)],
            view_weights=torch.zeros(1, 3, 32, 128),
            satellite_weight=torch.zeros(1, 32, 128),
            local=torch.zeros(1, 3, 32, 128),
            overhead=torch.zeros(1, 8, 8),
        )
        told = with_text(guide, torch.zeros(1, 77, 1024))
        with torch.no_grad():
            noise = denoiser(torch.zeros(1, 4, 32, 128), torch.zeros(1), told)
    assert noise.shape == (1, 4, 32, 128)
    assert (views.grid.height, views.grid.width) == (32, 128)
    assert [layer.norm.num_channels for layer in control.guided] == [320, 320, 640, 1280]
    assert 340e6 < sum(p.numel() for p in control.parameters()) < 400e6
