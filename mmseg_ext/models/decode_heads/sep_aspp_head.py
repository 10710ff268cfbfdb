"""mmseg's decode head of DeepLabV3+ (Chen et al., arXiv:1802.02611).

A drop-in for ``mmseg.DepthwiseSeparableASPPHead``: its arguments, state-dict keys and results. The head in the paper's
form is ``DeepLabV3PlusHead``.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmseg_ext.registry import MODELS

from .aspp_head import ASPPHead


@MODELS.register_module()
class DepthwiseSeparableASPPHead(ASPPHead):
    """Separable atrous spatial pyramid pooling, and a separable decoder over it and the backbone's first features.

    Args:
        c1_in_channels: channels of the backbone's first features; 0 leaves them out.
        c1_channels: channels that they are projected to.
        kwargs: arguments of ``ASPPHead``.

    Raises:
        ValueError: ``c1_in_channels`` is negative, or 0 while ``c1_channels`` is not.
    """

    def __init__(self, c1_in_channels: int, c1_channels: int, **kwargs):
        super().__init__(separable=True, **kwargs)
        if c1_in_channels < 0:
            raise ValueError(f'c1_in_channels={c1_in_channels} must be 0 or more')
        if c1_in_channels == 0 and c1_channels != 0:
            raise ValueError(f'c1_channels={c1_channels} must be 0 where c1_in_channels=0 leaves the features out')
        self.c1_bottleneck = self._conv(c1_in_channels, c1_channels, 1) if c1_in_channels > 0 else None
        self.sep_bottleneck = nn.Sequential(
            self._separable_conv(self.channels + c1_channels), self._separable_conv(self.channels)
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        x = super()._forward_feature(inputs)
        if self.c1_bottleneck is None:
            return self.sep_bottleneck(x)
        low_level = self.c1_bottleneck(inputs[0])
        return self._over(self.sep_bottleneck, [x, low_level], low_level.shape[2:])
