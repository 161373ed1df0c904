"""The frozen network behind the perceptual loss, and the judge of its features."""

import pytest
import torch
from torch.nn import functional as F

from training.perception import STAGES, FeatureDiscriminator, StageFeatures, unlikeness


@pytest.fixture(scope="module")
def seen():
    return StageFeatures()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(0)
    coarse = torch.rand(2, 3, 16, 16) * 2 - 1
    return F.interpolate(coarse, 64, mode="bicubic").clamp(-1, 1)


def test_each_stage_has_its_size_and_width(seen, images):
    maps = seen(images)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (width, 64 // int(cell), 64 // int(cell)) for cell, width in STAGES.items()
    ]


def test_it_is_frozen_and_stays_so(seen, images):
    before = [m.clone() for m in seen(images)]
    seen.train()
    assert not any(module.training for module in seen.modules())
    assert not any(p.requires_grad for p in seen.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, seen(images), strict=True))


def test_unlikeness_is_nothing_for_equals_and_grows_with_blur(seen, images):
    def blurred(times):
        return F.interpolate(F.avg_pool2d(images, times), 64, mode="bilinear")

    with torch.no_grad():
        same, soft, softer = (
            unlikeness(seen(other), seen(images)) for other in (images, blurred(2), blurred(8))
        )
    assert same.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (soft > 0).all()
    assert (softer > soft).all()


def test_what_it_sees_reaches_the_pixels(seen, images):
    pixels = (images + 0.1 * torch.randn_like(images)).requires_grad_(True)
    unlikeness(seen(pixels), seen(images)).sum().backward()
    assert pixels.grad is not None
    assert bool(pixels.grad.abs().sum((1, 2, 3)).gt(0).all())


def test_the_judge_scores_every_cell_of_every_stage(seen, images):
    scores = FeatureDiscriminator(8)(seen(images))
    assert [tuple(s.shape) for s in scores] == [(2, 1, 64 // int(c), 64 // int(c)) for c in STAGES]
