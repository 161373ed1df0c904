"""Sounds at their levels and places."""

import numpy as np
import pytest

from generation.errors import InvalidSpecError
from generation.layer_spec import LayerSpec
from generation.media.mixing import CEILING_DB, LEVEL_DB, level_db, mix


def tone(hz, size=0.1):
    return (size * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000)).astype(np.float32)


def test_a_sine_lies_three_decibels_below_its_peak():
    assert level_db(tone(440, 1.0)) == pytest.approx(-3.0103, abs=1e-3)
    assert level_db(np.zeros(4)) == -np.inf


@pytest.mark.parametrize("size", [0.001, 0.9])
def test_every_source_is_brought_to_its_own_level(size):
    mixed, notes = mix([tone(440, size)], [LayerSpec("a", level_db=-6.0)])
    assert not notes
    left, right = mixed.T
    assert level_db(left) == pytest.approx(LEVEL_DB - 6 - 3.0103, abs=1e-3)  # half its power each
    assert np.array_equal(left, right)


@pytest.mark.parametrize(("pan", "left", "right"), [(-1.0, 1, 0), (1.0, 0, 1), (0.5, 0.146, 0.854)])
def test_a_source_stands_where_it_was_put_with_the_same_power(pan, left, right):
    mixed, _ = mix([tone(440)], [LayerSpec("a", pan=pan)])
    power = (mixed.astype(float) ** 2).mean(0) / 10 ** (LEVEL_DB / 10)
    assert power == pytest.approx([left, right], abs=1e-3)


def test_peaks_that_do_not_fit_lower_the_whole_mix_and_are_told():
    click = np.zeros(16_000, np.float32)
    click[100] = 1
    mixed, notes = mix([click], [LayerSpec("a click")])
    assert abs(mixed).max() == pytest.approx(10 ** (CEILING_DB / 20), abs=1e-4)
    assert "lower than asked for" in notes[0]


def test_silence_stays_silence_and_is_told():
    mixed, notes = mix([np.zeros(10, np.float32), tone(440)[:10]], [LayerSpec("a"), LayerSpec("b")])
    assert notes == ["layer 'a' came out silent"]
    assert np.isfinite(mixed).all()


def test_as_many_sounds_as_layers():
    with pytest.raises(InvalidSpecError, match="0 sounds for 1 layers"):
        mix([], [LayerSpec("a")])
