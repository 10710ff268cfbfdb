"""Convolutions of heads that take maps of several sizes as they are (``layers/pyramid_conv.py``)."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmseg_ext.layers import PyramidConv2d, concat_levels


class PyramidConvModule(ConvModule):
    """mmcv's ``ConvModule`` with a ``PyramidConv2d``: takes the levels of a pyramid, or their concatenation.

    The keys are those of a ``ConvModule``. Another convolution that takes the place of ``conv`` gets the concatenation.

    Args:
        kwargs: arguments of ``ConvModule`` other than ``conv_cfg``.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, conv_cfg=dict(type=PyramidConv2d), **kwargs)

    def forward(
        self, x: Tensor | Sequence[Tensor], size: Sequence[int] | None = None, align_corners: bool = False, **kwargs
    ) -> Tensor:
        """Map levels ``(B, C_i, H_i, W_i)`` to ``(B, out_channels, *size)``; ``size`` None: the first level's."""
        if isinstance(x, Tensor):
            return super().forward(x, **kwargs)
        plain_order = self.order == ('conv', 'norm', 'act') and not self.with_explicit_padding
        if not (plain_order and isinstance(self.conv, PyramidConv2d)):
            return super().forward(concat_levels(x, size, align_corners=align_corners), **kwargs)
        x = self.conv(x, size, align_corners)
        if self.with_norm:
            x = self.norm(x)
        return self.activate(x) if self.with_activation else x


class PyramidSequential(nn.Sequential):
    """``torch.nn.Sequential`` whose first module may be a ``PyramidConvModule``; takes what that takes."""

    def forward(self, x: Tensor | Sequence[Tensor], size: Sequence[int] | None = None, align_corners: bool = False):
        first, *others = self
        if isinstance(first, PyramidConvModule):
            x = first(x, size, align_corners)
        else:
            x = first(x if isinstance(x, Tensor) else concat_levels(x, size, align_corners=align_corners))
        for module in others:
            x = module(x)
        return x
