"""ResNet in its V1, V1c and V1d forms, with dilated stages.

He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385; the c and d forms: He et al., "Bag of
Tricks for Image Classification", arXiv:1812.01187, section 4. Drop-ins for mmseg's classes of the same names: their
arguments, state-dict keys and results.
"""

import itertools
import math
import re
import warnings
from collections.abc import Sequence

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import Sequential
from torch import Tensor, nn

from mmseg_ext.layers import (
    AvgPool2d,
    Unit,
    mmseg_dilation_plan,
    multiply_dilations,
    remember_geometry,
    removed_strides,
)
from mmseg_ext.registry import MODELS

from .base import Backbone
from .resnet_blocks import BasicBlock, Bottleneck, build_pointwise_conv


@MODELS.register_module()
class ResNet(Backbone):
    """ResNet backbone; maps an image ``(B, in_channels, H, W)`` to a tuple of the chosen stages' features.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: channels of the image.
        stem_channels: output channels of the stem.
        base_channels: width of the first stage; each further stage doubles it.
        num_stages: number of stages, 1 to 4.
        strides: stride of each stage.
        dilations: dilation of each stage, applied by mmseg's rules.
        output_stride: size of the image over size of the last features, 8, 16 or 32, instead of ``strides`` and
            ``dilations``. Exact: the features of a network with more stride are a subset (``layers/dilation.py``).
        out_indices: stages whose features are returned.
        style: where the stride of a bottleneck sits: 'pytorch', in the 3x3 convolution, or 'caffe', in the first 1x1.
        deep_stem: three 3x3 convolutions in the stem instead of one 7x7 (the "c" form).
        avg_down: average pooling in front of a 1x1 convolution of stride 1 in the shortcut (the "d" form).
        frozen_stages: stem and stages up to this one are not trained; -1 trains everything.
        conv_cfg, norm_cfg: mmcv's convolution and normalisation layers.
        norm_eval: keep batch normalisation in evaluation mode while training.
        dcn, stage_with_dcn: mmcv's deformable convolution as 3x3 convolution of the bottlenecks of some stages.
        plugins: mmcv plugins in the bottlenecks: dicts with ``cfg``, ``position`` ('after_conv1', ...) and, optionally,
            ``stages`` (one bool a stage).
        multi_grid: one value for each block of the last stage. With ``output_stride`` it *multiplies* the stage's
            dilation (DeepLabV3, arXiv:1706.05587, section 3.2.1); with ``dilations`` it *replaces* it, as in mmseg.
        contract_dilation: halve the dilation of the first block of each dilated stage, as torchvision and timm do.
        with_cp: recompute activations in the backward pass to save memory.
        drop_path_rate: stochastic depth; the rate of the last block, rising from 0 at the first, as in mmpretrain.
        zero_init_residual: start the last normalisation of every block at zero.
        pretrained: mmseg's deprecated spelling of ``init_cfg=dict(type='Pretrained', checkpoint=...)``.

    Raises:
        ValueError: an argument is out of range or does not fit another; the message names both.
    """

    arch_settings = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    # Depth -> blocks of the second and third stage that share one learning rate.
    _depth_groups = {50: (2, 3), 101: (2, 3), 152: (4, 4), 200: (4, 4), 269: (5, 6)}

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN', requires_grad=True),  # noqa: B006
        norm_eval: bool = False,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        plugins: list[dict] | None = None,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        drop_path_rate: float = 0.0,
        output_stride: int | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        if pretrained is not None:
            if init_cfg is not None:
                raise ValueError(
                    f'pretrained={pretrained!r} and init_cfg={init_cfg} exclude each other: drop pretrained'
                )
            warnings.warn("pretrained is deprecated: use init_cfg=dict(type='Pretrained', ...)", stacklevel=2)
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        else:
            zero_init_residual = False
        super().__init__(init_cfg)
        if depth not in self.arch_settings:
            raise ValueError(f'depth={depth} must be one of {sorted(self.arch_settings)}')
        if not 1 <= num_stages <= 4:
            raise ValueError(f'num_stages={num_stages} must be 1, 2, 3 or 4')
        if not len(strides) == len(dilations) == num_stages:
            raise ValueError(f'strides={strides} and dilations={dilations} need {num_stages} values each (num_stages)')
        native = (1, 2, 2, 2)[:num_stages], (1, 1, 1, 1)[:num_stages]
        if output_stride is not None and (tuple(strides), tuple(dilations)) != native:
            raise ValueError(
                f'output_stride={output_stride} excludes strides={strides} and dilations={dilations}: drop the two'
            )
        if max(out_indices) >= num_stages:
            raise ValueError(f'out_indices={out_indices} must be below num_stages={num_stages}')
        if dcn is not None and len(stage_with_dcn) != num_stages:
            raise ValueError(f'stage_with_dcn={stage_with_dcn} needs {num_stages} values (num_stages)')
        self.depth = depth
        self.out_indices = out_indices
        self.deep_stem = deep_stem
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.plugins = plugins
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg

        block, stage_blocks = self.arch_settings[depth]
        block_init_cfg = None
        if zero_init_residual:
            block_init_cfg = dict(type='Constant', val=0, override=dict(name=block.last_norm))
        stage_blocks = stage_blocks[:num_stages]
        drop_path_rates = torch.linspace(0, drop_path_rate, sum(stage_blocks)).tolist()
        self._make_stem(in_channels, stem_channels)
        self.res_layers = []
        units = []
        removed = removed_strides(strides, dilations)
        inplanes = stem_channels
        for i, num_blocks in enumerate(stage_blocks):
            planes = base_channels * 2**i
            plan = mmseg_dilation_plan(
                num_blocks,
                strides[i],
                dilations[i],
                multi_grid=multi_grid if i == num_stages - 1 and output_stride is None else None,
                contract_dilation=contract_dilation,
            )
            stage = self._make_stage(
                block,
                inplanes,
                planes,
                plan,
                avg_down,
                drop_path_rates[sum(stage_blocks[:i]) : sum(stage_blocks[: i + 1])],
                style=style,
                with_cp=with_cp,
                dcn=dcn if stage_with_dcn[i] else None,
                plugins=self._stage_plugins(plugins, i, num_stages),
                init_cfg=block_init_cfg,
            )
            inplanes = planes * block.expansion
            name = f'layer{i + 1}'
            self.add_module(name, stage)
            self.res_layers.append(name)
            units += [b.unit(removed[i] if k == 0 else 1) for k, b in enumerate(stage)]
        self.feat_dim = inplanes
        self.freeze()
        if output_stride is not None and multi_grid is not None:
            multiply_dilations(units, multi_grid)
        remember_geometry(units)
        if output_stride is not None:
            self.set_output_stride(output_stride)

    def units(self) -> list[Unit]:
        return [block.unit() for name in self.res_layers for block in getattr(self, name)]

    def feature_ends(self) -> list[int]:
        ends = itertools.accumulate(len(getattr(self, name)) for name in self.res_layers)
        return [end for i, end in enumerate(ends) if i in self.out_indices]

    def set_output_stride(self, output_stride: int) -> None:
        if self.plugins is not None:
            raise ValueError(f'output_stride={output_stride}: plugins={self.plugins} see the whole map; leave them out')
        super().set_output_stride(output_stride)

    def _make_stage(
        self,
        block: type,
        inplanes: int,
        planes: int,
        plan: list[tuple[int, int]],
        avg_down: bool,
        drop_path_rates: list[float],
        first_kwargs: dict = {},  # noqa: B006
        **kwargs,
    ) -> Sequential:
        outplanes = planes * block.expansion
        stride = plan[0][0]
        downsample = None
        if stride != 1 or inplanes != outplanes:
            pool = [AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if avg_down else []
            conv = build_pointwise_conv(self.conv_cfg, inplanes, outplanes, 1 if avg_down else stride)
            downsample = nn.Sequential(*pool, conv, build_norm_layer(self.norm_cfg, outplanes)[1])
        return Sequential(
            *(
                block(
                    inplanes if i == 0 else outplanes,
                    planes,
                    stride,
                    dilation,
                    downsample=downsample if i == 0 else None,
                    conv_cfg=self.conv_cfg,
                    norm_cfg=self.norm_cfg,
                    drop_path_rate=drop_path_rates[i],
                    **kwargs,
                    **(first_kwargs if i == 0 else {}),
                )
                for i, (stride, dilation) in enumerate(plan)
            )
        )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter for layer-wise learning rates, and the number of depths, as mmpretrain does.

        Stem 0, first and last stage one depth each, the two stages between them in groups of two to six blocks; what
        does not start with ``prefix`` is behind the backbone.

        Args:
            param_name: full name of the parameter, such as ``backbone.layer3.5.conv1.weight``.
            prefix: what the backbone's parameters start with, such as ``backbone.``.

        Raises:
            ValueError: the depth of the network has no such grouping.
        """
        if self.depth not in self._depth_groups:
            raise ValueError(
                f'layer-wise learning rates are defined for depths {list(self._depth_groups)}, not {self.depth}'
            )
        groups = self._depth_groups[self.depth]
        counts = [math.ceil(len(getattr(self, f'layer{i}')) / size) for i, size in zip((2, 3), groups, strict=True)]
        last = 2 + sum(counts)
        if not param_name.startswith(prefix):
            return last + 1, last + 2
        match = re.match(r'layer(\d)\.(\d+)\.', param_name.removeprefix(prefix))
        if match is None:
            return 0, last + 2
        stage, block = int(match[1]), int(match[2])
        depths = {1: 1, 2: 2 + block // groups[0], 3: 2 + counts[0] + block // groups[1], 4: last}
        return depths[stage], last + 2

    @staticmethod
    def _stage_plugins(plugins: list[dict] | None, stage: int, num_stages: int) -> list[dict] | None:
        if plugins is None:
            return None
        for plugin in plugins:
            if plugin.get('stages') is not None and len(plugin['stages']) != num_stages:
                raise ValueError(f'plugin {plugin}: stages needs {num_stages} values (num_stages)')
        return [plugin for plugin in plugins if plugin.get('stages') is None or plugin['stages'][stage]]

    def _make_stem(self, in_channels: int, channels: int) -> None:
        def conv(inplanes: int, planes: int, kernel_size: int, stride: int) -> nn.Module:
            return build_conv_layer(
                self.conv_cfg, inplanes, planes, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
            )

        if self.deep_stem:
            half = channels // 2
            layers = []
            for inplanes, planes, stride in ((in_channels, half, 2), (half, half, 1), (half, channels, 1)):
                norm = build_norm_layer(self.norm_cfg, planes)[1]
                layers += [conv(inplanes, planes, 3, stride), norm, nn.ReLU(inplace=True)]
            self.stem = nn.Sequential(*layers)
        else:
            self.conv1 = conv(in_channels, channels, 7, 2)
            self.norm1_name, norm1 = build_norm_layer(self.norm_cfg, channels, postfix=1)
            self.add_module(self.norm1_name, norm1)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    @property
    def norm1(self) -> nn.Module:
        return getattr(self, self.norm1_name)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stem = [self.stem] if self.deep_stem else [self.conv1, self.norm1]
        return stem + [getattr(self, name) for name in self.res_layers[: self.frozen_stages]]


@MODELS.register_module()
class ResNetV1c(ResNet):
    """ResNet with three 3x3 convolutions in the stem."""

    def __init__(self, **kwargs):
        super().__init__(deep_stem=True, avg_down=False, **kwargs)


@MODELS.register_module()
class ResNetV1d(ResNet):
    """ResNet with three 3x3 convolutions in the stem and average pooling in the shortcuts."""

    def __init__(self, **kwargs):
        super().__init__(deep_stem=True, avg_down=True, **kwargs)
