"""The U-Net and its control branch."""

from dataclasses import replace

import pytest
import torch

from generation.conditioning import Condition


@pytest.fixture(scope="module")
def denoiser(tiny_pipeline):
    return tiny_pipeline.denoiser


def condition(count=2, rows=8, cols=8):
    generator = torch.Generator().manual_seed(0)
    return Condition(
        tokens=torch.randn(count, 5, 16, generator=generator),
        mask=torch.arange(5).expand(count, 5) < 4,
        vector=torch.randn(count, 16, generator=generator),
        hint=torch.rand(count, 192, rows, cols, generator=generator),
    )


def noisy(count=2, rows=8, cols=8):
    return torch.randn(count, 8, rows, cols, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def predict(denoiser, told, t=500.0, x=None):
    x = noisy(len(told.tokens)) if x is None else x
    return denoiser(x, torch.full((len(x),), t), told)


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (9, 9), (12, 16)])
def test_the_velocity_has_the_shape_of_the_latents(denoiser, rows, cols):
    velocity = predict(denoiser, condition(2, rows, cols), x=noisy(2, rows, cols))
    assert velocity.shape == (2, 8, rows, cols)
    assert velocity.isfinite().all()


def test_every_part_of_a_condition_is_heard_from_the_start(denoiser):
    told = condition()
    expected = predict(denoiser, told)
    for part in ("tokens", "vector", "hint"):
        other = replace(told, **{part: getattr(told, part).flip(0)})
        assert (predict(denoiser, other) - expected).abs().max() > 1e-4, part
    assert (predict(denoiser, told, t=100.0) - expected).abs().max() > 1e-3


def test_the_mask_is_heard(denoiser):
    told = condition()
    other = predict(denoiser, replace(told, mask=torch.ones(2, 5).bool()))
    assert (other - predict(denoiser, told)).abs().max() > 1e-6


def test_samples_do_not_see_each_other(denoiser):
    told, x = condition(), noisy()
    both = predict(denoiser, told, x=x)
    one = Condition(told.tokens[1:], told.mask[1:], told.vector[1:], told.hint[1:])
    torch.testing.assert_close(both[1:], predict(denoiser, one, x=x[1:]), atol=1e-5, rtol=1e-4)


def test_every_weight_has_a_gradient(denoiser):
    denoiser.zero_grad()
    denoiser(noisy(), torch.tensor([100.0, 900.0]), condition()).square().mean().backward()
    silent = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    denoiser.zero_grad()
    assert silent == []
