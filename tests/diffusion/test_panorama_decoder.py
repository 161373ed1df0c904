"""The decoder of panoramas."""

import pytest
import torch
from tiny import smooth_images

from generation.diffusion.codec import PatchCodec, to_signal
from generation.diffusion.panorama_decoder import PanoramaDecoder


@pytest.fixture(scope="module")
def codec():
    return PatchCodec.fit(smooth_images(64, 32), patch=8, latent_channels=8, gamma=0.7)


def make(moved=0.05):
    torch.manual_seed(0)
    decoder = PanoramaDecoder(width=16, num_blocks=2, fine_width=8)
    for parameter in decoder.parameters():
        parameter.data += moved * torch.randn_like(parameter)
    return decoder.eval().requires_grad_(False)


def test_an_untrained_one_decodes_as_the_codec_does(codec):
    latents = codec.encode(to_signal(smooth_images(2, 32)))
    plain = PanoramaDecoder(width=16, num_blocks=2, fine_width=8)
    torch.testing.assert_close(plain.decode(latents, codec), codec.decode(latents))
    assert (make().decode(latents, codec) - codec.decode(latents)).abs().max() > 0.05


def test_turned_latents_give_turned_pixels(codec):
    latents, decoder = torch.randn(2, 8, 4, 16), make()
    straight, turned = decoder(latents, codec), decoder(latents.roll(5, 3), codec)
    torch.testing.assert_close(straight.roll(5 * 8, 3), turned, atol=1e-5, rtol=0)


def test_pixels_stay_in_their_range(codec):
    pixels = make(0.3).decode(3 * torch.randn(1, 8, 4, 16), codec)
    assert pixels.dtype == torch.float32
    assert float(pixels.min()) >= -1
    assert float(pixels.max()) <= 1


def test_it_reads_half_precision(codec):
    latents, decoder = torch.randn(1, 8, 4, 16), make()
    half = decoder.to(torch.bfloat16).decode(latents.to(torch.bfloat16), codec)
    assert (half - make().decode(latents, codec)).abs().max() < 0.1
