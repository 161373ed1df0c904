"""Spectrograms as pictures."""

import numpy as np
import pytest

from generation.media.spectrogram import spectrogram_picture

PITCHES = np.geomspace(30, 7800, 64)


@pytest.mark.parametrize(("frames", "seconds"), [(11, 0.1), (400, 4.0), (60_000, 600.0)])
def test_it_has_a_readable_size_at_every_length(frames, seconds):
    picture = spectrogram_picture(np.zeros((64, frames)), PITCHES, seconds)
    assert picture.shape[0] == 64 * 4 + 34
    assert 320 < picture.shape[1] <= 1000 + 66


def test_a_high_tone_is_bright_at_the_top():
    mel = np.full((64, 300), -11.0)
    mel[60] = 0.0
    picture = spectrogram_picture(mel, PITCHES, 3.0).astype(int).sum(2)
    body = picture[8 : 8 + 256, 60:500]
    assert body[:24].max() > 400
    assert body[40:].max() < 120
