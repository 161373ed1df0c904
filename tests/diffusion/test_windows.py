"""Windows around a circle."""

import pytest
import torch

from generation.diffusion.windows import circular_windows, joined


@pytest.mark.parametrize("columns", [1, 7, 16, 17, 40, 131])
@pytest.mark.parametrize("shift", [0, 5, 300])
def test_every_column_is_seen_and_counts(columns, shift):
    index, weight = circular_windows(columns, 16, shift, overlap=0.25)
    total = torch.zeros(columns).index_add(0, index.flatten(), weight.flatten())
    assert total.min() > 0
    assert index.min() >= 0
    assert index.max() < columns
    assert ((index[:, 1:] - index[:, :-1]) % columns == 1 % columns).all()


def test_neighbours_share_a_quarter():
    index, _ = circular_windows(48, 16, 0, overlap=0.25)
    assert index[:, 0].tolist() == [0, 12, 24, 36]


def test_a_window_counts_less_towards_its_ends():
    _, weight = circular_windows(64, 16, 0, overlap=0.25)
    assert weight[0].tolist() == [
        0.125,
        0.375,
        0.625,
        0.875,
        *[1.0] * 8,
        0.875,
        0.625,
        0.375,
        0.125,
    ]


def test_the_shift_turns_the_circle():
    index, weight = circular_windows(48, 16, 3, overlap=0.25)
    still, same = circular_windows(48, 16, 0, overlap=0.25)
    assert torch.equal(index, (still + 3) % 48)
    assert torch.equal(weight, same)


@pytest.mark.parametrize("columns", [3, 16, 40])
def test_windows_that_agree_give_back_what_they_saw(columns):
    x = torch.randn(2, 3, columns)
    index, weight = circular_windows(columns, 16, 7, overlap=0.25)
    seen = x[..., index].movedim(-2, 0)
    torch.testing.assert_close(joined(seen, index, weight, columns), x)


def test_windows_that_disagree_meet_by_their_weights():
    index, weight = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    answers = torch.tensor([[10.0, 20.0], [40.0, 30.0]])
    # column 0: (1*10 + 1*30) / 2; column 1: (3*20 + 1*40) / 4
    assert joined(answers, index, weight, 2).tolist() == [20.0, 25.0]
