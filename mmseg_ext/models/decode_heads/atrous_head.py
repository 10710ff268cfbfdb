"""Decode heads whose atrous rates follow the output stride of the features."""

from fractions import Fraction

from mmseg_ext.layers.live_modules import all_or_nothing

from .base import DecodeHead
from .rates import scale_rates


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
        with all_or_nothing([self]):
            scale_rates(self, {'': Fraction(self.output_stride, output_stride)})
            self.output_stride = output_stride
