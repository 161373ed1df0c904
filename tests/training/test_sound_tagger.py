import numpy as np
import pytest
import torch

from generation.errors import ConfigError
from training.sound_tagger import FEATURES, MEL, ask, heard, train_tagger

COUNT = 8_000


def recordings(each=4, seed=0):
    """Rising and falling noise against steady tones: two kinds, each in two halves."""
    rng = np.random.default_rng(seed)
    turns = 2 * np.pi * np.arange(2 * COUNT) / MEL.rate
    found = []
    for number in range(2 * each):
        noise = 0.1 * rng.normal(size=2 * COUNT)
        found.append((noise if number % 2 else np.sin((400 + 40 * number) * turns)).astype("f4"))
    return found, np.arange(2 * each) % 2


@pytest.fixture(scope="module")
def tagger():
    return train_tagger(*recordings(), COUNT, steps=40)


def test_it_learns_to_tell_kinds_that_it_has_not_heard(tagger):
    sounds, labels = recordings(seed=5)
    opinion = ask(tagger, np.stack([each[:COUNT] for each in sounds]))
    assert np.array_equal(opinion.said, labels)
    assert opinion.features.shape == (len(labels), FEATURES)


def test_one_seed_gives_one_tagger_and_leaves_other_chance_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, again, other = (train_tagger(*recordings(), COUNT, seed=s, steps=2) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(one.leave.weight, other.leave.weight)


def test_loudness_is_not_heard():
    samples = np.stack([recordings()[0][1][:COUNT]])
    torch.testing.assert_close(heard(3 * samples), heard(samples), atol=1e-4, rtol=0)
    assert heard(samples).max() == 0
    assert heard(samples).min() >= -1


def test_answers_do_not_depend_on_the_batch(tagger):
    sounds = np.stack([each[:COUNT] for each in recordings()[0]])
    together, alone = ask(tagger, sounds), ask(tagger, sounds[2:3])
    np.testing.assert_allclose(together.features[2], alone.features[0], atol=1e-5)


@pytest.mark.parametrize("labels", [[0, 0], [0, 2], [1, 1]])
def test_kinds_without_recordings_are_refused(labels):
    sounds = recordings()[0][:2]
    with pytest.raises(ConfigError, match="two kinds or more"):
        train_tagger(sounds, np.array(labels), COUNT, steps=1)
