"""The decoder that draws the detail."""

import pytest
import torch
from tiny import smooth_images

from generation.checkpoint import load_part, save_part
from generation.diffusion.codec import PatchCodec, to_signal
from generation.diffusion.decoder import DetailDecoder
from generation.errors import WeightsError


@pytest.fixture(scope="module")
def codec():
    return PatchCodec.fit(smooth_images(64, 32), patch=8, latent_channels=8)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return DetailDecoder(8, coarse_width=16, fine_width=8, coarse_blocks=1, fine_blocks=1).eval()


def shaken(decoder):
    """Give it weights as a training would: at first its last layers are silent."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def given(count, side=4):
    classes = torch.randint(0, 10, (count, 8 * side, 8 * side)).to(torch.uint8)
    return classes, torch.ones(count, dtype=torch.bool)


def test_an_untrained_decoder_gives_what_the_latents_say(codec, decoder):
    images = to_signal(smooth_images(2, 32))
    latents = codec.encode(images)
    clean, tones = decoder(latents, torch.zeros(2), *given(2), codec)
    torch.testing.assert_close(clean, latents)
    torch.testing.assert_close(codec.untone(tones), codec.decode(latents))


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch(codec, decoder):
    decoder = shaken(decoder)
    latents, share = torch.randn(3, 8, 4, 4), torch.tensor([0.0, 0.1, 0.2])
    classes, has = given(3)
    together = decoder(latents, share, classes, has, codec)[1]
    alone = decoder(latents[1:2], share[1:2], classes[1:2], has[1:2], codec)[1]
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_noise_share_and_layout_matter_and_a_missing_layout_does_not(codec, decoder):
    decoder = shaken(decoder)
    latents, (classes, has) = torch.randn(1, 8, 4, 4), given(1)
    other = (classes + 3) % 10

    def draw(share, layout, given):
        return decoder(latents, torch.tensor([share]), layout, given, codec)[1]

    assert not torch.allclose(draw(0.1, classes, has), draw(0.2, classes, has))
    assert not torch.allclose(draw(0.1, classes, has), draw(0.1, other, has))
    torch.testing.assert_close(draw(0.1, classes, ~has), draw(0.1, other, ~has))


def test_saved_and_loaded_it_draws_the_same(codec, decoder, tmp_path):
    decoder = shaken(decoder)
    save_part(decoder, tmp_path)
    loaded, latents = load_part(DetailDecoder, tmp_path), torch.randn(1, 8, 4, 4)
    arguments = latents, torch.tensor([0.1]), *given(1), codec
    torch.testing.assert_close(loaded(*arguments)[1], decoder(*arguments)[1])


def test_a_hand_over_that_it_has_not_learnt_is_refused():
    with pytest.raises(WeightsError, match=r"hand_over=0.7 .* \(give 0 to 0.2\)"):
        DetailDecoder(8, hand_over=0.7)
