"""Decode heads whose atrous rates follow the output stride of the features."""

from mmcv.cnn import ConvModule
from torch import nn

from .base import DecodeHead


class AtrousHead(DecodeHead):
    """Base class of heads with atrous convolutions: a rate is a number of samples, so denser features need larger ones.

    DeepLabV3 (Chen et al., arXiv:1706.05587, section 3.3): rates (6, 12, 18) at output stride 16 are (12, 24, 36) at 8.
    """

    # Size of the image over size of the features that the atrous convolutions see, for the present rates. None until
    # whoever joins the head with a backbone sets it.
    output_stride: int | None = None

    def set_output_stride(self, output_stride: int) -> None:
        """Scale the rates for features of another output stride, with the weights untouched.

        Raises:
            ValueError: the rates can't be scaled; the message says why. Nothing has been changed then.
        """
        if not isinstance(output_stride, int) or output_stride < 1:
            raise ValueError(f'output_stride={output_stride!r} must be a positive integer')
        if self.output_stride is None:
            raise ValueError(
                f'{type(self).__name__}: output_stride={output_stride} needs the output stride that the present rates '
                "are for: set the head's attribute output_stride to the one of its backbone first"
            )
        changes = []
        for name, module in self.named_modules():
            # A ConvModule keeps the dilation that it was built with, its convolution has the present one: a rate that
            # has become 1 is still an atrous one.
            if not isinstance(module, ConvModule) or max(module.dilation) == 1 or max(module.kernel_size) == 1:
                continue
            conv = module.conv
            if not isinstance(conv, nn.Conv2d):
                raise ValueError(
                    f'output_stride={output_stride}: the rate of {name}, a {type(conv).__name__}, cannot be scaled '
                    'exactly (only that of a plain convolution can); build the head without its conv_cfg'
                )
            rate, remainder = divmod(conv.dilation[0] * self.output_stride, output_stride)
            if remainder:
                raise ValueError(
                    f'output_stride={output_stride}: rate {conv.dilation[0]} of {name} at output stride '
                    f'{self.output_stride} would become {conv.dilation[0] * self.output_stride / output_stride:g}, '
                    'not an integer; choose an output stride or dilations that divide'
                )
            changes.append((conv, rate))
        for conv, rate in changes:
            conv.padding = tuple(padding // conv.dilation[0] * rate for padding in conv.padding)
            conv.dilation = (rate, rate)
        self.output_stride = output_stride
