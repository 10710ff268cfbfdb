"""Decode head of DeepLabV3+ in the paper's form (Chen et al., arXiv:1802.02611, sections 3.1 and 4.1).

It differs from mmseg's (``DepthwiseSeparableASPPHead``) by a 1x1 convolution over the pyramid's branches instead of 3x3
and, by default, plain convolutions.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmseg_ext.registry import MODELS

from .aspp_head import ASPPHead


@MODELS.register_module()
class DeepLabV3PlusHead(ASPPHead):
    """Atrous spatial pyramid pooling, and two 3x3 convolutions over it and low-level features of the backbone.

    Maps features with stride 16 or 8 and low-level ones with stride 4 to logits with stride 4.

    Args:
        low_level_in_channels: channels of the low-level features.
        low_level_index: which of the backbone's features they are.
        low_level_channels: channels that they are reduced to.
        channels: channels of the pyramid's branches and of the decoder.
        separable: make the atrous convolutions and the decoder's depthwise separable (section 3.2).
        kwargs: arguments of ``ASPPHead``; ``in_channels`` and ``in_index`` are for the pyramid.
    """

    bottleneck_size = 1

    def __init__(
        self,
        low_level_in_channels: int,
        low_level_index: int = 0,
        low_level_channels: int = 48,
        channels: int = 256,
        separable: bool = False,
        **kwargs,
    ):
        super().__init__(channels=channels, separable=separable, **kwargs)
        self.low_level_index = low_level_index
        self.low_level_projection = self._conv(low_level_in_channels, low_level_channels, 1)
        decoder_channels = (channels + low_level_channels, channels)
        if separable:
            self.decoder = nn.ModuleList(self._separable_conv(width) for width in decoder_channels)
        else:
            width, last = decoder_channels
            self.decoder = nn.ModuleList([self._pyramid_conv(width, channels, 3), self._conv(last, channels, 3)])

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        x = super()._forward_feature(inputs)
        low_level = self.low_level_projection(inputs[self.low_level_index])
        join, refine = self.decoder
        return refine(self._over(join, [x, low_level], low_level.shape[2:]))
