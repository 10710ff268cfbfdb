"""What all our decode heads can do."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmseg_ext.layers import concat_levels

from .pyramid_module import PyramidConvModule, PyramidSequential


class DecodeHead(BaseDecodeHead):
    """Base class: mmseg's, whose forward pass is one of features and then the classifier."""

    def _conv(self, in_channels: int, channels: int, kernel_size: int, dilation: int = 1) -> ConvModule:
        """Build a convolution with the head's configs that keeps the size of its input (for an odd kernel)."""
        return ConvModule(
            in_channels,
            channels,
            kernel_size,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _pyramid_conv(self, in_channels: int, channels: int, kernel_size: int, dilation: int = 1) -> ConvModule:
        """Build the same for :meth:`_over`; a convolution of another kind, by ``conv_cfg``, takes concatenated maps."""
        if self.conv_cfg not in (None, dict(type='Conv2d'), dict(type='Conv')):
            return self._conv(in_channels, channels, kernel_size, dilation)
        return PyramidConvModule(
            in_channels,
            channels,
            kernel_size,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _over(self, module: nn.Module, levels: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
        """Apply a module to maps ``(B, C_i, H_i, W_i)`` as if they were upsampled to one size and concatenated.

        ``size`` None: the first level's. A module that can't take the levels gets the concatenation.
        """
        if isinstance(module, (PyramidConvModule, PyramidSequential)):
            return module(levels, size, self.align_corners)
        return module(concat_levels(levels, size, align_corners=self.align_corners))

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the backbone's features to ``(B, channels, H, W)``, the input of the classifier."""
        raise NotImplementedError

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the backbone's features, a list of ``(B, C_i, H_i, W_i)``, to logits ``(B, num_classes, H, W)``."""
        return self.cls_seg(self._forward_feature(inputs))
