"""What all our decode heads can do."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from mmseg_ext.layers import PointwiseConv2d


class DecodeHead(BaseDecodeHead):
    """Base class: mmseg's, whose forward pass is one of features and then the classifier."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.conv_seg = PointwiseConv2d(self.channels, self.out_channels)

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

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the backbone's features to ``(B, channels, H, W)``, the input of the classifier."""
        raise NotImplementedError

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the backbone's features, a list of ``(B, C_i, H_i, W_i)``, to logits ``(B, num_classes, H, W)``."""
        return self.cls_seg(self._forward_feature(inputs))
