"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from generation.encoders.heads import Embedding
from generation.errors import ConfigError
from training.losses import (
    clamped_scale,
    codebook_loss,
    discriminator_hinge,
    energy_distance,
    gaussian_loss,
    generator_hinge,
    info_nce,
    labelled,
    one_way_info_nce,
    pooled_loss,
    pseudo_positives,
    softened_loss,
)

ONE = torch.tensor(1.0, dtype=torch.float64)
EAST, NORTH = torch.eye(2, dtype=torch.float64)


@pytest.fixture(autouse=True)
def in_double_precision():
    """What was worked out by hand is compared to a millionth."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def millionth(value):
    return pytest.approx(value, rel=0, abs=1e-6)


def softplus(x):
    return math.log1p(math.exp(x))


def maps(*values):
    sides = (4, 2)
    return [torch.full((1, 1, n, n), value) for n, value in zip(sides, values, strict=True)]


def test_the_discriminator_is_content_beyond_its_margin():
    assert discriminator_hinge(maps(1.0, 5.0), maps(-1.0, -9.0)).item() == 0
    undecided = discriminator_hinge(maps(0.0, 0.0), maps(0.0, 0.0))
    assert undecided.item() == millionth(2.0)
    assert discriminator_hinge(maps(0.5, 1.0), maps(-1.0, 2.0)).item() == millionth(1.75)


def test_the_generator_wants_high_scores_without_end():
    assert generator_hinge(maps(3.0, -1.0)).item() == millionth(-1.0)
    assert generator_hinge(maps(30.0, -1.0)) < generator_hinge(maps(3.0, -1.0))


def test_each_scale_has_the_same_say():
    """The first has four times as many patches as the second."""
    one, other = maps(8.0, 0.0), maps(0.0, 8.0)
    assert generator_hinge(one) == generator_hinge(other)
    assert discriminator_hinge(one, other) == discriminator_hinge(other, one)


def test_info_nce_by_hand():
    a, b = torch.stack([EAST, NORTH]), torch.stack([3 * EAST, 5 * NORTH])
    # logits [[2, 0], [0, 2]]: each row and column costs log(1 + e^-2)
    assert info_nce(a, b, 2 * ONE).item() == millionth(softplus(-2))
    assert info_nce(a, b.flip(0), 2 * ONE).item() == millionth(softplus(2))


def test_both_directions_count():
    a, b = torch.stack([EAST, EAST]), torch.stack([EAST, NORTH])
    # logits [[1, 0], [1, 0]]: rows cost log(1 + e^-1) and log(1 + e), columns log 2 twice
    rows = (softplus(-1) + softplus(1)) / 2
    expected = (rows + math.log(2)) / 2
    assert info_nce(a, b, ONE).item() == millionth(expected)
    assert info_nce(b, a, ONE).item() == millionth(expected)


def test_one_way_info_nce_by_hand_and_with_a_queue():
    given, targets = torch.stack([EAST, NORTH]), torch.stack([EAST, NORTH, EAST])
    first = math.log(2 * math.e + 1) - 1  # the queue holds a twin of its partner
    second = math.log(math.e + 2) - 1
    loss = one_way_info_nce(given.requires_grad_(), targets.requires_grad_(), ONE)
    assert loss.item() == millionth((first + second) / 2)
    slopes = torch.autograd.grad(loss, [given, targets], allow_unused=True)
    assert slopes[0] is not None
    assert slopes[1] is None  # the hub is not moved


def test_a_scale_is_held_between_one_and_a_hundred():
    for log_scale, scale in ((-3.0, 1.0), (math.log(7), 7.0), (9.0, 100.0)):
        assert clamped_scale(torch.tensor(log_scale)).item() == millionth(scale)
    assert clamped_scale(torch.tensor(0.0), least=1.0).item() == millionth(math.e)


def test_labels_may_sum_to_more_than_one():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    ones = torch.ones(2, 2)
    # each row costs softplus(-1) for its partner and softplus(1) for the other
    expected = softplus(-1) + softplus(1)
    assert labelled(logits, ones).item() == millionth(expected)


def test_what_fits_as_well_as_the_partner_is_a_pseudo_positive():
    scores = torch.tensor([[1.0, 2.0, 0.0], [3.0, 3.0, 1.0], [0.0, 0.0, 5.0]])
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert pseudo_positives(scores).int().tolist() == expected


def test_softened_loss_by_hand():
    a, b = torch.stack([EAST, EAST]), torch.stack([EAST, NORTH])
    # logits [[1, 0], [1, 0]]; pseudo-positives: the second row takes the first column as well
    plain = info_nce(a, b, ONE).item()
    rows = (softplus(-1) + softplus(1) + softplus(-1)) / 2
    columns = (2 * math.log(2) + math.log(2)) / 2
    expected = plain + 0.1 * (rows + columns) / 2
    assert softened_loss(a, b, ONE).item() == millionth(expected)


def gaussians(vectors, variance):
    return Embedding(vectors, torch.full_like(vectors, math.log(variance)))


def test_the_loss_of_gaussians_by_hand():
    a, b = (gaussians(torch.stack([EAST, NORTH]), 0.5) for _ in range(2))
    # distances: 2 axes x (0.5 + 0.5) = 2 for partners, 2 + 2 for others; logits 1 and -1
    pairs = (2 * softplus(-1) + 2 * softplus(-1)) / 4
    divergence = 0.5 * (0.5 + 0.5 - 1 - math.log(0.5))  # mean over samples and axes of mean^2: 0.5
    expected = 2 * pairs + 0.1 * 2 * pairs + 1e-4 * 2 * divergence
    loss = gaussian_loss(a, b, ONE, 3 * ONE)
    assert loss.item() == millionth(expected)


def test_a_pseudo_positive_pair_of_gaussians_is_pulled_too():
    a = gaussians(torch.stack([EAST, NORTH]), 0.5)
    b = gaussians(torch.stack([EAST, EAST]), 0.5)
    # distances [[2, 2], [4, 4]], logits [[1, 1], [-1, -1]]; by row each has two that fit, by
    # column the first of both
    right = (softplus(-1) + softplus(1) + softplus(1) + softplus(-1)) / 4
    by_row = (2 * softplus(-1) + 2 * softplus(1)) / 4
    by_column = (3 * softplus(-1) + softplus(1)) / 4
    loss = gaussian_loss(a, b, ONE, 3 * ONE, bottleneck=0.0)
    expected = 2 * right + 0.1 * (by_row + by_column)
    assert loss.item() == millionth(expected)


def test_a_divergence_that_has_blown_up_is_let_go():
    a = gaussians(torch.stack([EAST, NORTH]), 1e6)
    kept = gaussian_loss(a, a, 0 * ONE, ONE, bottleneck=1.0)
    none = gaussian_loss(a, a, 0 * ONE, ONE, bottleneck=0.0)
    assert kept.item() == millionth(none.item())


def test_three_modalities_are_bound_pair_by_pair():
    torch.manual_seed(0)
    parts = torch.randn(3, 4, 5).unbind(0)
    scales = [torch.tensor(s) for s in (1.0, 2.0, 3.0)]
    terms = [
        info_nce(parts[0], parts[1], scales[0]),
        info_nce(parts[0], parts[2], scales[1]),
        info_nce(parts[1], parts[2], scales[2]),
    ]
    assert pooled_loss(parts, scales).item() == millionth(sum(terms).item() / 3)


def test_codebook_terms_add_up():
    torch.manual_seed(0)
    image, audio, caption, described = torch.randn(4, 4, 5).unbind(0)
    scales = [torch.tensor(s) for s in (1.0, 2.0, 3.0, 4.0, 5.0)]
    three = (
        softened_loss(image, audio, scales[0])
        + softened_loss(image, caption, scales[1])
        + softened_loss(audio, caption, scales[2])
    ) / 3
    both = softened_loss(image, audio + caption, scales[3])
    own = softened_loss(image, described, scales[4])
    whole = codebook_loss(image, audio, caption, described, scales, described=0.5)
    assert whole.item() == millionth((three + both + 0.5 * own).item())
    without = codebook_loss(image, audio, caption, None, scales)
    assert without.item() == millionth((three + both).item())


def test_a_batch_of_one_is_refused():
    one = EAST[None]
    for loss in (
        lambda: info_nce(one, one, ONE),
        lambda: one_way_info_nce(one, one, ONE),
        lambda: softened_loss(one, one, ONE),
        lambda: gaussian_loss(gaussians(one, 1), gaussians(one, 1), ONE, ONE),
    ):
        with pytest.raises(ConfigError, match=r"a batch of 1 has nothing .*batch_size 2"):
            loss()


def test_the_energy_distance_prefers_noise_to_a_hum():
    def white(seed):
        return torch.randn(2, 8192, generator=torch.Generator().manual_seed(seed))

    def loss(real, one, other):
        attracted, repelled = energy_distance(real, one, other)
        return float(attracted - repelled)

    noise = loss(white(0), white(1), white(2))
    hum = white(3)
    assert noise < loss(white(0), hum, hum)  # one sound for all
    assert noise < loss(white(0), 0.5 * white(1), 0.5 * white(2))  # too soft
    assert loss(white(0), white(0), white(0)) == pytest.approx(0, abs=1e-3)


def test_the_energy_distance_does_not_depend_on_loudness():
    real, one, other = torch.randn(3, 2, 4096, generator=torch.Generator().manual_seed(0))
    for a, b in zip(
        energy_distance(real, one, other),
        energy_distance(0.1 * real, 0.1 * one, 0.1 * other),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


ALIKE = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
THREE = torch.stack([EAST, EAST, NORTH])


def test_what_is_alike_is_no_negative():
    # rows and columns 0 and 1 have one other to be told from, the last has two: all logits are 1
    # for what has the same direction and 0 otherwise
    pair, lone = softplus(-1), math.log(math.e + 2) - 1
    assert info_nce(THREE, THREE, ONE, ALIKE).item() == millionth((2 * pair + lone) / 3)
    told = [(THREE, THREE), (THREE, THREE), (THREE, THREE)]
    terms = [info_nce(a, b, ONE, ALIKE) for a, b in told]
    assert pooled_loss([THREE] * 3, [ONE] * 3, ALIKE).item() == millionth(sum(terms).item() / 3)
    queue = torch.cat([THREE, EAST[None]])
    first = math.log(2 * math.e + 1) - 1  # the queue is always asked about
    last = math.log(math.e + 3) - 1
    loss = one_way_info_nce(THREE, queue, ONE, ALIKE)
    assert loss.item() == millionth((2 * first + last) / 3)


def test_where_all_are_alike_nothing_is_asked():
    everything = torch.ones(3, 3).bool()
    assert info_nce(THREE, THREE, ONE, everything).item() == millionth(0)
    assert softened_loss(THREE, THREE, ONE, alike=everything).item() == millionth(0)
    a = gaussians(THREE, 0.5)
    # partners alone: logits 3 - 2 = 1
    loss = gaussian_loss(a, a, ONE, 3 * ONE, bottleneck=0.0, alike=everything)
    assert loss.item() == millionth(2.2 * softplus(-1))


def test_being_like_oneself_changes_nothing():
    own = torch.eye(3).bool()
    a, b = gaussians(THREE, 0.5), gaussians(THREE.flip(0), 0.3)
    for with_own, plain in (
        (info_nce(THREE, THREE.flip(0), ONE, own), info_nce(THREE, THREE.flip(0), ONE)),
        (gaussian_loss(a, b, ONE, ONE, alike=own), gaussian_loss(a, b, ONE, ONE)),
        (
            codebook_loss(THREE, THREE.flip(0), THREE, None, [ONE] * 5, alike=own),
            codebook_loss(THREE, THREE.flip(0), THREE, None, [ONE] * 5),
        ),
    ):
        assert with_own.item() == millionth(plain.item())
