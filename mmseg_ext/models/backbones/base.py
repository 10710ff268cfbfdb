"""What all our backbones can do."""

from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import nn

from mmseg_ext.checkpoints import PretrainedMixin
from mmseg_ext.layers import Unit, present_output_stride, set_output_stride


class Backbone(PretrainedMixin, BaseModule):
    """Base class: the output stride can be read, and changed on a live network without touching its weights."""

    # Stride of what comes before the first unit.
    stem_stride = 4
    # Keep batch normalisation in evaluation mode while training.
    norm_eval = False

    def units(self) -> list[Unit]:
        """Describe the network from stem to end as a chain of stretches with one stride each."""
        raise NotImplementedError

    def feature_ends(self) -> list[int]:
        """Say, for each of the features that are returned, how many units lie in front of them."""
        raise NotImplementedError

    @property
    def output_stride(self) -> int:
        """Size of the image over size of the last unit's features.

        Raises:
            ValueError: it differs between the axes.
        """
        return present_output_stride(self.units(), self.stem_stride)

    @property
    def feature_strides(self) -> list[int]:
        """Size of the image over size of each of the features that are returned."""
        units = self.units()
        return [present_output_stride(units[:end], self.stem_stride) for end in self.feature_ends()]

    def set_output_stride(self, output_stride: int) -> None:
        """Make the features denser or coarser; where sizes divide, the coarse ones are a subset of the dense ones.

        Raises:
            ValueError: the network can't have that output stride; the message says why. Nothing has been changed then.
        """
        set_output_stride(self.units(), output_stride, self.stem_stride)

    def frozen_modules(self) -> list[nn.Module]:
        """Return what is not trained."""
        return []

    def freeze(self) -> None:
        """Put what is not trained into evaluation mode, and exclude its parameters from training."""
        for module in self.frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'Backbone':
        """Switch the mode; what is frozen, and batch normalisation under ``norm_eval``, stays in evaluation mode."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
