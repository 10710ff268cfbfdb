"""ResNeSt: a ResNet with split attention, in the three dilated forms that exist of it.

Zhang et al., "ResNeSt: Split-Attention Networks", arXiv:2004.08955. A drop-in for mmseg's class of the same name. Its
results are mmseg's by default, those of the official code (https://github.com/zhanghang1989/ResNeSt) or exact; the
three differ only where a stage is dilated.
"""

import math
from functools import partial

from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import Tensor, nn

from mmseg_ext.layers import DropBlock2d, RectifiedConv2d, SplAtConv2d, dilation_plan
from mmseg_ext.registry import MODELS

from .resnet import ResNetV1d
from .resnet_blocks import Bottleneck

_FORMS = ('mmseg', 'official', 'exact')
_STRIDES = (1, 2, 2, 2)


class SplAtBottleneck(Bottleneck):
    """A bottleneck whose 3x3 convolution is a split-attention convolution.

    Args:
        base_channels: width of the network's first stage, of which ``base_width`` is a part.
        dense_avd: keep the average pool where the block was built without its stride.
        phase_wise: see ``SplAtConv2d.spatial_layers``.

    The other arguments are ``ResNeSt``'s and ``Bottleneck``'s.
    """

    def __init__(
        self,
        *args,
        groups: int = 1,
        base_width: int = 4,
        base_channels: int = 64,
        radix: int = 2,
        reduction_factor: int = 4,
        avg_down_stride: bool = True,
        avd_first: bool = False,
        dropblock_prob: float = 0.0,
        dense_avd: bool = False,
        phase_wise: bool = False,
        **kwargs,
    ):
        self.groups = groups
        self.base_width = base_width
        self.base_channels = base_channels
        self.avg_down_stride = avg_down_stride
        self.dense_avd = dense_avd
        self.phase_wise = phase_wise
        self.split_attention = partial(
            SplAtConv2d,
            radix=radix,
            reduction_factor=reduction_factor,
            avd_first=avd_first,
            dropblock_prob=dropblock_prob,
        )
        super().__init__(*args, **kwargs)
        self.drop_block = DropBlock2d(dropblock_prob) if dropblock_prob > 0 else nn.Identity()

    def inner_width(self, planes: int) -> int:
        # As in mmseg, a single group ignores base_width.
        return planes if self.groups == 1 else math.floor(planes * (self.base_width / self.base_channels)) * self.groups

    def add_conv2(self, conv_cfg: dict | None, width: int, stride: int, dilation: int) -> None:
        self.conv2 = self.split_attention(
            width,
            width,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=self.groups,
            avd=self.avg_down_stride and (stride > 1 or self.dense_avd),
            make_conv=partial(build_conv_layer, conv_cfg),
            make_norm=lambda index, channels: build_norm_layer(self.norm_cfg, channels, postfix=index),
        )

    def spatial_layers(self) -> list[nn.Module]:
        layers = self.conv2.spatial_layers(self.phase_wise)
        return layers if self.style == 'pytorch' else [self.conv1, *layers]

    @property
    def strided_layer(self) -> nn.Module:
        return self.conv2.strided_layer if self.style == 'pytorch' else self.conv1

    def residual(self, x: Tensor) -> Tensor:
        x = self._plugins(self.relu(self.drop_block(self.norm1(self.conv1(x)))), 'after_conv1')
        x = self._plugins(self.conv2(x), 'after_conv2')
        return self._plugins(self.drop_block(self.norm3(self.conv3(x))), 'after_conv3')


