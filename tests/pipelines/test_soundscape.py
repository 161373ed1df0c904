"""Sounds of exactly the length that was asked for, from whatever was asked with."""

import numpy as np
import pytest
import torch
from tiny_soundscape import EMBED, make_soundscape_pipeline

from generation.diffusion.noise import position_noise
from generation.encoders.heads import Embedding, unit
from generation.errors import CancelledError, ConfigError, InvalidSpecError, MissingFileError
from generation.media.audio import signal_mel
from generation.pipelines.soundscape import WHITE_LEVEL, SoundscapePipeline


@pytest.fixture(scope="module")
def pipeline():
    return make_soundscape_pipeline()


def asked(count=1, seed=0):
    return Embedding(torch.randn(count, EMBED, generator=torch.Generator().manual_seed(seed)))


def made(pipeline, embedding=None, kind="audio", **more):
    embedding = asked() if embedding is None else embedding
    given = {"seconds": 0.3, "seeds": range(len(embedding)), "num_inference_steps": 2, **more}
    return pipeline(embedding, kind, **given)


@pytest.mark.parametrize("seconds", [0.01, 0.25, 0.5, 1.00001])
def test_it_lasts_as_long_as_was_asked(pipeline, seconds):
    sound = made(pipeline, seconds=seconds)
    assert sound.shape == (1, round(seconds * pipeline.rate))
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert abs(sound).max() <= 1


def test_the_same_seed_gives_the_same_sound_alone_or_in_a_batch(pipeline):
    both = made(pipeline, asked(2))
    assert np.array_equal(made(pipeline, asked(2)), both)
    alone = made(pipeline, asked(2)[1:], seeds=[1])
    np.testing.assert_allclose(alone[0], both[1], atol=1e-5)
    assert not np.array_equal(made(pipeline, asked(2), seeds=[0, 5])[1], both[1])


def test_a_longer_sound_begins_from_the_same_noise(pipeline):
    assert torch.equal(pipeline._noise(3, 8), pipeline._noise(3, 20)[..., :8])


@pytest.mark.parametrize(
    "other", [{"kind": "text"}, {"month": 5}, {"hour": 6.5}, {"guidance_scale": 1.0}]
)
def test_whatever_is_told_is_heard(other):
    pipeline = make_soundscape_pipeline()
    pipeline.conditioner.means[1] = 0.5
    assert abs(made(pipeline, **other) - made(pipeline)).max() > 1e-5


def test_midnight_is_midnight_and_december_is_next_to_january(pipeline):
    day = made(pipeline, hour=0.0)
    np.testing.assert_allclose(made(pipeline, hour=24.0), day, atol=1e-4)
    first, last, summer = (
        pipeline._condition(unit(asked().vector), m, None, keep=True) for m in (1, 12, 7)
    )
    near, far = ((each.tokens - first.tokens).norm() for each in (last, summer))
    assert near < far


def test_a_guidance_of_zero_hears_nothing_of_what_was_asked(pipeline):
    one, other = (made(pipeline, asked(seed=s), guidance_scale=0.0) for s in (1, 2))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_it_is_saved_and_loaded(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model", half=False)
    again = SoundscapePipeline.from_pretrained(tmp_path / "model")
    assert len(again.sha256) == 64
    assert np.array_equal(made(again), made(pipeline))
    with pytest.raises(MissingFileError, match="no soundscape pipeline"):
        SoundscapePipeline.from_pretrained(tmp_path)


def test_progress_is_told_and_it_can_be_stopped(pipeline):
    steps = []
    made(pipeline, on_step=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    with pytest.raises(CancelledError, match="step 1 of 2"):
        made(pipeline, cancelled=iter([False, True]).__next__)


def test_each_mistake_is_told(pipeline):
    for mistake, told in (
        ({"seeds": [1, 2]}, "2 seeds for 1 sounds"),
        ({"seconds": 0.0}, "seconds=0"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
    ):
        with pytest.raises(InvalidSpecError, match=told):
            made(pipeline, **mistake)
    with pytest.raises(ConfigError, match="smell"):
        made(pipeline, kind="smell")


def jump(sound):
    """Give the step from the last sample to the first as a share of the largest step inside."""
    inside = abs(np.diff(sound)).max()
    return abs(sound[0] - sound[-1]) / inside


@pytest.mark.parametrize("seconds", [0.1, 0.32, 0.37, 1.0])
def test_the_end_of_a_loop_goes_over_into_its_beginning(pipeline, seconds):
    loop = made(pipeline, seconds=seconds, loop=True)[0]
    assert len(loop) == round(seconds * pipeline.rate)
    assert jump(loop) <= 1


@torch.no_grad()
def test_a_loop_is_voiced_as_if_it_had_no_end(pipeline):
    hop = pipeline.vocoder.mel.hop
    latents = torch.randn(1, pipeline.codec.config["latent_channels"], 8, 5)
    once = pipeline.sounds(latents, [3], frames=40)[0]
    mel = signal_mel(pipeline.codec.decode(latents)[:, 0]).repeat(1, 1, 3)
    white = position_noise(3, WHITE_LEVEL, range(1), range(40 * hop), 1)[0, 0].repeat(1, 3)
    thrice = pipeline._voiced(torch.cat([mel, mel[..., :1]], 2), white)[0]
    np.testing.assert_allclose(once, thrice[40 * hop : 80 * hop], atol=1e-5)


def test_a_loop_of_half_a_column_is_refused(pipeline):
    with pytest.raises(InvalidSpecError, match=r"multiple of 0\.01"):
        made(pipeline, seconds=0.305, loop=True)


def test_a_long_sound_is_voiced_in_stretches_that_do_not_show(pipeline, monkeypatch):
    whole = made(pipeline, seconds=1.5)
    monkeypatch.setattr("generation.pipelines.soundscape._CHUNK", 40)
    np.testing.assert_allclose(made(pipeline, seconds=1.5), whole, atol=1e-5)
