"""Decode head of UPerNet (Xiao et al., "Unified Perceptual Parsing", arXiv:1807.10221, section 3.1).

A drop-in for ``mmseg.UPerHead``: its arguments, state-dict keys and results. The two convolutions over concatenated
maps work at the size of each map.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmseg_ext.layers import PyramidPooling
from mmseg_ext.registry import MODELS

from .base import DecodeHead


@MODELS.register_module()
class UPerHead(DecodeHead):
    """Pyramid pooling over the last features, a feature pyramid over all, a 3x3 convolution over it, the classifier.

    Args:
        pool_scales: side lengths of the pooling grids.
        kwargs: arguments of mmseg's ``BaseDecodeHead``; ``in_channels`` and ``in_index`` are lists, finest first.

    Raises:
        ValueError: ``pool_scales`` is not a list of positive integers.
    """

    def __init__(self, pool_scales: Sequence[int] = (1, 2, 3, 6), **kwargs):
        super().__init__(input_transform='multiple_select', **kwargs)
        *finer, last = self.in_channels
        # The names of the modules are mmseg's, for its checkpoints.
        self.psp_modules = PyramidPooling(pool_scales, lambda: self._conv(last, self.channels, 1))
        self.bottleneck = self._pyramid_conv(last + len(pool_scales) * self.channels, self.channels, 3)
        self.lateral_convs = nn.ModuleList(self._conv(in_channels, self.channels, 1) for in_channels in finer)
        self.fpn_convs = nn.ModuleList(self._conv(self.channels, self.channels, 3) for _ in finer)
        self.fpn_bottleneck = self._pyramid_conv(len(self.in_channels) * self.channels, self.channels, 3)

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pool the last of the features and convolve them with what was pooled: to ``(B, channels, H, W)``."""
        last = inputs[-1]
        return self._over(self.bottleneck, [last, *self.psp_modules(last)])

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        *finer, last = self._transform_inputs(inputs)
        top = self.psp_forward([last])
        # Top-down: each level gets the coarser sum, upsampled.
        sums = [top]
        for x, lateral in zip(reversed(finer), reversed(self.lateral_convs), strict=True):
            upsampled = interpolate(sums[0], size=x.shape[2:], mode='bilinear', align_corners=self.align_corners)
            sums.insert(0, lateral(x) + upsampled)
        levels = [conv(level) for conv, level in zip(self.fpn_convs, sums[:-1], strict=True)]
        return self._over(self.fpn_bottleneck, [*levels, top])
