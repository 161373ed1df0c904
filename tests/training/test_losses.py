"""Adversarial losses, against numbers worked out by hand."""

import pytest
import torch

from training.losses import discriminator_hinge, generator_hinge


def maps(*values):
    sides = (4, 2)
    return [torch.full((1, 1, n, n), value) for n, value in zip(sides, values, strict=True)]


def test_the_discriminator_is_content_beyond_its_margin():
    assert discriminator_hinge(maps(1.0, 5.0), maps(-1.0, -9.0)).item() == 0
    undecided = discriminator_hinge(maps(0.0, 0.0), maps(0.0, 0.0))
    assert undecided.item() == pytest.approx(2.0)
    assert discriminator_hinge(maps(0.5, 1.0), maps(-1.0, 2.0)).item() == pytest.approx(1.75)


def test_the_generator_wants_high_scores_without_end():
    assert generator_hinge(maps(3.0, -1.0)).item() == pytest.approx(-1.0)
    assert generator_hinge(maps(30.0, -1.0)) < generator_hinge(maps(3.0, -1.0))


def test_each_scale_has_the_same_say():
    """The first has four times as many patches as the second."""
    one, other = maps(8.0, 0.0), maps(0.0, 8.0)
    assert generator_hinge(one) == generator_hinge(other)
    assert discriminator_hinge(one, other) == discriminator_hinge(other, one)
