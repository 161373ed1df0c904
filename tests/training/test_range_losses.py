"""Losses of ranges, by hand."""

import math

import pytest
import torch

from training.range_losses import (
    SEEN_WEIGHT,
    an_full,
    an_slds,
    an_ssdl,
    asymmetric,
    robust_asymmetric,
    surveyed,
)

WHICH = torch.tensor([0, 1])


def logit(p):
    return torch.logit(torch.tensor(p))


SEEN, AWAY = logit([[0.8, 0.3], [0.4, 0.6]]), logit([[0.1, 0.2], [0.3, 0.5]])


HALF = torch.tensor([0.5, 0.5], dtype=torch.float64)


def cost(p):
    return -math.log(p + 1e-5)


def entropy(p):
    return -(p * cost(p) + (1 - p) * cost(1 - p))


def test_assumed_absences_by_hand():
    seen = (SEEN_WEIGHT * (cost(0.8) + cost(0.6)) + cost(0.7) + cost(0.6)) / 4
    away = (cost(0.9) + cost(0.8) + cost(0.7) + cost(0.5)) / 4
    assert an_full(SEEN, WHICH, AWAY).item() == pytest.approx(seen + away, rel=1e-4)
    own = (cost(0.8) + cost(0.6)) / 2
    assert an_ssdl(SEEN, WHICH, AWAY).item() == pytest.approx(
        own + (cost(0.9) + cost(0.5)) / 2, rel=1e-4
    )
    # of two taxa there is one other
    assert an_slds(SEEN, WHICH, AWAY).item() == pytest.approx(
        own + (cost(0.7) + cost(0.6)) / 2, rel=1e-4
    )


def test_where_nobody_looked_entropy_may_be_asked_for():
    own = (cost(0.8) + cost(0.6)) / 2
    found = an_ssdl(SEEN, WHICH, AWAY, entropy=True).item()
    assert found == pytest.approx(own + (entropy(0.1) + entropy(0.5)) / 2, rel=1e-3)
    unsure, sure = logit([[0.8], [0.8]]), logit([[0.01], [0.99]])
    which = torch.tensor([0, 0])
    at_half = an_ssdl(unsure, which, logit([[0.5], [0.5]]), entropy=True)
    assert at_half < an_ssdl(unsure, which, sure, entropy=True)


def test_every_form_asks_for_entropy_by_hand():
    """In double precision: others than the one that was seen, and every taxon elsewhere."""
    seen, away = SEEN.double(), AWAY.double()
    own = SEEN_WEIGHT * (cost(0.8) + cost(0.6))
    full = (own + entropy(0.3) + entropy(0.4)) / 4
    full += (entropy(0.1) + entropy(0.2) + entropy(0.3) + entropy(0.5)) / 4
    found = an_full(seen, WHICH, away, entropy=True)
    assert found.item() == pytest.approx(full, rel=1e-6)
    other = (cost(0.8) + cost(0.6)) / 2 + (entropy(0.3) + entropy(0.4)) / 2
    assert an_slds(seen, WHICH, away, entropy=True).item() == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s: an_full(s, WHICH, AWAY.double(), entropy=True),
        lambda s: an_ssdl(s, WHICH, AWAY.double()),
        lambda s: asymmetric(s, torch.eye(2).double()),
        lambda s: robust_asymmetric(s, torch.eye(2).double()),
        lambda s: surveyed(s, s, torch.eye(2).double(), HALF, HALF),
    ],
)
def test_gradients_are_those_of_the_values(loss):
    scores = SEEN.double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (scores,), atol=1e-6)


def test_easy_absences_count_little():
    scores, present = logit([[0.9, 0.04, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    there = 0.1 * -math.log(0.9)
    away = 0.45**4 * -math.log(0.55)  # 0.04 lies below the margin
    assert asymmetric(scores, present).item() == pytest.approx((there + away) / 3, rel=1e-4)
    robust = (there + (1.5 - 0.5) * away) / 3
    assert robust_asymmetric(scores, present).item() == pytest.approx(robust, rel=1e-4)


def test_known_ranges_are_met_where_the_cost_is_least():
    """Half of a globe of two cells: the loss is least where the model says so."""
    present = torch.tensor([[1.0, 0.0]])
    weight, share = torch.tensor([0.5, 0.5]), torch.tensor([0.5])

    def loss(p_in, p_out):
        return surveyed(logit([[p_in]]), logit([[p_in, p_out]]), present, weight, share).item()

    assert loss(0.5, 0.5) == pytest.approx(2 * math.log(2), rel=1e-5)
    assert loss(0.99, 0.01) < loss(0.9, 0.1) < loss(0.5, 0.5)


def test_gradients_are_finite_far_out():
    for far in (60.0, -60.0):
        scores = torch.full((2, 2), far, requires_grad=True)
        total = (
            an_full(scores, WHICH, scores)
            + an_ssdl(scores, WHICH, scores, entropy=True)
            + asymmetric(scores, torch.eye(2))
            + robust_asymmetric(scores, torch.eye(2))
            + surveyed(scores, scores, torch.eye(2), torch.ones(2) / 2, torch.ones(2) / 2)
        )
        total.backward()
        assert scores.grad.isfinite().all()
