"""Decode head of PSPNet (Zhao et al., "Pyramid Scene Parsing Network", arXiv:1612.01105).

A drop-in for ``mmseg.PSPHead``: its arguments, state-dict keys and results. The pooled maps are never upsampled.
"""

from collections.abc import Sequence

from torch import Tensor

from mmseg_ext.layers import PyramidPooling
from mmseg_ext.registry import MODELS

from .base import DecodeHead


@MODELS.register_module()
class PSPHead(DecodeHead):
    """Pyramid pooling, concatenation with the input, a 3x3 convolution and the classifier.

    Args:
        pool_scales: side lengths of the pooling grids.
        kwargs: arguments of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: ``pool_scales`` is not a list of positive integers.
    """

    def __init__(self, pool_scales: Sequence[int] = (1, 2, 3, 6), **kwargs):
        super().__init__(**kwargs)
        self.pool_scales = pool_scales
        # The names of the two modules are mmseg's, for its checkpoints.
        self.psp_modules = PyramidPooling(pool_scales, lambda: self._conv(self.in_channels, self.channels, 1))
        self.bottleneck = self._pyramid_conv(self.in_channels + len(pool_scales) * self.channels, self.channels, 3)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        x = self._transform_inputs(inputs)
        return self._over(self.bottleneck, [x, *self.psp_modules(x)])
