"""The denoiser of panoramas: it wraps, it listens to its guide, and it learns in every part."""

from dataclasses import fields, replace

import pytest
import torch
from tiny_panorama import make_panorama_pipeline

from generation.diffusion.panorama_denoiser import (
    FeatureDenormalization,
    MixedViewDenoiser,
    ViewControlNet,
)
from generation.diffusion.surroundings import Guide

ROWS, COLS, LATENTS = 4, 16, 8


@pytest.fixture(scope="module")
def denoiser():
    return make_panorama_pipeline().denoiser.eval().requires_grad_(False)


def make_guide(count=2, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    return Guide(
        tokens=normal(count, 6, 16),
        mask=torch.ones(count, 6, dtype=torch.bool),
        vector=normal(count, 16),
        draft=normal(count, 3, 8 * ROWS, 8 * COLS),
        correction=normal(count, LATENTS, ROWS, COLS),
        levels=[normal(count, 16, ROWS, COLS), normal(count, 16, ROWS // 2, COLS // 2)],
        view_weights=normal(count, 3, ROWS, COLS),
        satellite_weight=normal(count, ROWS, COLS),
        local=normal(count, 3, ROWS, COLS),
        overhead=normal(count, 8, 8),
    )


def noisy(count=2):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, LATENTS, ROWS, COLS, generator=draw), torch.full((count,), 400.0)


@pytest.mark.parametrize("columns", [2, 6, 10])
def test_a_turned_input_gives_a_turned_velocity(denoiser, columns):
    (x, t), guide = noisy(), make_guide()
    levels = [level.roll(columns // 2**n, 3) for n, level in enumerate(guide.levels)]
    straight = denoiser(x, t, guide)
    turned = denoiser(x.roll(columns, 3), t, replace(guide, levels=levels))
    torch.testing.assert_close(straight.roll(columns, 3), turned, atol=1e-5, rtol=0)
    assert (straight - turned).abs().max() > 1e-2


@pytest.mark.parametrize("part", ["tokens", "vector", "levels"])
def test_every_part_of_the_guide_is_heard(denoiser, part):
    (x, t), guide = noisy(), make_guide()
    other = replace(guide, **{part: getattr(make_guide(seed=5), part)})
    assert (denoiser(x, t, guide) - denoiser(x, t, other)).abs().max() > 1e-3


def test_masked_tokens_are_not_heard(denoiser):
    (x, t), guide = noisy(), make_guide()
    guide.mask[:, 2:] = False
    expected = denoiser(x, t, guide)
    guide.tokens[:, 2:] = 50.0
    torch.testing.assert_close(denoiser(x, t, guide), expected)


def test_a_sample_does_not_depend_on_its_neighbours(denoiser):
    (x, t), guide = noisy(), make_guide()
    parts = {f.name: getattr(guide, f.name)[1:] for f in fields(guide) if f.name != "levels"}
    alone = Guide(**parts, levels=[level[1:] for level in guide.levels])
    together = denoiser(x, t, guide)[1:]
    torch.testing.assert_close(denoiser(x[1:], t[1:], alone), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", [1.0, 0.8, 0.5, 0.1])
def test_clean_latents_are_what_the_input_tells_and_what_the_network_adds(denoiser, share):
    (x, _), guide = noisy(), make_guide()
    t = torch.full((2,), 1000 * share)
    added = MixedViewDenoiser.forward(denoiser, x, t, guide)
    clean = x - share * denoiser(x, t, guide)
    size = (share**2 + (1 - share) ** 2) ** 0.5  # the standard deviation of x_t
    expected = x * (1 - share) / size**2 + added * share / size
    torch.testing.assert_close(clean, expected, atol=1e-5, rtol=1e-5)


def test_from_noise_alone_an_untrained_network_expects_the_mean():
    denoiser = make_panorama_pipeline().denoiser.eval()
    for value in denoiser.unet.conv_out.parameters():
        torch.nn.init.zeros_(value)
    (x, _), guide = noisy(), make_guide()
    with torch.no_grad():
        assert (x - denoiser(x, torch.full((2,), 1000.0), guide)).abs().max() == 0


def test_a_branch_that_starts_at_zero_changes_nothing_yet():
    sizes = {
        "in_channels": LATENTS, "block_out_channels": (16, 16), "residual_channels": (16, 32),
        "attention_head_dim": (1, 1), "cross_attention_dim": 16, "norm_num_groups": 8,
        "vector_dim": 16, "level_dims": (16, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    }  # fmt: skip
    x, t = noisy()
    down, mid = ViewControlNet(**sizes, zero_start=True)(x, t, make_guide())
    assert all(not added.any() for added in (*down, mid))
    down, mid = ViewControlNet(**sizes)(x, t, make_guide())
    assert all(bool(added.any()) for added in (*down, mid))


def test_denormalisation_scales_and_shifts_what_was_normalised():
    layer = FeatureDenormalization(8, 4, groups=2)
    layer.to_scale_shift.weight.data.zero_()
    layer.to_scale_shift.bias.data = torch.cat([torch.full((8,), 2.0), torch.full((8,), -1.0)])
    out = layer(torch.randn(2, 8, 4, 16) * 5 + 3, torch.randn(2, 4, 4, 16)).detach()
    assert float(out.mean()) == pytest.approx(-1, abs=1e-4)
    assert float(out.std()) == pytest.approx(3, rel=0.01)


def test_every_weight_of_the_denoiser_learns():
    denoiser = make_panorama_pipeline().denoiser.train()
    x, t = noisy()
    denoiser(x, t, make_guide()).square().mean().backward()
    silent = {n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()}
    assert not silent
