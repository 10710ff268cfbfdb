"""Decode head of DeepLabV3 (Chen et al., arXiv:1706.05587, section 3.3).

A drop-in for ``mmseg.ASPPHead``: its arguments, state-dict keys and results. The pooled image is never upsampled.
"""

from collections.abc import Sequence

from mmcv.cnn import DepthwiseSeparableConvModule
from torch import Tensor, nn

from mmseg_ext.layers import AtrousPyramid, PooledProjection
from mmseg_ext.registry import MODELS

from .atrous_head import AtrousHead


@MODELS.register_module()
class ASPPHead(AtrousHead):
    """Atrous spatial pyramid pooling, a convolution over all of its branches and the classifier.

    Args:
        dilations: the rate of each branch; a branch with rate 1 is a 1x1 convolution, the others are 3x3.
        with_image_pool: add a branch that pools the whole image.
        separable: make the atrous convolutions depthwise separable (DeepLabV3+, arXiv:1802.02611, section 3.2).
        kwargs: arguments of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: ``dilations`` is not a list of positive integers.
    """

    # Kernel size of the convolution over all branches: mmseg's. The paper's is 1.
    bottleneck_size = 3

    def __init__(
        self,
        dilations: Sequence[int] = (1, 6, 12, 18),
        with_image_pool: bool = True,
        separable: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.separable = separable
        # The names of the modules, and their order, are mmseg's, for its checkpoints.
        self.image_pool = None
        if with_image_pool:
            self.image_pool = PooledProjection(1, self._conv(self.in_channels, self.channels, 1))
        self.aspp_modules = AtrousPyramid(dilations, self._branch)
        branches = len(dilations) + with_image_pool
        self.bottleneck = self._pyramid_conv(branches * self.channels, self.channels, self.bottleneck_size)

    def _branch(self, dilation: int) -> nn.Module:
        if dilation == 1:
            return self._conv(self.in_channels, self.channels, 1)
        if not self.separable:
            return self._conv(self.in_channels, self.channels, 3, dilation)
        return self._separable_conv(self.in_channels, dilation)

    def _separable_conv(self, in_channels: int, dilation: int = 1) -> DepthwiseSeparableConvModule:
        # As in mmseg, conv_cfg is for the other convolutions.
        return DepthwiseSeparableConvModule(
            in_channels,
            self.channels,
            3,
            padding=dilation,
            dilation=dilation,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        x = self._transform_inputs(inputs)
        levels = self.aspp_modules(x)
        if self.image_pool is not None:
            levels = [self.image_pool(x), *levels]
        return self._over(self.bottleneck, levels, x.shape[2:])
