"""Guidance: how many evaluations, with which weights, and what they add up to."""

from itertools import product

import pytest
import torch

from generation.diffusion.guidance import ORDER, GuidanceScales, guided

ALL = frozenset({"layout", "location", "text", "sound"})
SUBSETS = [
    frozenset(n for n, keep in zip(ORDER, has, strict=True) if keep)
    for has in product([0, 1], repeat=len(ORDER))
    if sum(has) < 5
]


def velocity(subset):
    """A made-up network: each subset of conditions has its own velocity."""
    seed = sum(2**i for i, name in enumerate(ORDER) if name in subset)
    return torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(seed))


def velocities(subsets):
    return [velocity(subset) for subset in subsets]


def test_scales_of_one_cost_one_evaluation_and_change_nothing():
    assert GuidanceScales().terms(ALL, 0.5) == [(ALL, 1.0)]
    assert torch.equal(guided(velocities, GuidanceScales().terms(ALL, 0.5)), velocity(ALL))


def test_equal_scales_cost_two_evaluations_and_are_the_usual_guidance():
    terms = GuidanceScales(3.0, 3.0, 3.0, 3.0).terms(ALL, 0.5)
    assert [subset for subset, _ in terms] == [frozenset(), ALL]
    usual = velocity(frozenset()) + 3 * (velocity(ALL) - velocity(frozenset()))
    torch.testing.assert_close(guided(velocities, terms), usual)


def test_different_scales_stretch_each_link_of_the_chain():
    terms = GuidanceScales(layout=1.5, location=3.0, text=5.0, sound=0.5).terms(ALL, 0.5)
    assert len(terms) == 5
    none, layout = velocity(frozenset()), velocity(frozenset({"layout"}))
    place = velocity(frozenset({"layout", "location"}))
    text = velocity(ALL - {"sound"})
    chain = none + 1.5 * (layout - none) + 3 * (place - layout) + 5 * (text - place)
    chain = chain + 0.5 * (velocity(ALL) - text)
    torch.testing.assert_close(guided(velocities, terms), chain)


def test_a_scale_of_zero_leaves_its_condition_out():
    terms = GuidanceScales(sound=0.0).terms(ALL, 0.5)
    assert terms == [(ALL - {"sound"}, 1.0)]
    assert GuidanceScales(0.0, 0.0, 0.0, 0.0).terms(ALL, 0.5) == [(frozenset(), 1.0)]
    middle = GuidanceScales(layout=2.0, location=0.0, text=3.0, sound=0.5)
    assert all("location" not in subset for subset, _ in middle.terms(ALL, 0.5))


@pytest.mark.parametrize("given", SUBSETS)
@pytest.mark.parametrize(
    "scales", [(1, 1, 1), (2, 2, 2, 2), (0, 2, 7.5), (4, 1, 0, 0), (1.5, 3, 20, 7)]
)
def test_weights_sum_to_one_and_use_only_what_is_given(given, scales):
    terms = GuidanceScales(*map(float, scales)).terms(given, 0.5)
    assert sum(weight for _, weight in terms) == pytest.approx(1)
    assert all(weight for _, weight in terms)
    assert all(subset <= given for subset, _ in terms)
    assert len({subset for subset, _ in terms}) == len(terms)


def test_the_scale_of_what_is_absent_does_not_matter():
    given = frozenset({"layout", "text"})
    few, many = (GuidanceScales(2.0, absent, 4.0).terms(given, 0.5) for absent in (1.0, 9.0))
    assert few == many


def test_outside_its_interval_guidance_is_off():
    scales = GuidanceScales(3.0, 3.0, 3.0, 3.0, interval=(0.2, 0.8))
    assert len(scales.terms(ALL, 0.5)) == 2
    for share in (0.1, 0.9):
        assert scales.terms(ALL, share) == [(ALL, 1.0)]
