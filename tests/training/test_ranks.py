"""Ranks and recalls by hand, against a slow count, and at chance where they must be."""

import math

import numpy as np
import pytest
import torch

from generation.encoders.heads import Embedding, likeness, unit
from generation.errors import ConfigError
from training.ranks import both_ranks, chance, ranks, recall, summary, within


def points(count, dim=8, seed=0):
    torch.manual_seed(seed)
    return Embedding(unit(torch.randn(count, dim)))


def test_ranks_by_hand():
    east, north, between = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    queries = Embedding(torch.stack([east, east, north]))
    gallery = Embedding(torch.stack([east, between, north]))
    assert ranks(queries, gallery).tolist() == [1, 2, 1]
    assert ranks(gallery, queries).tolist() == [1.5, 2.5, 1]  # two equal answers share their ranks


def test_ranks_agree_with_a_slow_count():
    queries, gallery = points(700), points(700, seed=1)  # more than a block
    scores = (queries.vector @ gallery.vector.T).numpy()
    slow = [1 + int((row > row[i]).sum()) for i, row in enumerate(scores)]
    np.testing.assert_array_equal(ranks(queries, gallery), slow)


def test_gaussians_are_ranked_by_their_distance():
    means = torch.zeros(3, 2)
    gallery = Embedding(means, torch.tensor([0.0, 1.0, 2.0])[:, None].repeat(1, 2))
    assert ranks(gallery, gallery).tolist() == [1, 2, 3]  # the narrowest is nearest to all


@pytest.mark.parametrize("spread", [False, True], ids=["points", "gaussians"])
@pytest.mark.parametrize(("count", "dim"), [(2100, 7), (1025, 64), (65, 600)])
def test_ranks_agree_with_their_definition_where_many_tie(count, dim, spread):
    """Of forty different answers each is given many times, also in different tiles."""
    torch.manual_seed(count)
    kinds = [
        Embedding(unit(torch.randn(40, dim)), torch.randn(40, dim) if spread else None)
        for _ in range(2)
    ]
    asked, given = torch.randint(0, 40, (2, count))
    exact = [
        Embedding(each.vector.double(), each.log_variance.double() if spread else None)
        for each in kinds
    ]
    scores = likeness(*exact)[asked][:, given]
    there, back = both_ranks(kinds[0][asked], kinds[1][given])
    np.testing.assert_array_equal(there, by_definition(scores))
    np.testing.assert_array_equal(back, by_definition(scores.T))
    np.testing.assert_array_equal(there, ranks(kinds[0][asked], kinds[1][given]))


def by_definition(scores):
    own = scores.diagonal()[:, None]
    return (scores > own).sum(1) + ((scores == own).sum(1) + 1) / 2


def test_an_encoder_that_says_the_same_of_all_stands_in_the_middle():
    same = Embedding(torch.ones(9, 4))
    assert ranks(same, same).tolist() == [5.0] * 9
    assert recall(ranks(same, same), 1.0).sum() == 0


def test_what_is_found_first_is_found_and_as_published_it_is_not():
    first = np.ones(20)
    assert recall(first, 1.0).mean() == 1
    assert recall(first, 1.0, "mvrl").mean() == 0
    assert recall(np.array([10.0]), 10.0).item() == 1
    assert recall(np.array([10.0]), 10.0, "mvrl").item() == 0
    assert within(25)["recall_at_10_percent"] == 2
    assert within(25, "mvrl")["recall_at_10_percent"] == 2.5
    assert within(4)["recall_at_10_percent"] == 1


def test_shuffled_pairs_are_at_chance():
    vectors = points(2000)
    cells = np.arange(2000) // 10
    shuffled = Embedding(vectors.vector[torch.randperm(2000)])
    guess = chance(2000)
    assert guess == {
        "recall_at_1": 1 / 2000,
        "recall_at_5": 5 / 2000,
        "recall_at_10": 10 / 2000,
        "recall_at_10_percent": 0.1,
        "median_rank": 1000.5,
    }
    for name, (point, low, high) in summary(ranks(vectors, shuffled), cells).items():
        assert low <= point <= high
        if name in ("recall_at_10_percent", "median_rank"):  # of the others there are too few
            assert low <= guess[name] * 1.02
            assert guess[name] <= high * 1.02
    for name, (point, _, _) in summary(ranks(vectors, vectors), cells).items():
        assert point == 1, name


def test_the_interval_of_a_median_widens_with_the_cells():
    found = np.repeat(np.random.default_rng(0).integers(1, 400, 40), 10).astype(float)
    widths = []
    for cells in (np.arange(400), np.arange(400) // 10):
        point, low, high = summary(found, cells)["median_rank"]
        assert point == np.median(found)
        assert low <= point <= high
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_what_has_no_ranks_is_refused():
    with pytest.raises(ConfigError, match="1 queries and a gallery of 1"):
        ranks(points(1), points(1))
    with pytest.raises(ConfigError, match="3 queries and a gallery of 4"):
        ranks(points(3), points(4))
    with pytest.raises(ConfigError, match="no numbers"):
        ranks(Embedding(torch.full((2, 2), math.nan)), points(2, 2))
