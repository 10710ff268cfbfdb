"""Aligned Xception in DeepLabV3+'s modified form.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", arXiv:1802.02611,
section 3.2 and figure 4, after the Aligned Xception of Dai et al., "Deformable Convolutional Networks",
arXiv:1703.06211. timm's state-dict keys and results, so that its weights fit, which are those of DeepLab's release.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmseg_ext.layers import SeparableConv2d, Unit, remember_geometry
from mmseg_ext.registry import MODELS

from .base import Backbone


class XceptionBlock(nn.Module):
    """Three separable convolutions, the last with the stride, beside a shortcut.

    Maps ``(B, in_channels, H, W)`` to the block's output ``(B, out_channels[-1], H', W')`` and the input of its last
    separable convolution, ``(B, out_channels[1], H, W)``: the finest features of a strided block.

    Args:
        in_channels, out_channels: channels before the block and behind each separable convolution.
        stride: stride of the block.
        norm: makes a normalisation layer for a number of channels.
        residual: add the input to the output, through a 1x1 convolution where the shapes differ. Such a block has its
            ReLUs in front of the separable convolutions, one without has them behind both parts of each.
        depthwise_relu: a ReLU behind the depthwise convolutions of a residual block, too.
        drop_path_rate: stochastic depth.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        stride: int,
        norm: Callable[[int], nn.Module],
        residual: bool = True,
        depthwise_relu: bool = False,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.residual = residual
        self.shortcut = None
        if residual and (stride > 1 or in_channels != out_channels[-1]):
            conv = nn.Conv2d(in_channels, out_channels[-1], 1, stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, bn=norm(out_channels[-1])))
        channels = (in_channels, *out_channels)
        self.stack = nn.ModuleDict(
            {
                f'conv{i + 1}': SeparableConv2d(
                    channels[i],
                    channels[i + 1],
                    stride if i == 2 else 1,
                    norm=norm,
                    depthwise_relu=depthwise_relu or not residual,
                    pointwise_relu=not residual,
                )
                for i in range(3)
            }
        )
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def unit(self) -> Unit:
        branches = [[conv.conv_dw for conv in self.stack.values()]]
        strided = [2]
        if self.shortcut is not None:
            branches.append([self.shortcut.conv])
            strided.append(0)
        return Unit(branches, strided)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = x
        for i, conv in enumerate(self.stack.values()):
            # The shortcut and the block before still need the first one's input.
            before = F.relu(out, inplace=i > 0) if self.residual else out
            out = conv(before)
        if self.residual:
            out = self.drop_path(out) + (x if self.shortcut is None else self.shortcut(x))
        return out, before


@MODELS.register_module()
class AlignedXception(Backbone):
    """Aligned Xception backbone; maps an image ``(B, in_channels, H, W)`` to a tuple of the chosen features.

    There are five levels of features. Level 0 to 3 is the input of the separable convolution that carries the second
    to fifth stride, behind its ReLU, as in timm: ``(B, C, H / s, W / s)`` with ``C = (128, 256, 728, 1024)`` and, at
    output stride 32, ``s = (2, 4, 8, 16)``. Level 4 is the last output, with 2048 channels. Level 1 is DeepLabV3+'s
    low-level feature. Odd sizes are rounded up.

    Args:
        depth: 41, 65 or 71.
        in_channels: channels of the image.
        output_stride: size of the image over size of the last features, 8, 16 or 32. Exact: the features of a network
            with more stride are a subset (``layers/dilation.py``).
        out_indices: levels that are returned.
        frozen_stages: what is not trained: 0 for the stem, 1 to 4 for the blocks up to the native stride 4 to 32, too,
            -1 for nothing.
        norm_cfg: mmcv's normalisation layer; its ``eps`` is 1e-3 unless it says otherwise, as the weights expect.
        norm_eval: keep batch normalisation in evaluation mode while training.
        depthwise_relu: a ReLU behind every depthwise convolution, as the paper says. The released network, and so the
            weights of timm, have it in the last block only, which is the default.
        with_cp: recompute activations in the backward pass to save memory.
        drop_path_rate: stochastic depth; the rate of the last block, rising from 0 at the first.

    Raises:
        ValueError: an argument is out of range.
    """

    stem_stride = 2

    # Channels and stride of the blocks of the entry flow; number of blocks of the middle flow.
    arch_settings = {
        41: (((128, 2), (256, 2), (728, 2)), 8),
        65: (((128, 2), (256, 2), (728, 2)), 16),
        71: (((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), 16),
    }

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        output_stride: int = 32,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN', requires_grad=True),  # noqa: B006
        norm_eval: bool = False,
        depthwise_relu: bool = False,
        with_cp: bool = False,
        drop_path_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ):
        if depth not in self.arch_settings:
            raise ValueError(f'depth={depth} must be one of {list(self.arch_settings)}')
        if not set(out_indices) <= set(range(5)):
            raise ValueError(f'out_indices={tuple(out_indices)} must be among 0, 1, 2, 3, 4')
        if not -1 <= frozen_stages <= 4:
            raise ValueError(f'frozen_stages={frozen_stages} must be between -1 and 4')
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        super().__init__(init_cfg)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        norm_cfg = dict(eps=1e-3) | norm_cfg

        def norm(channels: int) -> nn.Module:
            return build_norm_layer(norm_cfg, channels)[1]

        def stem_conv(inplanes: int, planes: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
            return nn.Sequential(OrderedDict(conv=conv, bn=norm(planes), act=nn.ReLU(inplace=True)))

        self.stem = nn.Sequential(stem_conv(in_channels, 32, 2), stem_conv(32, 64, 1))
        entry, num_middle = self.arch_settings[depth]
        flow = [((channels,) * 3, stride) for channels, stride in entry]
        flow += [((728,) * 3, 1)] * num_middle
        flow += [((728, 1024, 1024), 2), ((1536, 1536, 2048), 1)]
        rates = torch.linspace(0, drop_path_rate, len(flow)).tolist()
        self.blocks = nn.Sequential()
        inplanes = 64
        for i, (channels, stride) in enumerate(flow):
            residual = i < len(flow) - 1
            self.blocks.append(XceptionBlock(inplanes, channels, stride, norm, residual, depthwise_relu, rates[i]))
            inplanes = channels[-1]
        # Levels 0 to 3 lie in the strided blocks, level 4 is behind the last.
        self.level_blocks = [i for i, (_, stride) in enumerate(flow) if stride > 1]
        self.freeze()
        remember_geometry(self.units())
        self.set_output_stride(output_stride)

    def units(self) -> list[Unit]:
        return [block.unit() for block in self.blocks]

    def feature_ends(self) -> list[int]:
        return [[*self.level_blocks, len(self.blocks)][i] for i in sorted(self.out_indices)]

    def frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        ends = [*self.level_blocks, len(self.blocks)]
        return [self.stem, *self.blocks[: ends[self.frozen_stages] if self.frozen_stages else 0]]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return a parameter's layer and the number of layers, for learning rates that decay with depth.

        The stem is layer 0, each block one more, whatever is not under ``prefix`` (the head) the last.
        """
        num_layers = len(self.blocks) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        name = param_name.removeprefix(prefix).split('.')
        return (int(name[1]) + 1 if name[0] == 'blocks' else 0), num_layers

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        levels = []
        for i, block in enumerate(self.blocks):
            if self.with_cp and x.requires_grad:
                x, before_stride = checkpoint(block, x, use_reentrant=False)
            else:
                x, before_stride = block(x)
            if i in self.level_blocks:
                levels.append(before_stride)
        levels.append(x)
        return tuple(levels[i] for i in sorted(self.out_indices))
