import numpy as np
import pytest

from generation.media.audio import Mel
from training.soundscape_findings import Findings, Way, dealt, ranked
from training.soundscape_metrics import (
    INDICES,
    balanced,
    balanced_mean,
    balanced_ratio,
    difference,
    frechet,
    frechet_interval,
    indices,
    kad,
    kad_by_kind,
    median_ratio,
    paired_mmd2,
    shifted_distances,
    spectra,
    standardised,
)

RATE = 16_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tone(hz, seconds=1.0, size=0.5):
    return (size * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype("f4")


def test_the_frechet_distance_has_known_values(rng):
    a = np.array([[-1.0], [1.0]])  # mean 0, variance 2
    b = np.array([[1.0], [5.0]])  # mean 3, variance 8
    assert frechet(a, b) == pytest.approx(3**2 + 2 + 8 - 2 * np.sqrt(2 * 8))
    several = rng.normal(size=(50, 6))
    assert frechet(several, several + 2.0) == pytest.approx(6 * 4, rel=1e-6)
    assert frechet(several, several) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_is_the_one_of_torchmetrics(rng):
    import torch
    from torchmetrics.image.fid import _compute_fid

    a, b = rng.normal(size=(40, 5)), 2 * rng.normal(size=(30, 5)) + 1
    means = [torch.from_numpy(each.mean(0)) for each in (a, b)]
    spreads = [torch.from_numpy(np.cov(each, rowvar=False)) for each in (a, b)]
    theirs = _compute_fid(means[0], spreads[0], means[1], spreads[1])
    assert frechet(a, b) == pytest.approx(float(theirs), rel=1e-6)


def test_distances_tell_the_same_law_from_another(rng):
    real, alike = rng.normal(size=(2, 60, 8))
    other, groups = alike + 1.0, np.arange(60) // 2
    near, far = (kad(each, real, groups) for each in (alike, other))
    assert near[1] < 0 < near[2]  # its interval holds zero
    assert far[1] > near[2]
    for features, value in ((alike, frechet(alike, real)), (other, frechet(other, real))):
        low, high = frechet_interval(features, real, groups)
        assert low <= value <= high
        assert high > low


def test_distances_by_kind_notice_kinds_that_were_exchanged(rng):
    labels = np.arange(24) // 8
    real, made = (0.3 * rng.normal(size=(24, 4)) + labels[:, None] - 1 for _ in range(2))
    exchanged = made[np.roll(np.arange(24), 8)]
    assert abs(kad_by_kind(made, real, labels)) < 0.3
    assert kad_by_kind(exchanged, real, labels) > 3
    assert np.isnan(kad_by_kind(made[::8], real[::8], labels[::8]))


def test_the_distance_of_pairs_has_a_known_value_and_leaves_partners_out():
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # (0*1+1)**3 + (1*2+1)**3 - ((0*2+1)**3 + (1*1+1)**3): the partners 0, 1 and 1, 2 do not meet
    assert paired_mmd2(a, b) == pytest.approx(1 + 27 - (1 + 8))


def test_features_are_brought_to_the_scale_of_others():
    scale = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0]])  # variances 1, 0 and 1
    moved = standardised(np.array([[3.0, 9.0, 2.0]]), scale)
    np.testing.assert_allclose(moved, np.array([[2.0, 4.0, 0.0]]) / np.sqrt(2 / 3))


def test_each_kind_counts_alike_however_many_it_has():
    labels = np.array([0, 0, 0, 0, 1])
    hits = np.array([True, True, True, False, False])
    assert balanced_mean(hits, labels) == pytest.approx((3 / 4 + 0) / 2)
    point, low, high = balanced(hits, labels, np.arange(5))
    assert point == pytest.approx(3 / 8)
    assert low < point < high
    every = np.ones(5, bool)
    assert balanced_ratio(hits, every, labels, np.arange(5))[0] == pytest.approx(3 / 8)
    assert balanced_ratio(hits, hits, labels, np.arange(5))[0] == pytest.approx(1)
    none = np.zeros(5, bool)
    assert np.isnan(balanced_ratio(hits, none, labels, np.arange(5))[0])


def test_a_ratio_of_medians_has_an_interval():
    values, others = np.arange(1.0, 10.0), np.full(9, 2.0)
    ratio, low, high = median_ratio(values, others, np.arange(9))
    assert ratio == pytest.approx(2.5)
    assert 0.5 <= low < ratio < high <= 4.5


