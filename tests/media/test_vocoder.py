"""Spectrograms become sound of the right length, loudness and pitch, and noise stays noise."""

import pytest
import torch

from generation.errors import AudioError
from generation.media.audio import Mel, log_mel
from generation.media.vocoder import Vocoder, griffin_lim, magnitudes

MEL = Mel()
FILTERS = MEL.filters()
FRAMES = 65
COUNT = (FRAMES - 1) * MEL.hop


def white(count=1, seed=0):
    return torch.randn(count, COUNT, generator=torch.Generator().manual_seed(seed))


def tone(hz):
    return 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(COUNT) / MEL.rate)[None]


@pytest.fixture(scope="module")
def vocoder():
    torch.manual_seed(0)
    return Vocoder(width=16, hidden=32, num_blocks=2).eval().requires_grad_(False)


def peak_hz(samples):
    spectrum = torch.fft.rfft(samples[0] * torch.hann_window(COUNT)).abs()
    return float(spectrum.argmax()) * MEL.rate / COUNT


def test_magnitudes_have_the_bands_that_were_asked_for():
    spectrum = torch.rand(1, 513, 9, generator=torch.Generator().manual_seed(0))
    bands = (FILTERS.T @ spectrum).log()
    found = magnitudes(bands, FILTERS, updates=300)
    assert (found >= 0).all()
    assert ((FILTERS.T @ found).log() - bands).abs().max() < 0.05


@pytest.mark.parametrize("hz", [440.0, 2000.0])
def test_a_search_finds_the_pitch(hz):
    seen = log_mel(tone(hz), MEL, FILTERS)
    found = griffin_lim(seen, MEL, white())
    assert found.shape == (1, COUNT)
    assert abs(peak_hz(found) - hz) < 60  # the bands are about as wide
    again = log_mel(found, MEL, FILTERS)
    loud = seen > -6
    assert (again - seen)[loud].abs().mean() < 0.8


def test_an_untrained_network_colours_noise_as_loud_as_it_was(vocoder):
    noise = 0.1 * white(2)
    made = vocoder(log_mel(noise, MEL, FILTERS), white(2, seed=5))
    assert made.shape == noise.shape
    assert 0.5 < float(made.std() / noise.std()) < 2
    assert abs(float(torch.corrcoef(torch.cat([made, noise]))[0, 2])) < 0.2  # it is other noise


def test_the_same_noise_gives_the_same_sound_and_other_noise_another(vocoder):
    seen = log_mel(0.1 * white(), MEL, FILTERS)
    one, other = vocoder.several(seen, [white(seed=1), white(seed=2)])
    assert torch.equal(one, vocoder(seen, white(seed=1)))
    assert (one - other).abs().max() > 1e-3


def test_every_part_of_the_network_learns():
    torch.manual_seed(0)
    vocoder = Vocoder(width=16, hidden=32, num_blocks=2)
    vocoder(log_mel(tone(440.0), MEL, FILTERS), white()).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vocoder.parameters())


def test_noise_of_another_length_is_refused(vocoder):
    seen = log_mel(white(), MEL, FILTERS)
    for call in (lambda noise: vocoder(seen, noise), lambda noise: griffin_lim(seen, MEL, noise)):
        with pytest.raises(AudioError, match=f"give {COUNT}"):
            call(white()[:, :-1])
