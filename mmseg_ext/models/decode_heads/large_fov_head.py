"""Decode head of DeepLabV1 (Chen et al., arXiv:1412.7062, section 3) as released under the name DeepLab-LargeFOV."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from mmseg_ext.registry import MODELS

from .atrous_head import AtrousHead


class FieldOfViewHead(AtrousHead):
    """Base class of heads with VGG-16's fully connected layers as convolutions, the first of them atrous."""

    def __init__(self, *args, dropout_ratio: float, **kwargs):
        super().__init__(*args, dropout_ratio=dropout_ratio, **kwargs)
        # Of single values, as in the release; mmseg's drops whole channels.
        self.dropout = nn.Dropout(dropout_ratio)

    def _fully_connected(self, channels: int, dilation: int) -> nn.Sequential:
        """Build fc6 and fc7, named as in VGG-16: ``(B, in_channels, H, W)`` to ``(B, channels, H, W)``."""
        return nn.Sequential(
            OrderedDict(
                fc6=self._conv(self.in_channels, channels, 3, dilation),
                drop6=nn.Dropout(self.dropout_ratio),
                fc7=self._conv(channels, channels, 1),
            )
        )


@MODELS.register_module()
class LargeFOVHead(FieldOfViewHead):
    """A 3x3 convolution with a large rate, a 1x1 convolution, dropout behind each, and the classifier.

    Its backbone is ``VGG16(large_fov=True)``, without normalisation (``norm_cfg=None``).

    Args:
        dilation: rate of the first convolution, for features with stride 8.
        channels: channels of both convolutions.
        dropout_ratio: ratio of single values that both dropouts set to zero.
        kwargs: arguments of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: ``dilation`` is not a positive integer.
    """

    def __init__(self, dilation: int = 12, channels: int = 1024, dropout_ratio: float = 0.5, **kwargs):
        super().__init__(channels=channels, dropout_ratio=dropout_ratio, **kwargs)
        if not isinstance(dilation, int) or dilation < 1:
            raise ValueError(f'dilation={dilation!r} must be a positive integer')
        self.fully_connected = self._fully_connected(channels, dilation)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.fully_connected(self._transform_inputs(inputs))
