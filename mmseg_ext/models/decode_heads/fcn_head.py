"""Decode head of plain convolutions (Long et al., "Fully Convolutional Networks", arXiv:1411.4038), of HRNet too.

A drop-in for ``mmseg.FCNHead``: its arguments, state-dict keys and results. With ``input_transform='resize_concat'``
the convolutions over the backbone's resized features work at the size of each.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmseg_ext.registry import MODELS

from .atrous_head import AtrousHead
from .pyramid import conv_over_pyramid


@MODELS.register_module()
class FCNHead(AtrousHead):
    """Convolutions, one more over their output and their input, and the classifier.

    Args:
        num_convs: number of convolutions in a row.
        kernel_size: of all convolutions.
        concat_input: add a convolution over the concatenation of the input with the convolutions' output.
        dilation: of the convolutions in a row.
        kwargs: arguments of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: an argument is out of range or excludes another.
    """

    def __init__(
        self, num_convs: int = 2, kernel_size: int = 3, concat_input: bool = True, dilation: int = 1, **kwargs
    ):
        super().__init__(**kwargs)
        if num_convs < 0:
            raise ValueError(f'num_convs={num_convs} must be 0 or more')
        if not isinstance(dilation, int) or dilation < 1:
            raise ValueError(f'dilation={dilation!r} must be a positive integer')
        if num_convs == 0 and self.in_channels != self.channels:
            raise ValueError(
                f'num_convs=0 leaves {self.in_channels} input channels for a classifier of channels={self.channels}: '
                'make them equal'
            )
        if concat_input and kernel_size % 2 == 0:
            raise ValueError(
                f'kernel_size={kernel_size} changes the size of the map, so its input cannot be concatenated: use an '
                'odd one or concat_input=False'
            )
        self.concat_input = concat_input
        # The names of the two modules are mmseg's, for its checkpoints.
        widths = [self.in_channels, *[self.channels] * (num_convs - 1)][:num_convs]
        convs = [self._conv(width, self.channels, kernel_size, dilation) for width in widths]
        self.convs = nn.Sequential(*convs) if convs else nn.Identity()
        if concat_input:
            self.conv_cat = self._conv(self.in_channels + self.channels, self.channels, kernel_size)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        if self.input_transform == 'resize_concat':
            levels = [inputs[i] for i in self.in_index]
        else:
            levels = [self._transform_inputs(inputs)]
        if isinstance(self.convs, nn.Identity):
            x = self._transform_inputs(inputs)
        else:
            first, *others = self.convs
            x = conv_over_pyramid(first, levels, align_corners=self.align_corners)
            for conv in others:
                x = conv(x)
        if self.concat_input:
            x = conv_over_pyramid(self.conv_cat, [*levels, x], align_corners=self.align_corners)
        return x
