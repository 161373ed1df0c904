"""Scores of ranges, by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from generation.geo.location import EARTH_RADIUS_KM
from training.range_metrics import CAP_KM, ProximityMetric, average_precision

DEGREE_KM = np.pi * EARTH_RADIUS_KM / 180
LINE = np.stack([np.zeros(20), np.arange(20.0)], 1)
"""Cells a degree apart along the equator."""


def at(*cells, count=20):
    mask = np.zeros(count, bool)
    mask[list(cells)] = True
    return mask


def test_average_precision_by_hand_and_as_in_scikit_learn():
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert average_precision(scores, at(0, 2, count=4)) == pytest.approx((1 + 2 / 3) / 2)
    tied = np.array([0.5, 0.5, 0.5, 0.5])
    assert average_precision(tied, at(0, count=4)) == pytest.approx(0.25)
    rng = np.random.default_rng(0)
    for digits in (1, 6):
        scores, present = rng.random(500).round(digits), rng.random(500) < 0.1
        wanted = average_precision_score(present, scores)
        assert average_precision(scores, present) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="without cells"):
        average_precision(scores, np.zeros(500, bool))


def test_the_cost_is_nothing_if_and_only_if_the_range_is_met():
    metric, present = ProximityMetric(LINE), at(3, 4)
    assert metric(present.astype(float), present).cost_km == pytest.approx(0, abs=1e-9)
    assert metric(at(3, 4, 5).astype(float), present).cost_km > 0
    assert metric(at(3).astype(float), present).cost_km > 0


def test_commission_and_omission_by_hand():
    metric, present = ProximityMetric(LINE), at(3)
    found = metric(at(5).astype(float), present)
    assert found.commission_km == pytest.approx(2 * DEGREE_KM, rel=1e-6)
    assert found.omission_km == pytest.approx(2 * DEGREE_KM, rel=1e-6)
    half = 0.5 * at(3, 5)
    found = metric(half, present)
    assert found.commission_km == pytest.approx(DEGREE_KM, rel=1e-6)  # half of it 2 degrees off
    wanted = 0.5 * 0 + 0.25 * 2 * DEGREE_KM + 0.25 * CAP_KM
    assert found.omission_km == pytest.approx(wanted, rel=1e-6)
    nothing = metric(np.zeros(20), present)
    assert (nothing.commission_km, nothing.omission_km) == (0.0, CAP_KM)


def test_far_mistakes_are_capped_and_areas_count():
    far = np.array([[0.0, 0.0], [0.0, 90.0], [60.0, 90.0]])
    present, wrong = at(0, count=3), at(1, 2, count=3).astype(float)
    found = ProximityMetric(far)(wrong, present)
    assert (found.commission_km, found.omission_km) == (CAP_KM, CAP_KM)
    near = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    plain = ProximityMetric(near)(wrong, present).commission_km
    weighted = ProximityMetric(near, np.array([1.0, 3.0, 1.0]))(wrong, present).commission_km
    assert plain == pytest.approx(2 * DEGREE_KM, rel=1e-6)
    assert weighted == pytest.approx(1.5 * DEGREE_KM, rel=1e-6)


def test_a_near_miss_and_a_far_one_score_alike_in_precision_and_not_in_kilometres():
    """Where the two measures rank models differently."""
    metric, present = ProximityMetric(LINE), at(3)
    beside = 0.9 * at(4) + 0.01 * at(3)
    # the right cell comes third, behind two that lie at the other end
    across = 0.02 * at(18) + 0.02 * at(19) + 0.015 * at(3)
    best_first = 0.03 * at(3) + 0.02 * at(*range(4, 20))
    assert average_precision(beside, present) > average_precision(across, present)
    assert metric(beside, present).cost_km < metric(across, present).cost_km
    # precision prefers what puts the right cell first, though it claims everywhere else too
    assert average_precision(best_first, present) == 1 > average_precision(beside, present)
    assert metric(best_first, present).cost_km > metric(beside, present).cost_km
