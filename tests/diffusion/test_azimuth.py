"""Layers that wrap in azimuth: a turned input gives a turned output."""

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.downsampling import Downsample2D
from torch import nn
from torch.nn import functional as F

from generation.diffusion.azimuth import AzimuthConv2d, AzimuthDownsample2D, conv3, wrap_azimuth


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 4, 6, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2), ((3, 5), (1, 2))])
def test_a_wrapped_convolution_is_an_ordinary_one_on_three_turns(x, kernel, padding):
    plain = nn.Conv2d(4, 8, kernel, padding=padding)
    wrapped = AzimuthConv2d(4, 8, kernel, padding=padding)
    wrapped.load_state_dict(plain.state_dict())
    three = plain(torch.cat([x, x, x], 3))[..., 16:32]
    torch.testing.assert_close(wrapped(x), three, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(wrapped(x)[..., 0], plain(x)[..., 0])


def test_a_stride_halves_the_circle_and_turns_with_it(x):
    layer = conv3(4, 8, stride=2)
    assert layer(x).shape == (2, 8, 3, 8)
    torch.testing.assert_close(layer(x.roll(6, 3)), layer(x).roll(3, 3))


def test_rows_are_filled_up_with_zeros_as_usual(x):
    layer = conv3(4, 8)
    by_hand = F.conv2d(
        F.pad(F.pad(x, (1, 1, 0, 0), "circular"), (0, 0, 1, 1)), layer.weight, layer.bias
    )
    torch.testing.assert_close(layer(x), by_hand)


def test_gradients_cross_the_edge():
    x = torch.zeros(1, 1, 3, 8, requires_grad=True)
    conv3(1, 1)(x)[0, 0, 1, 0].backward()
    assert x.grad[0, 0, 1].nonzero().flatten().tolist() == [0, 1, 7]


def test_wrapping_keeps_weights_and_leaves_other_layers_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert wrap_azimuth(network) is network
    assert [type(layer) for layer in network] == [AzimuthConv2d, nn.Conv2d, nn.Linear]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_wrapped_network_turns_with_its_input():
    """Two halvings: turns by multiples of four columns; a plain network does not turn."""
    torch.manual_seed(0)
    sizes = {"block_out_channels": (16, 16, 32), "norm_num_groups": 8, "layers_per_block": 1}
    blocks = {"down_block_types": ["DownBlock2D"] * 3, "up_block_types": ["UpBlock2D"] * 3}
    network = UNet2DModel(in_channels=4, out_channels=4, **sizes, **blocks).eval()
    x, t = torch.randn(1, 4, 8, 32), torch.tensor([300.0])
    with torch.no_grad():
        plain = [network(v, t).sample for v in (x, x.roll(12, 3))]
        wrap_azimuth(network)
        first, turned = (network(v, t).sample for v in (x, x.roll(12, 3)))
    assert (plain[0].roll(12, 3) - plain[1]).abs().max() > 1e-3
    torch.testing.assert_close(first.roll(12, 3), turned, atol=1e-5, rtol=0)


def test_the_lopsided_halving_of_autoencoders_wraps_too(x):
    """It fills up below and on the right alone: what lies right of the last column is the first."""
    torch.manual_seed(0)
    network = nn.Sequential(Downsample2D(4, use_conv=True, padding=0, name="op"))
    plain = network(x)
    assert type(wrap_azimuth(network)[0]) is AzimuthDownsample2D
    wrapped = network(x)
    torch.testing.assert_close(wrapped[..., :-1], plain[..., :-1])
    assert (wrapped[..., -1] - plain[..., -1]).abs().max() > 1e-3
    torch.testing.assert_close(network(x.roll(6, 3)), wrapped.roll(3, 3), atol=1e-6, rtol=1e-5)
