"""Decode head of PSPNet (Zhao et al., "Pyramid Scene Parsing Network", arXiv:1612.01105).

A drop-in for ``mmseg.PSPHead``: its arguments, state-dict keys and results.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor
from torch.nn.functional import interpolate

from mmseg_ext.layers import PyramidPooling
from mmseg_ext.registry import MODELS


@MODELS.register_module()
class PSPHead(BaseDecodeHead):
    """Pyramid pooling, concatenation with the input, a 3x3 convolution and the classifier.

    Args:
        pool_scales: side lengths of the pooling grids.
        kwargs: arguments of mmseg's ``BaseDecodeHead``.
    """

    def __init__(self, pool_scales: Sequence[int] = (1, 2, 3, 6), **kwargs):
        super().__init__(**kwargs)
        if not isinstance(pool_scales, (list, tuple)) or not all(isinstance(s, int) and s > 0 for s in pool_scales):
            raise ValueError(
                f'pool_scales must be a list of positive integers such as (1, 2, 3, 6), got {pool_scales!r}'
            )
        self.pool_scales = pool_scales
        conv = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        # The names of the two modules are mmseg's, for its checkpoints.
        self.psp_modules = PyramidPooling(
            pool_scales, lambda: ConvModule(self.in_channels, self.channels, kernel_size=1, **conv)
        )
        self.bottleneck = ConvModule(
            self.in_channels + len(pool_scales) * self.channels, self.channels, kernel_size=3, padding=1, **conv
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the backbone's features to ``(B, channels, H, W)``, the input of the classifier."""
        x = self._transform_inputs(inputs)
        pyramid = [
            interpolate(level, size=x.shape[2:], mode='bilinear', align_corners=self.align_corners)
            for level in self.psp_modules(x)
        ]
        return self.bottleneck(torch.cat([x, *pyramid], dim=1))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the backbone's features, a list of ``(B, C_i, H_i, W_i)``, to logits ``(B, num_classes, H, W)``."""
        return self.cls_seg(self._forward_feature(inputs))
