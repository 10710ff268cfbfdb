"""What all our backbones can do."""

from mmengine.model import BaseModule

from mmseg_ext.layers import Unit, set_output_stride
from mmseg_ext.layers import output_stride as present_output_stride


class Backbone(BaseModule):
    """Base class: the output stride can be read, and changed on a live network without touching its weights."""

    # Stride of what comes before the first unit.
    stem_stride = 4

    def units(self) -> list[Unit]:
        """Describe the network from stem to end as a chain of stretches with one stride each."""
        raise NotImplementedError

    @property
    def output_stride(self) -> int:
        """Size of the image over size of the last features."""
        return present_output_stride(self.units(), self.stem_stride)

    def set_output_stride(self, output_stride: int) -> None:
        """Make the features denser or coarser; where sizes divide, the coarse ones are a subset of the dense ones.

        Raises:
            ValueError: the network can't have that output stride; the message says why. Nothing has been changed then.
        """
        set_output_stride(self.units(), output_stride, self.stem_stride)