@MODELS.register_module()
class ResNeSt(ResNetV1d):
    """ResNeSt backbone; maps an image ``(B, in_channels, H, W)`` to a tuple of the chosen stages' features.

    The official networks, and mmpretrain's, have ``stem_channels=64`` for depth 14, 26 and 50, and 128 for 101, 200
    and 269. The default is 64 for all, as in mmseg.

    A dilated network, made by ``strides`` and ``dilations`` or by ``output_stride``, has one of three forms:

    ============ ====================== ==================== ============== ====================
    dilated_form pool of 3x3 (avd)      shortcut's pool      first block    attention averages
    ============ ====================== ==================== ============== ====================
    'mmseg'      left out               1x1                  as ResNet's    the whole map
    'official'   stride 1, not dilated  1x1                  contracted     the whole map
    'exact'      stride 1, dilated      2x2, dilated         contracted     each phase by itself
    ============ ====================== ==================== ============== ====================

    "Contracted" means that the convolution of a stage's first block keeps the previous stage's dilation. In the exact
    form alone the features, subsampled, equal those of the strided network (``layers/dilation.py``), so that it suits
    weights from ImageNet best; in the others ``set_output_stride`` rewrites the network as it was built, and the
    attention of a denser map averages over more samples.

    Args:
        depth: 14, 26, 50, 101, 152, 200 or 269.
        groups: cardinality: number of groups with an attention of their own.
        base_width: width of a group in the first stage, of ``base_channels``; a single group ignores it.
        radix: number of splits in a group.
        reduction_factor: width of the attention's hidden layer is ``width * radix / reduction_factor``, at least 32.
        avg_down_stride: let a 3x3 average pool take the stride of a block ("avd" in the official code).
        avd_first: put that pool in front of the 3x3 convolution (the official "fast" networks).
        dropblock_prob: rate of DropBlock in the last two stages.
        rectified_conv: rectified convolution (``layers/rectified_conv.py``) in place of the padded ones.
        rectify_avg: its averaging form.
        dilated_form: see above. In the exact form ``dilations`` must be those that follow from ``strides``, and
            ``multi_grid`` multiplies them.
        kwargs: ``ResNet``'s arguments. ``zero_init_residual=False`` is the official ``last_gamma=False``.

    Raises:
        ValueError: an argument is out of range or does not fit another; the message names both.
    """

    arch_settings = {
        14: (SplAtBottleneck, (1, 1, 1, 1)),
        26: (SplAtBottleneck, (2, 2, 2, 2)),
        50: (SplAtBottleneck, (3, 4, 6, 3)),
        101: (SplAtBottleneck, (3, 4, 23, 3)),
        152: (SplAtBottleneck, (3, 8, 36, 3)),
        200: (SplAtBottleneck, (3, 24, 36, 3)),
        269: (SplAtBottleneck, (3, 30, 48, 8)),
    }

    def __init__(
        self,
        groups: int = 1,
        base_width: int = 4,
        radix: int = 2,
        reduction_factor: int = 4,
        avg_down_stride: bool = True,
        avd_first: bool = False,
        dropblock_prob: float = 0.0,
        rectified_conv: bool = False,
        rectify_avg: bool = False,
        dilated_form: str = 'mmseg',
        **kwargs,
    ):
        if dilated_form not in _FORMS:
            raise ValueError(f'dilated_form={dilated_form!r} must be one of {_FORMS}')
        if rectified_conv:
            if kwargs.get('conv_cfg') is not None:
                raise ValueError(f'rectified_conv=True and conv_cfg={kwargs["conv_cfg"]} both choose a layer: drop one')
            # Without padding it is a plain convolution, so that it may stand in for all of them.
            kwargs['conv_cfg'] = dict(type=RectifiedConv2d, average=rectify_avg)
        self.dilated_form = dilated_form
        self.dropblock_prob = dropblock_prob
        self.block_kwargs = dict(
            groups=groups,
            base_width=base_width,
            base_channels=kwargs.get('base_channels', 64),
            radix=radix,
            reduction_factor=reduction_factor,
            avg_down_stride=avg_down_stride,
            avd_first=avd_first,
            phase_wise=dilated_form == 'exact',
        )
        if dilated_form == 'exact':
            kwargs = _as_output_stride(**kwargs)
        elif kwargs.get('output_stride') is not None:
            kwargs = _as_dilations(dilated_form, **kwargs)
        if dilated_form == 'official':
            kwargs['contract_dilation'] = True
        super().__init__(**kwargs)

    def _make_stage(self, *args, **kwargs) -> nn.Module:
        stage = len(self.res_layers)
        return super()._make_stage(
            *args,
            dropblock_prob=self.dropblock_prob if stage >= 2 else 0.0,
            first_kwargs=dict(dense_avd=self.dilated_form == 'official' and stage > 0),
            **self.block_kwargs,
            **kwargs,
        )


def _as_output_stride(
    *, num_stages: int = 4, strides: tuple = _STRIDES, dilations: tuple = (1, 1, 1, 1), **kwargs
) -> dict:
    """Say the arguments ``strides`` and ``dilations`` of a stride-removed network as ``output_stride``."""
    native = _STRIDES[:num_stages]
    if tuple(dilations) != (1,) * num_stages or tuple(strides) != native:
        if kwargs.get('output_stride') is not None:
            raise ValueError(f'output_stride={kwargs["output_stride"]} excludes strides={strides}: drop one')
        output_stride = 4 * math.prod(strides)
        plan = dilation_plan(native, output_stride, stem_stride=4)
        expected = tuple(block.stride for block in plan), tuple(block.dilation_out for block in plan)
        if (tuple(strides), tuple(dilations)) != expected:
            raise ValueError(
                f"dilated_form='exact' needs the dilations that follow from the strides: output stride {output_stride} "
                f'is strides={expected[0]}, dilations={expected[1]}, not {tuple(strides)}, {tuple(dilations)}'
            )
        kwargs['output_stride'] = output_stride
    return dict(num_stages=num_stages, strides=native, dilations=(1,) * num_stages, **kwargs)


def _as_dilations(form: str, *, output_stride: int, num_stages: int = 4, **kwargs) -> dict:
    """Say the argument ``output_stride`` as ``strides`` and ``dilations``, for the forms that drop or change pools."""
    if kwargs.get('multi_grid') is not None:
        raise ValueError(
            f'multi_grid={kwargs["multi_grid"]} with output_stride={output_stride} multiplies dilations, which '
            f"dilated_form={form!r} can't: use dilated_form='exact', or give strides and dilations"
        )
    if 'strides' in kwargs or 'dilations' in kwargs:
        raise ValueError(f'output_stride={output_stride} excludes strides and dilations: drop the two')
    plan = dilation_plan(_STRIDES[:num_stages], output_stride, stem_stride=4)
    return dict(
        kwargs,
        num_stages=num_stages,
        strides=tuple(block.stride for block in plan),
        dilations=tuple(block.dilation_out for block in plan),
        contract_dilation=True,
    )
