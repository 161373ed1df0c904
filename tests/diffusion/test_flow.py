"""The path to noise, and the velocity along it."""

import pytest
import torch

from generation.diffusion.flow import noised, shares, velocity_of


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("share", [1.0, 0.8, 0.5, 0.1, 0.0])
def test_what_is_asked_of_a_network_has_unit_variance_and_is_not_told_by_its_input(share):
    x0, noise = normal(0, 4, 16, 32, 32), normal(1, 4, 16, 32, 32)
    s = torch.full((4,), share, dtype=torch.float64)
    x_t = noised(x0, noise, s)
    size = (share**2 + (1 - share) ** 2) ** 0.5
    wanted = (x_t * (2 * share - 1) / size**2 - (noise - x0)) * size
    torch.testing.assert_close(velocity_of(x_t, s, wanted), noise - x0)
    assert abs(float(wanted.std()) - 1) < 0.02
    assert abs(float((wanted * x_t).mean())) < 0.02


def test_from_noise_alone_the_network_says_what_it_expects():
    noise, said = normal(0, 2, 4, 3, 5), normal(1, 2, 4, 3, 5)
    torch.testing.assert_close(noise - velocity_of(noise, torch.ones(2), said), said)


def test_shares_are_drawn_around_the_middle_and_some_are_one():
    torch.manual_seed(0)
    drawn = shares(20_000, mean=0.0, deviation=1.0, pure=0.2, device=torch.device("cpu"))
    assert abs(float((drawn == 1).float().mean()) - 0.2) < 0.02
    assert abs(float(drawn[drawn < 1].median()) - 0.5) < 0.02
