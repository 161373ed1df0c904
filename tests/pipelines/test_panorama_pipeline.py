"""The pipeline of panoramas: saved and loaded, drawn from any inputs, without a seam."""

import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from tiny_panorama import HEIGHT, WIDTH, make_panorama_pipeline

from generation.checkpoint import load_safetensors, save_safetensors
from generation.diffusion.codec import to_bytes
from generation.diffusion.guidance import GuidanceScales
from generation.diffusion.surroundings import Surroundings
from generation.diffusion.view_attention import refined
from generation.errors import CancelledError, InvalidSpecError, MissingFileError, WeightsError
from generation.pipelines.panorama import PARTS, PanoramaPipeline

STRONG = GuidanceScales(satellite=2.0, views=3.0)


@pytest.fixture(scope="module")
def pipeline():
    """What starts at zero is moved away from it, so that all parts count."""
    pipeline = make_panorama_pipeline()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in (*pipeline.views.parameters(), *pipeline.decoder.parameters()):
            parameter.data += 0.02 * torch.randn_like(parameter)
        pipeline.views.spread.copy_(torch.linspace(0.5, 1.0, 8 * 4).unflatten(0, (8, 4)))
    return pipeline


def make(count=1, seed=0, **changes):
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=draw) * 2 - 1

    views = refined(uniform(3 * count, 3, HEIGHT // 8, WIDTH // 8), 8)
    around = Surroundings(
        panoramas=views.unflatten(0, (count, 3)),
        valid=torch.ones(count, 3, dtype=torch.bool),
        offset_m=10e3 * uniform(count, 3, 2),
        satellite=refined(uniform(count, 3, 8, 8), 8),
        has_satellite=torch.ones(count, dtype=torch.bool),
        gsd_m=torch.full((count,), 1700.0),
        lat_deg=40 * uniform(count),
        depth=torch.zeros(count, 1, HEIGHT, WIDTH),
        has_depth=torch.zeros(count, dtype=torch.bool),
    )
    return replace(around, **changes)


def draw(pipeline, around, *, seeds=None, steps=2, **options):
    seeds = seeds or list(range(len(around.valid)))
    return pipeline(around, seeds=seeds, num_inference_steps=steps, **options).images


def apart(first, second):
    return int(np.abs(first.astype(int) - second).max())


def without(around, part):
    if part == "views":
        return replace(around, valid=torch.zeros_like(around.valid))
    return replace(around, has_satellite=torch.zeros_like(around.has_satellite))


def evaluations(pipeline, around, **options):
    """Count how often the U-Net was asked."""
    times = []
    hook = pipeline.unet.register_forward_pre_hook(lambda _, args: times.append(float(args[1][0])))
    try:
        draw(pipeline, around, **options)
    finally:
        hook.remove()
    return times


# --- what is drawn -------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(pipeline):
    first = draw(pipeline, make())
    assert first.shape == (1, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(draw(pipeline, make()), first)
    assert (draw(pipeline, make(), seeds=[9]) != first).mean() > 0.5


@pytest.mark.parametrize("parts", [(), ("views",), ("satellite",), ("views", "satellite")])
def test_any_subset_of_inputs_gives_a_panorama(pipeline, parts):
    around = make()
    for part in parts:
        around = without(around, part)
    drawn = pipeline(around, seeds=[0], num_inference_steps=1, guidance=STRONG)
    assert drawn.images.std() > 0
    assert bool((drawn.guide.view_weights > 0).any()) == ("views" not in parts)
    assert bool((drawn.guide.satellite_weight > 0).any()) == ("satellite" not in parts)


def test_a_picture_does_not_depend_on_its_batch(pipeline):
    around = make(3, has_satellite=torch.tensor([True, False, True]))
    around.valid[0, 1:], around.valid[2] = False, False
    together = draw(pipeline, around, guidance=STRONG)
    for place in range(3):
        alone = Surroundings(
            **{f.name: getattr(around, f.name)[place : place + 1] for f in fields(around)}
        )
        assert apart(draw(pipeline, alone, seeds=[place], guidance=STRONG)[0], together[place]) <= 1


def test_a_right_velocity_leads_to_the_right_picture_in_any_number_of_steps():
    """Pins the signs, and that what is drawn is what the draft lacks."""
    pipeline, around = make_panorama_pipeline(), make()
    pipeline.views.spread.fill_(0.7)
    guide = pipeline.views(around)
    truth = 0.3 * torch.randn(1, 8, HEIGHT // 8, WIDTH // 8)
    rest = ((truth - pipeline.codec.encode(guide.draft) - guide.correction) / 0.7).detach()
    pipeline.denoiser = lambda x, t, told: (x - rest) / (t / 1000)[:, None, None, None]
    expected = to_bytes(pipeline.codec.decode(truth))
    for steps in (1, 3, 7):
        assert apart(draw(pipeline, around, steps=steps), expected) <= 1


def test_the_share_of_detail_leads_from_the_expected_picture_to_a_sample():
    """A velocity that expects one thing from noise alone and then leads to another."""
    pipeline, around = make_panorama_pipeline(), make()
    guide = pipeline.views(around)
    draft = (pipeline.codec.encode(guide.draft) + guide.correction).detach()
    expected, sample = 0.3 * torch.randn(2, *draft.shape)

    def velocity(x, t, told):
        aim = expected if float(t[0]) == 1000 else sample
        return (x - aim) / (t / 1000)[:, None, None, None]

    pipeline.denoiser = velocity
    for share in (0.0, 0.4, 1.0):
        pipeline.views.detail_share = share
        mixed = draft + expected + share * (sample - expected)
        wanted = to_bytes(pipeline.codec.decode(mixed))
        assert apart(draw(pipeline, around, steps=3), wanted) <= 1


def test_a_turned_world_of_panoramas_gives_a_turned_picture(pipeline):
    """Panoramas, where they stand and the noise are turned by 90 degrees around the place."""
    around = without(make(), "satellite")
    east, north = around.offset_m.unbind(-1)
    world = replace(
        around,
        panoramas=around.panoramas.roll(WIDTH // 4, -1),
        offset_m=torch.stack([north, -east], -1),
    )

    class Turned(PanoramaPipeline):
        def _noise(self, seed):
            return super()._noise(seed).roll(WIDTH // 32, 3)

    parts = [getattr(pipeline, name) for name in (*PARTS, "scheduler")]
    straight, turned = draw(pipeline, around), draw(Turned(*parts), world)
    assert apart(np.roll(straight, WIDTH // 4, 2), turned) <= 1
    assert apart(straight, turned) > 10


def test_raw_pictures_have_no_seam(pipeline):
    """The step over the edge is as large as any other step between two patches."""
    around = make(6)
    images = draw(pipeline, around, steps=1).astype(float)
    steps = np.abs(np.roll(images, -1, 2) - images).mean((0, 1, 3))
    edge, others = steps[-1], steps[7:-1:8]
    assert 0.6 < edge / others.mean() < 1.5
    assert others.min() <= edge <= others.max() * 1.1


# --- steps and guidance --------------------------------------------------------------------------
def test_guidance_costs_what_it_needs(pipeline):
    for scales, count in [((1, 1), 1), ((2, 2), 2), ((2, 3), 3), ((0, 0), 1), ((1, 0), 1)]:
        guidance = GuidanceScales(satellite=float(scales[0]), views=float(scales[1]))
        assert len(evaluations(pipeline, make(), guidance=guidance)) == 2 * count
    nothing = without(without(make(), "views"), "satellite")
    assert len(evaluations(pipeline, nothing, guidance=STRONG)) == 2


@pytest.mark.parametrize("part", ["satellite", "views"])
def test_every_guidance_scale_acts(pipeline, part):
    plain = draw(pipeline, make())
    assert apart(draw(pipeline, make(), guidance=GuidanceScales(**{part: 2.5})), plain) > 3


@pytest.mark.parametrize(("steps", "detail"), [(1, 1.0), (3, 1.0), (3, 0.4)])
def test_a_scale_of_zero_is_the_input_left_away(pipeline, steps, detail, monkeypatch):
    """Although the draft that is looked up knows the input, the picture does not."""
    monkeypatch.setattr(pipeline.views, "detail_share", detail)
    silent = draw(pipeline, make(), steps=steps, guidance=GuidanceScales(views=0.0))
    assert apart(silent, draw(pipeline, without(make(), "views"), steps=steps)) <= 1
    assert apart(silent, draw(pipeline, make(), steps=steps)) > 10


def test_previews_end_in_the_picture(pipeline):
    seen = []
    drawn = draw(pipeline, make(2), steps=3, on_step=lambda *told: seen.append(told))
    assert [told[:2] for told in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(told[2].shape == (HEIGHT, WIDTH, 3) for told in seen)
    np.testing.assert_array_equal(seen[-1][2], drawn[0])


def test_a_cancelled_render_stops_before_its_next_step(pipeline):
    seen = []
    with pytest.raises(CancelledError, match="stopped at step 2 of 5"):
        draw(
            pipeline, make(), steps=5, on_step=lambda *told: seen.append(told[0]),
            cancelled=lambda: len(seen) == 2,
        )  # fmt: skip
    assert seen == [1, 2]


def test_wrong_numbers_are_refused(pipeline):
    with pytest.raises(InvalidSpecError, match="num_inference_steps=0"):
        draw(pipeline, make(), steps=0)
    with pytest.raises(InvalidSpecError, match="2 seeds for 1 places"):
        draw(pipeline, make(), seeds=[1, 2])


# --- files ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipeline.save_pretrained(folder, half=False)
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "pipeline")


def test_a_saved_pipeline_draws_the_same(pipeline, saved):
    loaded = PanoramaPipeline.from_pretrained(saved)
    assert len(loaded.sha256) == 64
    np.testing.assert_array_equal(draw(loaded, make()), draw(pipeline, make()))
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "PanoramaPipeline"


def test_half_precision_files_draw_nearly_the_same(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "half")
    loaded = PanoramaPipeline.from_pretrained(tmp_path / "half")
    assert loaded.unet.dtype == torch.float32
    assert np.abs(draw(loaded, make()).astype(int) - draw(pipeline, make())).mean() < 1


def spoil(change):
    def do(file):
        weights = load_safetensors(file)
        name = sorted(weights)[0]
        file.unlink()
        save_safetensors({**weights, name: change(weights[name].clone())}, file)

    return do


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "not whole"),
        (spoil(lambda w: w.flatten()[:1]), "has shape"),
        (lambda file: file.write_bytes(b"\x80\x04}."), "pickle|safetensors header"),
    ],
    ids=["truncated", "wrong shape", "pickled"],
)
@pytest.mark.parametrize("part", ["views", "control"])
def test_weights_that_cannot_be_trusted_are_refused(damaged, part, damage, told):
    damage(damaged / part / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=told) as error:
        PanoramaPipeline.from_pretrained(damaged)
    assert f"{part}/diffusion_pytorch_model.safetensors" in str(error.value)


@pytest.mark.parametrize(
    "name", ["model_index.json", "views/config.json", "scheduler/scheduler_config.json"]
)
def test_absent_files_are_named(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(MissingFileError, match=name.split("/")[-1]):
        PanoramaPipeline.from_pretrained(damaged)


def test_an_encoder_of_views_keeps_its_distances(saved):
    """Infinity is among them, which JSON has no word of its own for."""
    loaded = PanoramaPipeline.from_pretrained(saved)
    assert loaded.views.distances_m == (float("inf"), 45e3, 18e3, 7e3, 0.0)
