"""Climates that no land has today are told from those that some land has."""

import numpy as np
import pytest

from generation.errors import InvalidSpecError
from generation.geo.climate_novelty import Climates, climates_at, novelty_at, todays_climates
from generation.geo.environment import BIOCLIM, Environment, embedded_environment


def test_no_climate_of_today_is_new():
    climates = todays_climates()
    every = climates_at(embedded_environment(), climates.latlon[::7])
    assert not climates.new(every).any()
    found = novelty_at(46.5, 7.5, warmer_c=0.0, rain_share=0.0)
    assert found.analogue == (46.5, 7.5)
    assert found.distance == pytest.approx(0, abs=0.05)
    assert (found.new, found.note) == (False, "")


def test_hotter_than_the_hottest_is_new_and_named():
    found = novelty_at(23.0, 5.0, warmer_c=8.0, rain_share=0.0)
    assert found.new
    assert "bio5" in found.outside
    assert "warmest month" in found.note
    alps = novelty_at(46.0, 7.0, warmer_c=3.0, rain_share=-0.2)
    assert not alps.new
    lat, _ = alps.analogue
    assert lat < 46  # as warm as it is farther south today


def test_a_combination_can_be_new_though_each_value_is_known():
    """Of two kinds of land, a mixture of both has known values everywhere."""
    rng = np.random.default_rng(0)
    rows, cols = 18, 36
    wet = np.zeros((12, rows, cols), np.float32)
    warm = np.zeros((12, rows, cols), np.float32)
    hot = np.arange(cols) >= cols // 2
    season = np.cos(2 * np.pi * np.arange(12) / 12)[:, None, None]
    warm += np.where(hot, 30.0, 0.0) + rng.normal(0, 1, (rows, cols)) + season
    wet += np.where(hot, 0.0, 200.0) + rng.normal(20, 4, (rows, cols)) + 3 * season
    land = Environment(warm, wet, np.zeros((rows, cols), np.float32), np.zeros((17, rows, cols)))
    climates = Climates(land)
    cold = np.array([[5.0, -135.0]], np.float32)
    usual = climates_at(land, cold)[0]
    assert not climates.novelty(usual).new
    hot_and_wet = usual.copy()
    names = BIOCLIM[1:]
    dry = climates_at(land, np.array([[5.0, 135.0]], np.float32))[0]
    for name in ("bio1", "bio5", "bio6", "bio8", "bio9", "bio10", "bio11"):
        hot_and_wet[names.index(name)] = dry[names.index(name)]
    found = climates.novelty(hot_and_wet)
    assert found.outside == ()
    assert found.new
    assert "nothing today is like it" in found.note
    assert climates.new(np.stack([usual, hot_and_wet])).tolist() == [False, True]


def test_changes_out_of_range_are_refused():
    with pytest.raises(InvalidSpecError, match="warmer_c=50"):
        novelty_at(0.0, 0.0, warmer_c=50.0, rain_share=0.0)
