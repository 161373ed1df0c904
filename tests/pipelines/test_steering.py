"""Steered by a clip, a sentence or a tile: three ways in, one conditioner, no harm without one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState, GradientState
from tiny import make_pipeline

from generation.checkpoint import load_part, model_sha256, save_part
from generation.cli import main as terrascape
from generation.conditioning import SoundConditioner
from generation.diffusion.guidance import GuidanceScales
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import SoundSpace
from generation.errors import AudioError, ConfigError, InvalidSpecError, WeightsError
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.media.geotiff import geotiff_bytes
from generation.pipelines.satellite import render
from generation.pipelines.scene import Scene, SoundSteering
from generation.spec import RunSpec
from training.train_steering import main as train

WINDOW = Window.around(Location(45.98, 7.66), 8, 64)
SPEC = RunSpec(lat=45.98, lon=7.66, size=64, steps=2, layout="none")


def make_space():
    torch.manual_seed(3)
    return SoundSpace(
        kind="codebook",
        joined="early",
        dim=12,
        width=16,
        towers={
            "image": {"image_px": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2},
            "audio": {"dim": 8, "depth": 1, "heads": 2, "frames": 48},
        },
        metadata={"layers": 1, "heads": 2},
        codebook={"codes": 10},
    )


def make_conditioner(**made_for):
    torch.manual_seed(4)
    sounds = SoundConditioner({"sat2sound-nano": 12}, 16, 16, made_for=made_for).eval()
    torch.nn.init.normal_(sounds.to_vector[1].weight)  # as if it had learnt
    return sounds


def vector(seed):
    values = torch.randn(12, generator=torch.Generator().manual_seed(seed))
    return values / values.norm()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of registered names, each at a tiny size."""
    home = tmp_path_factory.mktemp("home")
    make_pipeline().save_pretrained(home / "satellite-nano")
    save_part(make_space(), home / "sat2sound-nano")
    made_for = {n: model_sha256(home / n) for n in ("satellite-nano", "sat2sound-nano")}
    save_part(make_conditioner(**made_for), home / "satellite-nano-sound")
    return home


@pytest.fixture
def home(models, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(models))
    return models


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "surf.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 20_000)
    soundfile.write(path, noise.astype(np.float32), 16_000)
    return path


def test_without_a_sound_nothing_changes(tiny_pipeline):
    plain = Scene(WINDOW, "a valley", seed=7)
    steering = SoundSteering(make_conditioner(), "sat2sound-nano")
    first = tiny_pipeline([plain], num_inference_steps=2)
    assert np.array_equal(tiny_pipeline([plain], num_inference_steps=2, steering=steering), first)


def test_two_sounds_give_two_pictures_and_one_gives_the_same_again(tiny_pipeline):
    steering = SoundSteering(make_conditioner(), "sat2sound-nano")

    def draw(*seeds):
        scenes = [Scene(WINDOW, seed=7, sound=vector(s)) for s in seeds]
        return tiny_pipeline(scenes, num_inference_steps=2, steering=steering)

    one, other = draw(1), draw(2)
    assert (one != other).mean() > 0.1
    assert np.array_equal(draw(1), one)
    together = draw(1, 2).astype(int)  # sums of a batch round otherwise
    assert np.abs(together - np.concatenate([one, other])).max() <= 1


def test_guidance_zero_is_the_learned_null(tiny_pipeline):
    steering = SoundSteering(make_conditioner(), "sat2sound-nano")
    off = GuidanceScales(sound=0.0)

    def draw(scale, seed):
        scene = Scene(WINDOW, seed=7, sound=vector(seed))
        return tiny_pipeline([scene], num_inference_steps=2, guidance=scale, steering=steering)

    assert np.array_equal(draw(off, 1), draw(off, 2))
    assert not np.array_equal(draw(off, 1), draw(GuidanceScales(), 1))


def test_a_sound_needs_a_conditioner_that_knows_its_space(tiny_pipeline):
    scene = Scene(WINDOW, sound=vector(1))
    with pytest.raises(InvalidSpecError, match="nothing here was trained to be steered"):
        tiny_pipeline([scene], num_inference_steps=1)
    strange = SoundSteering(make_conditioner(), "whales")
    with pytest.raises(ConfigError, match=r"space 'whales' has no way in here.*sat2sound-nano"):
        tiny_pipeline([scene], num_inference_steps=1, steering=strange)


