"""Layers for pictures whose left edge is their right edge.

A panorama has no border in azimuth. Where every convolution takes the columns beyond one edge from
the other one, a turned input gives a turned output, and no seam can form.
"""

from diffusers.models.downsampling import Downsample2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class AzimuthConv2d(nn.Conv2d):
    """A convolution that wraps in columns and is filled up with zeros in rows, as usual."""

    def _conv_forward(
        self,
        input: Float[Tensor, "batch channels rows cols"],  # noqa: A002 - torch's own name
        weight: Float[Tensor, "out in_group height width"],
        bias: Float[Tensor, " out"] | None,
    ) -> Float[Tensor, "batch out new_rows new_cols"]:
        above, beside = int(self.padding[0]), int(self.padding[1])
        sides = (beside, beside, 0, 0)
        wrapped = F.pad(input, sides, mode="circular") if beside else input
        return F.conv2d(wrapped, weight, bias, self.stride, (above, 0), self.dilation, self.groups)


class AzimuthDownsample2D(Downsample2D):
    """The halving of autoencoders, which fills up by itself, below and on the right alone.

    The column on the right is the first one here; the row below is zeros, as usual.
    """

    def forward(
        self, hidden_states: Float[Tensor, "batch channels rows cols"]
    ) -> Float[Tensor, "batch out half_rows half_cols"]:
        """Halve rows and columns."""
        wrapped = F.pad(hidden_states, (0, 1, 0, 0), mode="circular")
        halved: Tensor = self.conv(F.pad(wrapped, (0, 0, 0, 1)))
        return halved


def wrap_azimuth(network: nn.Module) -> nn.Module:
    """Let every two-dimensional convolution inside a network wrap in columns.

    Weights and their names stay as they are, so any trained network can be wrapped. Of the layers
    that fill up by themselves, diffusers' asymmetric downsampling is covered.

    Returns:
        The network itself.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding not in ((0, 0), "valid"):
            module.__class__ = AzimuthConv2d
        elif type(module) is Downsample2D and module.use_conv and module.padding == 0:
            module.__class__ = AzimuthDownsample2D
    return network


def conv3(channels_in: int, channels_out: int, stride: int = 1) -> AzimuthConv2d:
    """Make a convolution of 3x3 that wraps in azimuth."""
    return AzimuthConv2d(channels_in, channels_out, 3, stride=stride, padding=1)
