"""Decode head of SegFormer (Xie et al., arXiv:2105.15203, section 3.2).

A drop-in for ``mmseg.SegformerHead``: its arguments, state-dict keys and results. The convolution over the resized
features works at the size of each.
"""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmseg_ext.registry import MODELS

from .base import DecodeHead
from .pyramid_module import PyramidConvModule


@MODELS.register_module()
class SegformerHead(DecodeHead):
    """A 1x1 convolution of each of the backbone's features, one over all of them, and the classifier.

    Args:
        interpolate_mode: how features are upsampled to the size of the first, ``'bilinear'`` or ``'bicubic'``.
        kwargs: arguments of mmseg's ``BaseDecodeHead``; ``in_channels`` and ``in_index`` are lists, finest first.

    Raises:
        ValueError: ``interpolate_mode`` is another one.
    """

    def __init__(self, interpolate_mode: str = 'bilinear', **kwargs):
        if interpolate_mode not in ('bilinear', 'bicubic'):
            raise ValueError(f"interpolate_mode={interpolate_mode!r} must be 'bilinear' or 'bicubic'")
        super().__init__(input_transform='multiple_select', **kwargs)
        self.interpolate_mode = interpolate_mode
        # As in mmseg, whose names these are, conv_cfg has no effect and act_cfg none on the last one.
        self.convs = nn.ModuleList(
            ConvModule(in_channels, self.channels, 1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
            for in_channels in self.in_channels
        )
        self.fusion_conv = PyramidConvModule(
            len(self.in_channels) * self.channels, self.channels, 1, norm_cfg=self.norm_cfg
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        levels = [conv(x) for conv, x in zip(self.convs, self._transform_inputs(inputs), strict=True)]
        if self.interpolate_mode == 'bicubic':
            size = levels[0].shape[2:]
            levels = [interpolate(x, size=size, mode='bicubic', align_corners=self.align_corners) for x in levels]
        return self._over(self.fusion_conv, levels)
