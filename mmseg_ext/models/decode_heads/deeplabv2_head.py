"""Decode head of DeepLabV2 (Chen et al., arXiv:1606.00915, section 3.2; the released networks' ASPP-L)."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor

from mmseg_ext.layers import AtrousPyramid, PointwiseConv2d, SummedAtrousPyramid, check_dilations
from mmseg_ext.registry import MODELS

from .large_fov_head import FieldOfViewHead


@MODELS.register_module()
class DeepLabV2Head(FieldOfViewHead):
    """Atrous branches side by side that each end in scores, and the scores summed.

    Two forms: for ResNet a branch is one 3x3 convolution to the classes, and ``conv_seg`` is all of them. For VGG-16 a
    branch is ``LargeFOVHead``'s convolutions and a classifier; the sum of the classifiers is one classifier,
    ``conv_seg``, over the concatenated branches.

    Args:
        in_channels: channels of the features.
        dilations: rate of each branch, for features with stride 8.
        hidden_channels: channels of each branch in VGG-16's form (1024 in the paper); None for ResNet's form.
        dropout_ratio: ratio of single values that dropout sets to zero: behind both convolutions of a branch in
            VGG-16's form (0.5 in the paper), in front of the branches in ResNet's.
        kwargs: arguments of mmseg's ``BaseDecodeHead`` other than ``channels``.

    Raises:
        ValueError: ``dilations`` is not a list of positive integers.
    """

    def __init__(
        self,
        in_channels: int,
        dilations: Sequence[int] = (6, 12, 18, 24),
        hidden_channels: int | None = None,
        dropout_ratio: float = 0.0,
        **kwargs,
    ):
        check_dilations(dilations)
        channels = in_channels if hidden_channels is None else len(dilations) * hidden_channels
        super().__init__(in_channels, channels, dropout_ratio=dropout_ratio, **kwargs)
        self.branches = None
        if hidden_channels is None:
            # In place of the classifier that mmseg's base class builds.
            self.conv_seg = SummedAtrousPyramid(dilations, self._classifier)
        else:
            # Of so many channels, torch's own dies in channels_last.
            self.conv_seg = PointwiseConv2d(channels, self.out_channels)
            self.branches = AtrousPyramid(dilations, lambda rate: self._fully_connected(hidden_channels, rate))

    def _classifier(self, dilation: int) -> ConvModule:
        return ConvModule(
            self.in_channels,
            self.out_channels,
            3,
            padding=dilation,
            dilation=dilation,
            conv_cfg=self.conv_cfg,
            act_cfg=None,
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        x = self._transform_inputs(inputs)
        return x if self.branches is None else torch.cat(self.branches(x), dim=1)
