"""The image tower: positions by hand, and names that published weights fit."""

import math

import pytest
import torch

from generation.encoders.image import ScaleVit, scale_positions
from generation.errors import InvalidSpecError


def test_positions_by_hand():
    found = scale_positions(3, 8, torch.tensor([1.0, 2.0]))
    assert found.shape == (2, 9, 8)
    # frequencies 1 and 1/100; patch 5 lies in row 1 and column 2
    column = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    row = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]
    torch.testing.assert_close(found[0, 5], torch.tensor(column + row))
    # twice as coarse: the same patch lies twice as far
    torch.testing.assert_close(found[1, 1], found[0, 2])
    torch.testing.assert_close(found[0, 0], found[1, 0])  # the corner is where it is


def test_positions_need_four_features_for_each_frequency():
    with pytest.raises(InvalidSpecError, match="multiple of 4"):
        scale_positions(2, 6, torch.ones(1))


def test_a_base_tower_has_the_parameters_of_a_published_one():
    with torch.device("meta"):
        names = {name: tuple(p.shape) for name, p in ScaleVit().named_parameters()}
    # timm's vit_base_patch16_224 without its classes, its class token and its 197 positions
    published = 85_798_656 - 768 - 197 * 768
    assert sum(math.prod(shape) for shape in names.values()) == published
    assert names["patch_embed.proj.weight"] == (768, 3, 16, 16)
    assert names["blocks.11.attn.qkv.weight"] == (2304, 768)
    assert names["blocks.0.mlp.fc2.bias"] == (768,)
    assert names["norm.weight"] == (768,)
    assert len(names) == 2 + 12 * 12 + 2


def test_a_pixel_on_the_ground_changes_the_tokens():
    torch.manual_seed(0)
    tower = ScaleVit(image_px=32, patch=8, dim=16, depth=2, heads=2, reference_gsd_m=100.0)
    image = torch.randn(2, 3, 32, 32)
    tokens = tower(image, torch.tensor([100.0, 500.0]))
    assert tokens.shape == (2, 16, 16)
    again = tower(image, torch.tensor([100.0, 100.0]))
    torch.testing.assert_close(again[0], tokens[0])
    assert (again[1] - tokens[1]).abs().max() > 1e-3


def test_another_size_is_refused():
    tower = ScaleVit(image_px=32, patch=8, dim=16, depth=1, heads=2)
    with pytest.raises(InvalidSpecError, match="images of 24x16 px for a tower of 32x32"):
        tower(torch.zeros(1, 3, 16, 24), torch.ones(1))
    with pytest.raises(InvalidSpecError, match="no patches"):
        ScaleVit(image_px=30, patch=8)
