"""VGG-16, strided, dilated, and in DeepLabV1's LargeFOV form.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556,
configuration D; Chen et al., DeepLabV1, arXiv:1412.7062, section 3, and the network released with it
(DeepLab-LargeFOV). torchvision's state-dict keys, so that its weights fit.
"""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg_ext.layers import MaxPool2d, Unit, remember_geometry
from mmseg_ext.registry import MODELS

from .base import Backbone

# Convolutions and channels of each stage.
_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


@MODELS.register_module()
class VGG16(Backbone):
    """VGG-16 backbone; maps an image ``(B, in_channels, H, W)`` to a tuple of the chosen stages' features.

    A stage's features are those behind its max pooling: ``(B, C, H / s, W / s)`` with ``C = (64, 128, 256, 512, 512)``
    and natively ``s = (2, 4, 8, 16, 32)``.

    The LargeFOV form differs from torchvision's, in layers without weights and in dilations only: all pools are 3x3
    with padding 1 instead of 2x2, the last two have stride 1, and the convolutions of stage 4 have dilation 2; the
    features have stride 8. Pools round down here where the release rounds up; both agree for its sizes (8n + 1).
    ``output_stride=8`` without ``large_fov`` is the exact alternative, with the 2x2 pools, dilated.

    Args:
        in_channels: channels of the image.
        output_stride: size of the image over size of the last features, a power of two; None for the native one: 32,
            16 without the last pooling, 8 for LargeFOV. Exact: the features of a network with more stride are a subset
            (``layers/dilation.py``). LargeFOV can become denser but not coarser, because its last pooling is not
            dilated for the stride removed before it; without that pooling it reaches 16, too.
        large_fov: build DeepLabV1's LargeFOV form.
        with_last_pool: False leaves out the pooling of the last stage.
        out_indices: stages whose features are returned, 0 to 4.
        frozen_stages: this many stages, from the first, are not trained.
        norm_cfg: mmcv's normalisation layer behind each convolution; None for none, as in the paper.
        norm_eval: keep batch normalisation in evaluation mode while training.
        with_cp: recompute each stage's activations in the backward pass to save memory.

    Raises:
        ValueError: an argument is out of range, or the network can't have that output stride.
    """

    stem_stride = 1

    def __init__(
        self,
        in_channels: int = 3,
        output_stride: int | None = None,
        large_fov: bool = False,
        with_last_pool: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3, 4),
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        if not set(out_indices) <= set(range(5)):
            raise ValueError(f'out_indices={tuple(out_indices)} must be among 0, 1, 2, 3, 4')
        if not -1 <= frozen_stages <= 5:
            raise ValueError(f'frozen_stages={frozen_stages} must be between -1 and 5')
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        super().__init__(init_cfg)
        self.large_fov = large_fov
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.features = nn.Sequential()
        self.stage_ends = []
        for i, (num_convs, channels) in enumerate(_STAGES):
            dilation = 2 if large_fov and i == 4 else 1
            for _ in range(num_convs):
                self.features.append(nn.Conv2d(in_channels, channels, 3, padding=dilation, dilation=dilation))
                if norm_cfg is not None:
                    self.features.append(build_norm_layer(norm_cfg, channels)[1])
                self.features.append(nn.ReLU(inplace=True))
                in_channels = channels
            if with_last_pool or i < 4:
                self.features.append(MaxPool2d(3, 1 if i > 2 else 2, padding=1) if large_fov else MaxPool2d(2, 2))
            self.stage_ends.append(len(self.features))
        self.freeze()
        remember_geometry(self.units())
        if output_stride is not None:
            self.set_output_stride(output_stride)

    def _stage_layers(self, stage: int) -> list[nn.Module]:
        start = self.stage_ends[stage - 1] if stage else 0
        return list(self.features)[start : self.stage_ends[stage]]

    def units(self) -> list[Unit]:
        units = []
        for i in range(len(_STAGES)):
            layers = [layer for layer in self._stage_layers(i) if isinstance(layer, nn.Conv2d | MaxPool2d)]
            removed = 2 if self.large_fov and i > 2 and isinstance(layers[-1], MaxPool2d) else 1
            units.append(Unit([layers], strided=[len(layers) - 1], removed=removed))
        return units

    def feature_ends(self) -> list[int]:
        return [i + 1 for i in range(len(_STAGES)) if i in self.out_indices]

    def frozen_modules(self) -> list[nn.Module]:
        return [layer for i in range(self.frozen_stages) for layer in self._stage_layers(i)]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return a parameter's layer and the number of layers, for learning rates that decay with depth.

        Each stage is a layer; whatever is not under ``prefix`` (the head) is the last.
        """
        num_layers = len(_STAGES) + 1
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        index = int(param_name.removeprefix(prefix).split('.')[1])
        return sum(index >= end for end in self.stage_ends), num_layers

    def _run_stage(self, stage: int, x: Tensor) -> Tensor:
        for layer in self._stage_layers(stage):
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        for i in range(len(_STAGES)):
            if self.with_cp and x.requires_grad:
                x = checkpoint(self._run_stage, i, x, use_reentrant=False)
            else:
                x = self._run_stage(i, x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