def test_pairs_stay_pairs_in_a_difference(rng):
    level = 100 * rng.normal(size=20)
    values = np.concatenate([level + 3.0, level])
    first, groups = np.arange(40) < 20, np.tile(np.arange(20), 2)
    point, low, high = difference(values, first, groups)
    np.testing.assert_allclose([point, low, high], 3.0, atol=1e-9)
    apart = difference(values, first, np.arange(40))
    assert apart[1] < 0 < apart[2]
    values[0] = np.nan
    assert np.isfinite(difference(values, first, np.arange(40))).all()


def test_indices_of_a_tone_are_known():
    low, high = tone(500), tone(4000)
    table = dict(zip(INDICES, indices(np.stack([low, high, low + high]), RATE).T, strict=True))
    np.testing.assert_allclose(table["centroid_hz"], [500, 4000, 2250], rtol=0.01)
    np.testing.assert_allclose(table["share_above_2khz"], [0, 1, 0.5], atol=0.01)
    # a sine of size 0.5 has a variance of 0.125
    assert table["level_above_2khz_db"][1] == pytest.approx(10 * np.log10(0.125), abs=0.2)
    assert (table["acoustic_complexity"] < 0.4).all()


def test_what_comes_and_goes_is_more_complex_and_silence_has_no_figures(rng):
    steady = rng.normal(size=RATE).astype("f4") * 0.1
    gate = np.repeat(np.arange(20) % 2, RATE // 20)
    table = indices(np.stack([steady, steady * gate, 0 * steady]), RATE)
    complexity = table[:, INDICES.index("acoustic_complexity")]
    assert complexity[1] != complexity[0]
    assert np.isnan(table[2]).all()


def test_a_shifted_and_louder_copy_is_found(rng):
    mel = Mel()
    sounds = (0.1 * rng.normal(size=(3, 4800))).astype("f4")
    sounds[1] += tone(700, 0.3)
    seen = spectra(sounds, mel)
    np.testing.assert_allclose(seen.mean((1, 2)), 0, atol=1e-3)
    moved = np.roll(seen, 7, axis=2)
    found = shifted_distances(moved, seen)
    np.testing.assert_allclose(np.diag(found), 0, atol=0.05)
    assert (found[~np.eye(3, dtype=bool)] > 1).all()
    plain = np.sqrt(np.square(moved[0] - seen[0]).mean())
    assert plain > 1  # without a shift it would not be
    best = min(
        np.sqrt(np.square(np.roll(seen[0], by, axis=1) - seen[1]).mean())
        for by in range(seen.shape[2])
    )
    assert found[0, 1] == pytest.approx(best, rel=1e-3)
    np.testing.assert_allclose(spectra(3 * sounds, mel), seen, atol=0.05)


def test_ranks_of_answers_share_ties():
    scores = np.array([[0.9, 0.1, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]])
    np.testing.assert_allclose(ranked(scores), [[1, 4, 2.5, 2.5], [2.5, 2.5, 2.5, 2.5]])


def test_what_is_found_stands_above_rows_dealt_anew():
    rank = np.full((40, 40), 30.0)
    np.fill_diagonal(rank, 1.0)
    way = Way.tenth(rank)
    assert way.hits().all()
    assert way.within == 4
    assert way.chance == pytest.approx(0.1)
    deals = way.dealt(np.zeros(40, int), 0)
    assert deals.mean() == pytest.approx(1 / 40, abs=0.01)  # one row stays where it was
    found = Findings()
    found.metrics.add("from_caption/recall", 1.0, 0.98, 1.0)
    found.beside("recall", "from_caption", deals)
    told = found.metrics.values["from_caption/recall_above_shuffled"]
    error = np.hypot(0.02 / 3.92, deals.std())
    assert told == pytest.approx((1 - deals.mean()) / error)
    found.metrics.add("from_caption/still", 1.0)
    found.beside("still", "from_caption", np.ones(5))
    assert found.metrics.values["from_caption/still_above_shuffled"] is None


def test_scores_are_named_after_who_made_the_sounds():
    found = Findings()
    for made in ("from_caption", "from_caption_copy", "vocoded"):
        found.add("accuracy", made, 0.5)
    assert set(found.metrics.values) == {"from_caption/accuracy"}
    assert set(found.controls.values) == {"from_caption/accuracy_copy", "accuracy_vocoded"}


def test_deals_depend_on_the_seed_alone():
    def score(order):
        return float(order[0])

    assert np.array_equal(dealt(9, score, 1), dealt(9, score, 1))
    assert not np.array_equal(dealt(9, score, 1), dealt(9, score, 2))