def test_a_clip_a_sentence_and_a_tile_steer(home, clip, tmp_path):
    tile = tmp_path / "tile.tif"
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    tile.write_bytes(geotiff_bytes(pixels, WINDOW, {}))
    ways = ({"sound": str(clip)}, {"sound": str(tile)}, {"sound_text": "surf"})
    renders = [render(replace(SPEC, **way).pinned()) for way in ways]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(renders[one].image, renders[other].image)
    for made in renders:
        assert made.provenance["sound"]["location_source"] == "simulated"
        assert any("simulated" in note for note in made.provenance["notes"])
    assert "sound" not in render(SPEC).provenance


def test_a_steered_render_is_made_again(home, clip, tmp_path, capsys):
    words = ["render", "satellite", "--lat=45.98", "--lon=7.66", "--size=64", "--steps=2"]
    out = tmp_path / "out"
    assert terrascape([*words, "--layout=none", f"--sound={clip}", f"--out={out}"]) == 0
    files = capsys.readouterr().out.split()
    assert all(terrascape(["replay", f]) == 0 for f in files if f.endswith((".png", ".tif")))
    clip.write_bytes(clip.read_bytes() + b"\0")
    assert terrascape(["replay", files[0]]) == 2
    assert "has changed since its fingerprint was taken" in capsys.readouterr().err


def test_a_changed_sound_is_refused(clip):
    pinned = replace(SPEC, sound=str(clip)).pinned()
    assert pinned.sound_sha256
    clip.write_bytes(b"other")
    with pytest.raises(AudioError, match=r"sound=.*surf.wav.* has changed"):
        pinned.pinned()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"sound_text": "surf", "sound_model": "psm"}, "no weights of psm in"),
        ({"sound_text": "surf", "sound_model": "sd21-base"}, "of kind 'base' and hears nothing"),
        ({"sound_text": "surf", "model": "geosynth"}, "cannot be steered by sounds"),
    ],
)
def test_what_cannot_steer_is_refused(home, fields, told, monkeypatch):
    from generation.pipelines import steering

    with pytest.raises(Exception, match=told) as caught:
        steering.open_steering(replace(SPEC, **fields), model_sha256(home / "satellite-nano"))
    assert "(" in str(caught.value)


def test_other_weights_than_it_was_trained_with_are_refused(home):
    from generation.pipelines.steering import open_steering

    with pytest.raises(WeightsError, match=r"satellite-nano of sha256 .*, here is abc"):
        open_steering(replace(SPEC, sound_text="surf"), "abc")


def test_specs_of_before_keep_their_fingerprint():
    assert "sound" not in SPEC.to_json()
    assert json.loads(replace(SPEC, sound_text="surf").to_json())["sound_text"] == "surf"


def test_only_the_conditioner_learns(models, tile_folder, tmp_path):
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    clips = [
        {"label": label, "test": False, "month": None, "hour": None}
        for label in ("Sea waves", "Chainsaw")
    ]
    (pairs / "clips.json").write_text(json.dumps(clips))
    np.save(pairs / "mels.npy", np.random.default_rng(0).normal(-5, 2, (2, 64, 48)))
    np.save(pairs / "pairs.npy", np.array([[0, 0], [1, 1], [0, 2], [1, 3]]))
    config = tmp_path / "steering.yaml"
    config.write_text(
        f"pairs: {pairs}\ntiles: {tile_folder}\nbase: {models / 'satellite-nano'}\n"
        f"spaces: [{models / 'sat2sound-nano'}]\nout: {tmp_path / 'run'}\ncrop_px: 64\n"
        "loop: {steps: 2, batch_size: 2, warmup_steps: 1, panel_every: 2, log_every: 1, lr: 0.01}\n"
    )
    before = model_sha256(models / "satellite-nano")
    try:
        train([str(config)])
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    learnt = load_part(SoundConditioner, tmp_path / "run/weights")
    assert learnt.config["made_for"] == {
        "satellite-nano": before,
        "sat2sound-nano": SoundEncoder.from_pretrained(models / "sat2sound-nano").sha256,
    }
    assert learnt.to_vector[1].weight.abs().sum() > 0  # it began as zeros
    assert next((tmp_path / "run/panels").glob("*.png")).stat().st_size > 1000
