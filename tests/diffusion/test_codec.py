"""Patches as latents and back."""

import numpy as np
import pytest
import torch
from tiny import smooth_images

from generation.diffusion.codec import PatchCodec, to_bytes, to_signal


@pytest.fixture(scope="module")
def images():
    return smooth_images(48, 64)


def test_bytes_and_signal_are_inverse():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    signal = to_signal(levels)
    assert signal.shape == (1, 3, 16, 16)
    assert (signal.min(), signal.max()) == (-1, 1)
    np.testing.assert_array_equal(to_bytes(signal), levels)


def test_what_is_too_bright_is_cut_and_does_not_wrap():
    assert to_bytes(torch.full((1, 3, 1, 1), 1.5)).max() == 255
    assert to_bytes(torch.full((1, 3, 1, 1), -1.5)).max() == 0


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_with_all_components_nothing_is_lost(images, whitening, gamma):
    codec = PatchCodec.fit(images, patch=4, latent_channels=48, whitening=whitening, gamma=gamma)
    back = to_bytes(codec.decode(codec.encode(to_signal(images[:4]))))
    assert np.abs(back.astype(int) - images[:4]).max() <= 1


def test_few_components_hold_most_of_an_image(images):
    codec = PatchCodec.fit(images, patch=8, latent_channels=8)
    back = codec.decode(codec.encode(to_signal(images[:8])))
    lost = (back - to_signal(images[:8])).square().mean()
    assert lost < 0.03 * to_signal(images[:8]).var()


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_latents_have_a_root_mean_square_of_one(images, whitening):
    codec = PatchCodec.fit(images, patch=8, latent_channels=16, whitening=whitening)
    latents = codec.encode(to_signal(images))
    assert latents.shape == (48, 16, 8, 8)
    assert latents.square().mean().sqrt() == pytest.approx(1, abs=1e-3)
    deviation = latents.std((0, 2, 3))
    assert (deviation[:-1] >= deviation[1:] - 1e-3).all()  # the largest component comes first
    if whitening == 1:
        assert deviation.tolist() == pytest.approx([1.0] * 16, abs=0.01)


def test_the_basis_is_orthonormal_and_always_the_same(images):
    first, second = (PatchCodec.fit(images, latent_channels=16) for _ in range(2))
    torch.testing.assert_close(first.basis @ first.basis.T, torch.eye(16), atol=1e-5, rtol=0)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_patch_knows_nothing_of_the_next(images):
    codec = PatchCodec.fit(images, patch=8, latent_channels=16)
    changed = images[:1].copy()
    changed[:, :8, :8] = 0
    apart = (codec.encode(to_signal(changed)) - codec.encode(to_signal(images[:1]))).abs().sum(1)[0]
    assert apart[0, 0] > 0
    assert apart.flatten()[1:].max() == 0


def test_images_without_any_variation_can_be_fitted():
    grey = np.full((2, 16, 16, 3), 90, np.uint8)
    codec = PatchCodec.fit(grey, patch=8, latent_channels=4)
    latents = codec.encode(to_signal(grey))
    assert latents.isfinite().all()
    np.testing.assert_array_equal(to_bytes(codec.decode(torch.zeros_like(latents))), grey)


def test_a_saved_codec_decodes_the_same(images, tmp_path):
    codec = PatchCodec.fit(images, patch=8, latent_channels=16, gamma=0.5)
    codec.save_pretrained(tmp_path)
    loaded, latents = PatchCodec.from_pretrained(tmp_path), torch.randn(2, 16, 3, 5)
    torch.testing.assert_close(loaded.decode(latents), codec.decode(latents))
