"""The full-size models of sounds, with tiny random weights in the published layouts."""

import json
import logging
import shutil
import warnings

import numpy as np
import pytest
import torch
from published_audio import BANDS, clap_config, write_audioldm, write_audioldm2, write_stable_audio

from generation.checkpoint import model_sha256
from generation.errors import (
    AudioError,
    CancelledError,
    InvalidSpecError,
    MissingFileError,
    WeightsError,
)
from generation.media.audio import Recording
from generation.pipelines.published_maker import clap_mels
from generation.pipelines.published_parts import (
    ArctanSolver,
    closed,
    load_solver,
    overlap_samples,
    within_full_scale,
)
from generation.pipelines.published_sounds import load_published
from generation.pipelines.sound_maker import SoundAsk, sound_maker
from generation.registry import find, list_models, locate

NAMES = ("audioldm", "audioldm2", "stable-audio")
RAIN, DOG = SoundAsk(seed=1, text="rain"), SoundAsk(seed=2, text="a dog barks and barks")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Weights where TERRASCAPE_HOME would have them."""
    folder = tmp_path_factory.mktemp("home")
    with warnings.catch_warnings():  # how diffusers builds Stable Audio's autoencoder
        warnings.simplefilter("ignore", FutureWarning)
        write_stable_audio(folder / "stable-audio")
    write_audioldm(folder / "audioldm")
    write_audioldm2(folder / "audioldm2")
    return folder


@pytest.fixture(scope="module")
def makers(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRASCAPE_HOME", str(home))
        return {name: sound_maker(name) for name in NAMES}


@pytest.fixture(params=NAMES)
def maker(makers, request):
    return makers[request.param]


def made(maker, *asks, seconds=0.25, steps=2, **settings):
    return maker.make(asks, seconds=seconds, steps=steps, **settings)


def recording(hz=440.0, seconds=0.5, rate=16_000):
    t = np.arange(round(seconds * rate)) / rate
    return Recording(np.sin(2 * np.pi * hz * t).astype(np.float32), rate)


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.3333, 1.000061])
@pytest.mark.parametrize("loop", [False, True])
def test_as_many_samples_come_as_were_asked_for(maker, seconds, loop):
    sounds = made(maker, RAIN, seconds=seconds, steps=1, loop=loop)
    assert sounds.shape == (1, round(seconds * maker.rate))
    assert sounds.dtype == np.float32
    assert np.abs(sounds).max() <= 1


def test_a_sound_depends_on_its_seed_and_its_words_and_not_on_its_batch(maker):
    both = made(maker, RAIN, DOG)
    assert np.array_equal(both, made(maker, RAIN, DOG))
    np.testing.assert_allclose(made(maker, DOG, RAIN)[::-1], both, atol=1e-5)
    np.testing.assert_allclose(made(maker, RAIN)[0], both[0], atol=1e-5)
    apart = made(maker, RAIN, SoundAsk(seed=1, text="zzz"), SoundAsk(seed=3, text="rain"))
    assert np.abs(apart[1] - apart[0]).max() > 1e-4
    assert np.abs(apart[2] - apart[0]).max() > 1e-4


def test_guidance_pulls_and_one_is_none(maker):
    plain, pulled = (made(maker, RAIN, guidance=scale) for scale in (1.0, 5.0))
    assert np.abs(plain - pulled).max() > 1e-4
    with pytest.raises(InvalidSpecError, match=r"guidance=0\.5"):
        made(maker, RAIN, guidance=0.5)


def test_steps_are_told_and_a_stop_is_heeded(maker):
    told = []
    made(maker, RAIN, steps=3, on_step=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(CancelledError, match="step 0 of 3"):
        made(maker, RAIN, steps=3, cancelled=lambda: True)
    told.clear()
    with pytest.raises(CancelledError, match="step 2 of 3"):
        made(
            maker,
            RAIN,
            steps=3,
            on_step=lambda *step: told.append(step),
            cancelled=lambda: len(told) == 2,
        )


def test_the_end_of_a_loop_is_followed_by_its_beginning(maker):
    loop, samples = made(maker, RAIN, loop=True)[0], round(0.25 * maker.rate)
    longer = made(
        maker, RAIN, seconds=(samples + overlap_samples(samples, maker.rate)) / maker.rate
    )
    np.testing.assert_allclose(loop[0], longer[0, samples], atol=1e-6)
    np.testing.assert_allclose(loop[-1], longer[0, samples - 1], atol=1e-6)


def test_powers_add_up_to_one_where_a_loop_closes():
    rng = np.random.default_rng(0)
    sounds = rng.standard_normal((400, 300)).astype(np.float32)
    loops = closed(sounds, 250)
    assert np.abs(loops.std(0) - 1).max() < 0.2
    assert np.array_equal(loops[:, 0], sounds[:, 250])
    assert np.array_equal(loops[:, 50:], sounds[:, 50:250])
    assert (overlap_samples(160_000, 16_000), overlap_samples(1_000, 16_000)) == (8_000, 100)


def test_only_what_is_louder_than_full_scale_is_turned_down():
    given = np.array([[0.5, -0.25], [4.0, -2.0]], np.float32)
    assert np.array_equal(within_full_scale(given), [[0.5, -0.25], [1.0, -0.5]])


@pytest.mark.parametrize(
    ("asks", "settings", "reason"),
    [
        ([], {}, "0 sounds"),
        ([RAIN], {"steps": 0}, "0 steps"),
        ([RAIN], {"seconds": 0.0}, "0 samples"),
        ([RAIN], {"seconds": 300.0}, r"s at most, and 300 s.*soundscape-nano"),
        ([RAIN, SoundAsk(seed=1)], {}, "sound 1 has no words"),
    ],
)
def test_what_cannot_be_made_is_refused(maker, asks, settings, reason):
    with pytest.raises(InvalidSpecError, match=reason):
        made(maker, *asks, **settings)


def test_lengths_have_a_limit_that_a_loop_reaches_earlier(makers):
    maker = makers["stable-audio"]
    assert maker.longest / maker.rate == 2.0
    assert made(maker, RAIN, seconds=2.0, steps=1).shape == (1, 8000)
    with pytest.raises(InvalidSpecError, match=r"2 s at most, and 2\.2 s"):
        made(maker, RAIN, seconds=2.0, steps=1, loop=True)
    assert makers["audioldm"].longest == 30 * 16_000


def test_what_is_not_heeded_is_said(makers):
    notes = makers["audioldm"].unread([RAIN, SoundAsk(seed=0, text="no " * 40 + "end")], 3, 4.5)
    assert notes[0] == "audioldm knows no month and no hour; neither changed a sound"
    assert notes[1].startswith("audioldm did not read a text beyond: …")
    assert notes[1].endswith("end'")
    assert makers["audioldm2"].unread([RAIN, DOG], None, None) == []
    assert "DPM-Solver++" in makers["stable-audio"].unread([RAIN], None, None)[-1]
    both = SoundAsk(seed=0, text="rain", recording=recording())
    assert makers["audioldm"].unread([both], None, None) == [
        "audioldm heard the recording and not 'rain'"
    ]


def test_a_recording_needs_a_model_that_hears(maker):
    assert not maker.listens
    with pytest.raises(InvalidSpecError, match=r"hears no recordings.*in words"):
        made(maker, SoundAsk(seed=0, recording=recording()))


def test_with_a_whole_clap_audioldm_hears(tmp_path, monkeypatch, makers):
    write_audioldm(tmp_path / "audioldm", whole=True)
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    maker = load_published("audioldm")
    assert maker.listens
    low, high = (SoundAsk(seed=1, recording=recording(hz)) for hz in (300.0, 3000.0))
    sounds = made(maker, low, RAIN, high)
    assert np.abs(sounds[0] - sounds[2]).max() > 1e-5
    np.testing.assert_allclose(sounds[1], made(makers["audioldm"], RAIN)[0], atol=1e-5)


def test_recordings_are_read_as_transformers_reads_them():
    from transformers import ClapFeatureExtractor

    settings = clap_config().audio_config
    length = (256 - 1) * 480  # columns that the tiny tower takes
    theirs = ClapFeatureExtractor(feature_size=BANDS, frequency_min=50, truncation="rand_trunc")
    for seconds in (1.0, 255 * 0.01):
        given = recording(seconds=seconds, rate=48_000)
        wanted = theirs(
            given.samples, sampling_rate=48_000, max_length=length, return_tensors="pt"
        )["input_features"]
        torch.testing.assert_close(clap_mels(given, settings), wanted, atol=2e-2, rtol=1e-3)
    long = recording(seconds=4.0, rate=48_000)
    middle = Recording(long.samples[(4 * 48_000 - length) // 2 :][:length], 48_000)
    assert torch.equal(clap_mels(long, settings), clap_mels(middle, settings))
    with pytest.raises(AudioError, match="without samples"):
        clap_mels(Recording(np.zeros(0, np.float32), 48_000), settings)


def test_audioldm_makes_what_diffusers_makes(makers):
    maker = makers["audioldm"]
    noise = torch.randn(1, *maker._latent_shape(4000), generator=torch.Generator().manual_seed(1))
    theirs = maker.pipeline(
        ["rain"], audio_length_in_s=0.25, num_inference_steps=2, guidance_scale=2.0, latents=noise
    ).audios
    np.testing.assert_allclose(made(maker, RAIN), theirs, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`past_key_values`:FutureWarning")
def test_audioldm2_writes_what_diffusers_has_its_language_model_write(makers, home):
    from diffusers import AudioLDM2Pipeline
    from transformers import GPT2LMHeadModel

    ours = makers["audioldm2"].pipeline
    headed = GPT2LMHeadModel.from_pretrained(home / "audioldm2" / "language_model").eval()
    parts = {**ours.components, "language_model": headed}
    with torch.no_grad():
        told, wanted = (
            pipeline.encode_prompt(["rain", "a dog"], "cpu", 1, True, max_new_tokens=4)
            for pipeline in (ours, AudioLDM2Pipeline(**parts))
        )
    assert told[2].shape == (4, 4, 32)
    for ours_said, theirs_said in zip(told, wanted, strict=True):
        torch.testing.assert_close(ours_said, theirs_said)
    assert makers["audioldm2"].written == 4


def test_the_solver_has_the_published_noise_levels(home, tmp_path):
    solver, replaced = load_solver(home / "stable-audio" / "scheduler")
    assert replaced
    assert isinstance(solver, ArctanSolver)
    solver.set_timesteps(50)
    assert solver.sigmas[[0, -2, -1]].tolist() == pytest.approx([500, 0.3, 0], rel=1e-5)
    told = torch.tan(solver.timesteps.double() * torch.pi / 2)
    torch.testing.assert_close(told.float(), solver.sigmas[:-1], rtol=1e-3, atol=0)
    settings = json.loads((home / "stable-audio/scheduler/scheduler_config.json").read_text())
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**settings, "_class_name": "EDMDPMSolverMultistepScheduler"}))
    assert not load_solver(tmp_path)[1]
    path.write_text(json.dumps({**settings, "_class_name": "PNDMScheduler"}))
    with pytest.raises(WeightsError, match="PNDMScheduler is none of"):
        load_solver(tmp_path)


def test_a_solver_reaches_what_a_certain_network_is_certain_of():
    """A network that always says the same clean latents leaves nothing but these."""
    solver = ArctanSolver(
        sigma_min=0.3, sigma_max=500.0, sigma_data=1.0, sigma_schedule="exponential",
        prediction_type="v_prediction",
    )  # fmt: skip
    solver.set_timesteps(8)
    clean = torch.tensor([[0.3, -1.2]])
    x = torch.randn(1, 2) * solver.init_noise_sigma
    for t, sigma in zip(solver.timesteps, solver.sigmas, strict=False):
        scaled = solver.scale_model_input(x, t)
        assert float(t) == pytest.approx(float(torch.atan(sigma)) * 2 / torch.pi)
        said = (x / (sigma**2 + 1) - clean) / (sigma / (sigma**2 + 1) ** 0.5)
        assert scaled.abs().max() < 10
        x = solver.step(said, t, x).prev_sample
    torch.testing.assert_close(x, clean, atol=1e-3, rtol=0)


def test_cards_and_files_are_those_that_are_published(home, monkeypatch, makers):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    assert set(NAMES) < set(list_models("soundscape"))
    assert find("cvssp/audioldm-s-full-v2").name == "audioldm"
    for name in NAMES:
        assert find(name).family == name
        assert makers[name].sha256 == model_sha256(home / name)
        assert makers[name].device == torch.device("cpu")
        assert locate(name) == home / name


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("audioldm", "vocoder/model.safetensors"),
        ("audioldm2", "projection_model/config.json"),
        ("audioldm2", "tokenizer_2/tokenizer.json"),
        ("stable-audio", "transformer/diffusion_pytorch_model.safetensors"),
    ],
)
def test_a_part_that_is_missing_is_named(home, tmp_path, monkeypatch, name, file):
    shutil.copytree(home / name, tmp_path / name)
    (tmp_path / name / file).unlink()
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    with pytest.raises(MissingFileError, match=f"{name} is not whole.*{file.split('/')[0]}"):
        load_published(name)


def test_absent_weights_tell_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingFileError, match=r"download cvssp/audioldm2 into a folder"):
        load_published("audioldm2")
    with pytest.raises(InvalidSpecError, match="family 'nano'"):
        load_published("soundscape-nano")


def test_damaged_and_foreign_parts_are_refused(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    shutil.copytree(home / "audioldm", tmp_path / "audioldm")
    weights = tmp_path / "audioldm" / "vocoder" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(WeightsError, match="not whole"):
        load_published("audioldm")
    weights.write_bytes((home / "audioldm2/text_encoder_2/model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"vocoder: does not fit its config\.json"):
        load_published("audioldm")
    weights.write_bytes(whole)
    path = tmp_path / "audioldm" / "text_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "t5"}))
    with pytest.raises(WeightsError, match="text_encoder is a t5"):
        load_published("audioldm")


def test_of_the_notices_at_loading_only_that_of_retirement_is_silent(home, monkeypatch, tmp_path):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("diffusers.pipelines.pipeline_utils")
    logger.addHandler(handler)
    try:
        shutil.copytree(home / "audioldm", tmp_path / "audioldm")
        monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
        maker = load_published("audioldm")
        assert said == []
        type(maker.pipeline)(**maker.pipeline.components)
        logger.warning("something else")
    finally:
        logger.removeHandler(handler)
    assert [text.split(" has been")[0] for text in said] == [
        "The AudioLDMPipeline",
        "something else",
    ]
