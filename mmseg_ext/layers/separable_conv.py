"""Depthwise separable convolution.

Chollet, "Xception", arXiv:1610.02357; with normalisation between its two convolutions: Chen et al., DeepLabV3+,
arXiv:1802.02611, section 3.2.
"""

from collections.abc import Callable

from torch import Tensor, nn


class SeparableConv2d(nn.Module):
    """A 3x3 convolution within each channel, then a 1x1 convolution across them, each with its normalisation.

    Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels, out_channels: channels before and behind.
        stride, dilation: of the depthwise convolution.
        norm: makes a normalisation layer for a number of channels.
        depthwise_relu, pointwise_relu: put a ReLU behind the normalisation of that convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        depthwise_relu: bool = True,
        pointwise_relu: bool = True,
    ):
        super().__init__()
        # timm's names, for its weights.
        self.conv_dw = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=dilation, dilation=dilation, groups=in_channels, bias=False
        )
        self.bn_dw = norm(in_channels)
        self.act_dw = nn.ReLU(inplace=True) if depthwise_relu else nn.Identity()
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn_pw = norm(out_channels)
        self.act_pw = nn.ReLU(inplace=True) if pointwise_relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_dw(self.bn_dw(self.conv_dw(x)))
        return self.act_pw(self.bn_pw(self.conv_pw(x)))
