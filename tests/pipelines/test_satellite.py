"""The satellite pipeline: any subset of inputs, the same picture every time."""

import copy
import json
import pickle
import shutil
from itertools import product

import numpy as np
import pytest
import torch
from tiny import make_pipeline

from generation.checkpoint import load_safetensors, save_safetensors
from generation.diffusion.codec import to_bytes, to_signal
from generation.diffusion.guidance import GuidanceScales
from generation.errors import (
    CancelledError,
    InvalidSpecError,
    LayoutError,
    MissingFileError,
    WeightsError,
)
from generation.geo.location import Location
from generation.geo.mercator import Window, world_px
from generation.pipelines.satellite import SatellitePipeline
from generation.pipelines.scene import Scene

WINDOW = Window.around(Location(45.98, 7.66), 8, 64)
STRIPES = (np.arange(64)[:, None] // 8 + np.zeros((1, 64))).astype(np.uint8)
FULL = Scene(WINDOW, "a snowy alpine valley", STRIPES, seed=7)


def draw(pipeline, *scenes, steps=3, **options):
    return pipeline(list(scenes), num_inference_steps=steps, **options)


def evaluations(pipeline, *scenes, **options):
    """Times at which the U-Net was asked, once for each subset of conditions in a batch."""
    times = []

    def note(unet, args):
        times.extend(args[1][:: len(scenes)].tolist())

    hook = pipeline.unet.register_forward_pre_hook(note)
    try:
        draw(pipeline, *scenes, **options)
    finally:
        hook.remove()
    return times


# --- what is drawn -------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_bytes(tiny_pipeline):
    first = draw(tiny_pipeline, FULL)
    assert first.shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(draw(tiny_pipeline, FULL), first)
    assert (draw(tiny_pipeline, Scene(WINDOW, FULL.prompt, STRIPES, seed=8)) != first).mean() > 0.5


@pytest.mark.parametrize("has", list(product([True, False], repeat=3)))
def test_any_subset_of_inputs_gives_a_picture(tiny_pipeline, has):
    prompt, layout, use_location = has
    scene = Scene(WINDOW, "hills" if prompt else " ", STRIPES if layout else None, use_location)
    scales = GuidanceScales(1.5, 2.0, 3.0)
    assert draw(tiny_pipeline, scene, guidance=scales, steps=1).std() > 0


def test_a_picture_does_not_depend_on_its_batch(tiny_pipeline):
    scenes = [
        FULL,
        Scene(WINDOW, use_location=False, seed=1),
        Scene(Window.around(Location(-60.0, 30.0), 8, 64), "a shore", seed=2),
        Scene(WINDOW, layout=STRIPES.T.copy(), use_location=False, seed=3),
    ]
    scales = GuidanceScales(1.5, 2.5, 2.0)
    together = draw(tiny_pipeline, *scenes, guidance=scales)
    for scene, expected in zip(scenes, together, strict=True):
        alone = draw(tiny_pipeline, scene, guidance=scales)[0]
        assert np.abs(alone.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("part", ["prompt", "layout", "place", "use_location"])
def test_every_input_steers_the_picture(tiny_pipeline, part):
    changes = {"prompt": "desert", "layout": STRIPES.T.copy(), "place": (-3.0, 120.0)}
    values = {name: getattr(FULL, name) for name in Scene.__slots__}
    other = Scene(**{**values, part: changes.get(part, False)})
    latents = [conditions(tiny_pipeline, scene) for scene in (FULL, other)]
    assert any(not torch.equal(a, b) for a, b in zip(*latents, strict=True))


def conditions(pipeline, scene):
    sets = pipeline.conditions([scene])
    told = sets[sets.given]
    return told.tokens, told.vector, told.hint


def test_a_right_velocity_leads_to_the_right_picture_in_any_number_of_steps(tiny_pipeline):
    """Pins the signs: noise at t = 1000, velocity = noise - x0, the picture at t = 0."""
    x0 = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    oracle = copy.copy(tiny_pipeline)
    oracle.decoder = copy.copy(tiny_pipeline.decoder)  # untrained, it adds nothing
    oracle.decoder.hand_over = 0.0
    oracle.denoiser = lambda x, t, told: (x - x0) / (t / 1000)[:, None, None, None]
    expected = to_bytes(tiny_pipeline.codec.decode(x0)).astype(int)
    for steps in (1, 4, 10):
        drawn = draw(oracle, FULL, steps=steps).astype(int)
        assert np.abs(drawn - expected).max() <= 1


def test_the_decoder_gets_what_the_sampler_has_left(tiny_pipeline):
    """With a right velocity the latents at the hand-over hold just that share of the noise."""
    x0 = torch.full((1, 8, 8, 8), 0.5)
    seen = []

    def decoder(*told):
        seen.append(told)
        return tiny_pipeline.decoder(*told)

    oracle = copy.copy(tiny_pipeline)
    oracle.denoiser = lambda x, t, told: (x - x0) / (t / 1000)[:, None, None, None]
    decoder.hand_over = 0.1
    oracle.decoder = decoder
    draw(oracle, FULL, steps=4)
    latents, share, classes, has_layout, _ = seen[0]
    assert share.tolist() == pytest.approx([0.1])
    assert has_layout.tolist() == [True]
    np.testing.assert_array_equal(classes[0].numpy(), STRIPES)
    noise = oracle._noise(FULL)
    torch.testing.assert_close(latents, 0.9 * x0 + 0.1 * noise, atol=1e-4, rtol=1e-4)


def test_real_images_go_through_the_latents_and_back(tiny_pipeline):
    whole = copy.copy(tiny_pipeline)
    whole.decoder = copy.copy(tiny_pipeline.decoder)
    whole.decoder.hand_over = 0.0
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    expected = to_bytes(whole.codec.decode(whole.codec.encode(to_signal(images)))).astype(int)
    assert np.abs(whole.reconstruct([FULL], images) - expected).max() <= 1
    noisy = tiny_pipeline.reconstruct([FULL], images)
    np.testing.assert_array_equal(noisy, tiny_pipeline.reconstruct([FULL], images))
    assert np.abs(noisy - expected).max() > 1


# --- steps and guidance --------------------------------------------------------------------------
def test_every_evaluation_stands_for_an_equal_share_of_noise(tiny_pipeline):
    assert tiny_pipeline.decoder.hand_over == 0.1
    times = evaluations(tiny_pipeline, FULL, steps=5)
    assert times == pytest.approx([1000, 820, 640, 460, 280])
    assert evaluations(tiny_pipeline, FULL, steps=1) == [1000]


def test_guidance_costs_what_it_needs(tiny_pipeline):
    for scales, evaluated in [((1, 1, 1), 1), ((2, 2, 2), 2), ((2, 3, 4), 4), ((0, 0, 0), 1)]:
        guidance = GuidanceScales(*map(float, scales))
        assert len(evaluations(tiny_pipeline, FULL, steps=2, guidance=guidance)) == 2 * evaluated
    nothing = Scene(WINDOW, use_location=False)
    strong = GuidanceScales(9.0, 8.0, 7.0)
    assert len(evaluations(tiny_pipeline, nothing, steps=2, guidance=strong)) == 2


def test_a_scale_of_zero_is_the_input_left_away(tiny_pipeline):
    silent = draw(tiny_pipeline, FULL, guidance=GuidanceScales(text=0.0))
    without = draw(tiny_pipeline, Scene(WINDOW, "", STRIPES, seed=7))
    assert np.abs(silent.astype(int) - without).max() <= 1


def test_previews_end_in_the_picture(tiny_pipeline):
    seen = []
    drawn = draw(tiny_pipeline, FULL, steps=3, on_step=lambda *told: seen.append(told))
    assert [told[:2] for told in seen] == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(seen[-1][2], drawn[0])


def test_a_cancelled_render_stops_before_its_next_step(tiny_pipeline):
    seen = []
    with pytest.raises(CancelledError, match="stopped at step 2 of 5"):
        draw(
            tiny_pipeline,
            FULL,
            steps=5,
            on_step=lambda *told: seen.append(told[0]),
            cancelled=lambda: len(seen) == 2,
        )
    assert seen == [1, 2]


def test_two_renders_may_run_at_the_same_time(tiny_pipeline):
    expected = draw(tiny_pipeline, FULL, steps=3)
    other = lambda *told: draw(tiny_pipeline, Scene(WINDOW), steps=2)  # noqa: E731
    np.testing.assert_array_equal(draw(tiny_pipeline, FULL, steps=3, on_step=other), expected)


# --- noise ---------------------------------------------------------------------------------------
def test_overlapping_windows_start_from_the_same_noise(tiny_pipeline):
    first = tiny_pipeline._noise(Scene(WINDOW, seed=5))
    moved = Window(8, WINDOW.col_px + 16, WINDOW.row_px - 24, 64, 64)
    second = tiny_pipeline._noise(Scene(moved, seed=5))
    assert torch.equal(first[..., :5, 2:], second[..., 3:, :6])


def test_they_do_so_over_the_antimeridian(tiny_pipeline):
    size = world_px(8)
    over = tiny_pipeline._noise(Scene(Window(8, size - 32, 32000, 64, 64)))
    start = tiny_pipeline._noise(Scene(Window(8, 0, 32000, 64, 64)))
    assert torch.equal(over[..., 4:], start[..., :4])


# --- what is refused -----------------------------------------------------------------------------
def test_scenes_that_cannot_be_drawn_together_are_refused(tiny_pipeline):
    small = Scene(Window.around(Location(0.0, 0.0), 8, 32))
    for scenes in ([], [FULL, small]):
        with pytest.raises(InvalidSpecError, match="windows of one size"):
            draw(tiny_pipeline, *scenes)
    with pytest.raises(InvalidSpecError, match="grid of latents"):
        draw(tiny_pipeline, Scene(Window(8, 4, 8000, 64, 64)))
    with pytest.raises(LayoutError, match="32x32 px for a window of 64x64"):
        draw(tiny_pipeline, Scene(WINDOW, layout=STRIPES[:32, :32]))
    with pytest.raises(InvalidSpecError, match="num_inference_steps=0"):
        draw(tiny_pipeline, FULL, steps=0)


@pytest.fixture(scope="module")
def saved(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    tiny_pipeline.save_pretrained(folder, half=False)
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "pipeline")


def test_a_saved_pipeline_draws_the_same(tiny_pipeline, saved):
    loaded = SatellitePipeline.from_pretrained(saved)
    assert len(loaded.sha256) == 64
    scene = Scene(WINDOW, layout=STRIPES)
    np.testing.assert_array_equal(draw(loaded, scene), draw(tiny_pipeline, scene))


def test_half_precision_files_draw_nearly_the_same(tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path)
    loaded = SatellitePipeline.from_pretrained(tmp_path)
    assert loaded.unet.dtype == torch.float32
    scene = Scene(WINDOW, layout=STRIPES)
    apart = draw(loaded, scene).astype(int) - draw(tiny_pipeline, scene)
    assert np.abs(apart).mean() < 1


def truncate(file):
    file.write_bytes(file.read_bytes()[:-40])


def spoil(change):
    def do(file):
        weights = load_safetensors(file)
        name = sorted(weights)[0]
        changed = change(weights[name].clone())
        file.unlink()
        if changed.isfinite().all():
            save_safetensors({**weights, name: changed}, file)
        else:
            from safetensors.torch import save_file

            save_file({**weights, name: changed}, file)

    return do


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "not whole"),
        (spoil(lambda w: w[:1]), "has shape"),
        (spoil(lambda w: w * torch.nan), "NaN"),
        (lambda file: file.write_bytes(pickle.dumps({"a": 1})), "pickle"),
    ],
    ids=["truncated", "wrong shape", "NaN", "pickled"],
)
@pytest.mark.parametrize("part", ["conditioner", "codec"])
def test_weights_that_cannot_be_trusted_are_refused(damaged, part, damage, told):
    damage(damaged / part / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=told) as error:
        SatellitePipeline.from_pretrained(damaged)
    assert f"{part}/diffusion_pytorch_model.safetensors" in str(error.value)


@pytest.mark.parametrize(
    "name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]
)
def test_absent_files_are_named(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(MissingFileError, match=name.split("/")[-1]):
        SatellitePipeline.from_pretrained(damaged)


def test_a_damaged_configuration_is_named(damaged):
    config = damaged / "conditioner" / "config.json"
    config.write_text(config.read_text()[:-20])
    with pytest.raises(WeightsError, match=r"conditioner/config\.json"):
        SatellitePipeline.from_pretrained(damaged)


def test_configurations_are_plain_json(saved):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "SatellitePipeline"
    assert json.loads((saved / "codec/config.json").read_text())["latent_channels"] == 8


def test_two_tiny_pipelines_are_equal():
    first, second = make_pipeline().unet.state_dict(), make_pipeline().unet.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
