"""Adversarial losses, against numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from training.discriminator import PatchDiscriminator
from training.losses import relativistic, slope_penalty


def maps(*values):
    return [
        torch.full((1, 1, side, side), value) for side, value in zip((4, 2), values, strict=True)
    ]


@pytest.mark.parametrize(("gap", "loss"), [(0.0, math.log(2)), (2.0, math.log(1 + math.exp(-2)))])
def test_a_patch_is_compared_with_the_same_patch_of_the_other_side(gap, loss):
    low, high = maps(1.0, -3.0), maps(1.0 + gap, -3.0 + gap)
    assert relativistic(high, low).item() == pytest.approx(loss, rel=1e-5)
    assert relativistic(low, high).item() == pytest.approx(loss + gap, rel=1e-5)


def test_each_scale_has_the_same_say():
    loser, winner = maps(0.0, 0.0), maps(0.0, 100.0)
    assert relativistic(winner, loser).item() == pytest.approx(math.log(2) / 2, rel=1e-5)


def test_the_slope_of_a_linear_judge_is_its_weight():
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    scores = [3.0 * images.sum(dim=(1, 2, 3), keepdim=True)]
    assert slope_penalty(scores, images).item() == pytest.approx(9.0 * 48, rel=1e-5)


def test_the_slope_can_be_learnt_from():
    torch.manual_seed(0)
    judge = PatchDiscriminator((8, 8, 8))
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    penalty = slope_penalty(judge(images, torch.zeros(1, 3, 32, 32)), images)
    penalty.backward()
    assert all(
        p.grad is not None for n, p in judge.named_parameters() if n.endswith("entry.weight")
    )


def test_the_judge_scores_three_scales_and_sees_the_layout():
    torch.manual_seed(0)
    judge = PatchDiscriminator((8, 8, 8))
    images, blank = torch.randn(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    scores = judge(images, blank)
    assert [tuple(s.shape) for s in scores] == [(2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4)]
    painted = judge(images, blank + 1)
    assert not torch.allclose(scores[0], painted[0])
    assert isinstance(judge, nn.Module)
