"""Noise that belongs to a place."""

import numpy as np
import pytest
import torch
from scipy import stats

from generation.diffusion.noise import position_noise


def test_a_rectangle_does_not_change_what_lies_in_it():
    whole = position_noise(7, 8, range(100, 140), range(50, 98), 4)
    part = position_noise(7, 8, range(110, 120), range(60, 61), 4)
    assert whole.shape == (1, 4, 40, 48)
    assert torch.equal(whole[..., 10:20, 10:11], part)


def test_the_numbers_are_standard_normal():
    noise = position_noise(0, 8, range(0, 256), range(4000, 4256), 4).flatten().double().numpy()
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert stats.skew(noise) == pytest.approx(0, abs=0.02)
    assert stats.kurtosis(noise) == pytest.approx(0, abs=0.04)
    assert stats.kstest(noise, "norm").pvalue > 0.001
    assert np.isfinite(noise).all()


def test_neighbours_in_every_direction_are_independent():
    noise = position_noise(3, 8, range(0, 128), range(0, 128), 8)[0].double()
    pairs = [
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[1:], noise[:-1]),
        (noise, noise.transpose(1, 2)),  # row and column are not exchangeable
    ]
    for a, b in pairs:
        assert abs(float((a * b).mean())) < 0.02


def correlation(a, b):
    return abs(float((a * b).mean()))


def test_other_seeds_zooms_and_places_have_other_noise():
    here = position_noise(0, 8, range(64), range(64), 4)
    for other in (
        position_noise(1, 8, range(64), range(64), 4),
        position_noise(2**63 - 1, 8, range(64), range(64), 4),
        position_noise(0, 9, range(64), range(64), 4),
        position_noise(0, 0, range(64), range(64), 4),
        position_noise(0, 8, range(64, 128), range(64), 4),
        position_noise(0, 8, range(64), range(64, 128), 4),
    ):
        assert correlation(here, other) < 0.03


def test_the_numbers_never_change():
    noise = position_noise(7, 8, range(1000, 1001), range(2000, 2002), 2).flatten()
    assert noise.tolist() == pytest.approx(GOLDEN, abs=1e-6)


GOLDEN = [-1.0283268690, -1.1657125950, -0.6516919136, 1.0504375696]


def test_the_map_begins_anew_at_its_edge():
    over = position_noise(7, 8, range(4), range(1020, 1030), 2, period=1024)
    start = position_noise(7, 8, range(4), range(0, 6), 2, period=1024)
    assert torch.equal(over[..., 4:], start)
    assert torch.equal(position_noise(7, 8, range(4), range(-4, 0), 2, period=1024), over[..., :4])
