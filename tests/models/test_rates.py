"""The rates of anybody's heads and necks follow the strides of their features."""

from fractions import Fraction

import mmseg.models.decode_heads as mmseg_heads
import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.necks import JPU
from torch import nn

from mmseg_ext.models.decode_heads.rates import has_rates, rate_factors, scale_rates
from tests.reference.weights import randomise

COMMON = dict(channels=8, num_classes=5, in_channels=8, norm_cfg=dict(type='BN'))
ASPP = dict(COMMON, dilations=(1, 2, 4, 6))
FOUR = [4, 8, 16, 16]


class Head(BaseDecodeHead):
    """Anybody's head around a network."""

    def __init__(self, network: nn.Module, **kwargs):
        super().__init__(**{**COMMON, **kwargs})
        self.network = network

    def forward(self, inputs):
        return self.cls_seg(self.network(self._transform_inputs(inputs)))


def conv_module(**kwargs) -> ConvModule:
    return ConvModule(8, 8, 3, padding=6, dilation=6, **kwargs)


def kernel_net() -> nn.Module:
    updates = dict(
        type='KernelUpdateHead', num_classes=5, num_ffn_fcs=2, num_heads=2, num_mask_fcs=1, feedforward_channels=8,
        in_channels=8, out_channels=8, dropout=0.0, conv_kernel_size=1, ffn_act_cfg=dict(type='ReLU', inplace=True),
        with_ffn=True, feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
        kernel_updator_cfg=dict(
            type='KernelUpdator', in_channels=8, feat_channels=8, out_channels=8, act_cfg=dict(type='ReLU'),
            norm_cfg=dict(type='LN'),
        ),
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmseg'):
        inner = dict(type='FCNHead', num_convs=1, concat_input=False, dilation=6, in_index=3, **COMMON)
        return mmseg_heads.IterativeDecodeHead(num_stages=1, kernel_generate_head=inner, kernel_update_head=[updates])


def reflecting(**kwargs) -> dict:
    return dict(conv_cfg=dict(type='Conv2d', padding_mode='reflect'), **kwargs)


def grouped(kernel_size, dilation, padding) -> nn.Module:
    return nn.Conv2d(8, 8, kernel_size, dilation=dilation, padding=padding, groups=4)


HEADS = {
    'ASPPHead': (lambda: mmseg_heads.ASPPHead(**ASPP), [2, 4, 6]),
    'ASPPHead reflecting': (lambda: mmseg_heads.ASPPHead(**reflecting(**ASPP)), [2, 4, 6]),
    'separable': (
        lambda: mmseg_heads.DepthwiseSeparableASPPHead(c1_in_channels=8, c1_channels=8, **ASPP),
        [2, 4, 6],
    ),
    'FCNHead': (lambda: mmseg_heads.FCNHead(dilation=6, **COMMON), [6, 6]),
    'ConvModule that pads by a layer': (lambda: Head(conv_module(padding_mode='reflect')), [6]),
    'ConvModule, circular': (lambda: Head(conv_module(padding_mode='circular')), [6]),
    'ConvModule of spectral norm': (lambda: Head(conv_module(with_spectral_norm=True)), [6]),
    'plain convolution': (lambda: Head(nn.Conv2d(8, 8, 3, dilation=2, padding='same', padding_mode='reflect')), [2]),
    'groups, along an axis': (lambda: Head(grouped((1, 3), (1, 6), (0, 6))), [6]),
    'without rates': (lambda: mmseg_heads.FCNHead(**COMMON), []),
    'rates of points': (lambda: mmseg_heads.FCNHead(kernel_size=1, dilation=6, **COMMON), []),
}


def rates(module: nn.Module) -> list[int]:
    convs = [part for part in module.modules() if isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1]
    return [max(conv.dilation) for conv in convs if max(conv.dilation) > 1]


@pytest.mark.parametrize('name', HEADS)
def test_rates_of_foreign_heads_follow_and_the_way_back_is_exact_even_from_a_rate_of_one(name):
    build, expected = HEADS[name]
    head = randomise(build()).eval()
    features = [torch.randn(1, 8, 34, 38)] * 4
    head.in_index = 3
    before = head(features)
    assert has_rates(head) == bool(expected)
    assert rates(head) == expected
    for after, factor in ((8, 2), (32, Fraction(1, 2)), (16, 1)):
        scale_rates(head, rate_factors(head, FOUR, [4, 8, 16, after]))
        assert rates(head) == [rate * factor for rate in expected if rate * factor > 1]
        assert head(features).shape == before.shape
        assert torch.equal(head(features), before) == (factor == 1 or not expected)
        scale_rates(head, rate_factors(head, [4, 8, 16, after], FOUR))
        assert rates(head) == expected
    assert torch.equal(head(features), before)


def test_a_conv_module_notes_what_its_convolution_has():
    for mode, padding in (('zeros', (12, 12)), ('reflect', (12, 12))):
        module = conv_module(padding_mode=mode)
        scale_rates(module, {'': Fraction(2)})
        assert module.dilation == module.conv.dilation == (12, 12)
        assert module.padding == padding


@pytest.mark.parametrize(
    ('kwargs', 'after', 'factor'),
    [
        (dict(in_index=2), [4, 8, 8, 8], 2),
        (dict(in_index=-1), [4, 8, 16, 8], 2),
        (dict(in_index=1), [4, 8, 8, 8], 1),
        (dict(in_index=[2, 3], in_channels=[8, 8], input_transform='multiple_select'), [4, 8, 8, 8], 2),
        (dict(in_index=[1, 2], in_channels=[8, 8], input_transform='multiple_select'), [4, 8, 8, 8], None),
        (dict(in_index=[1, 2], in_channels=[4, 4], input_transform='resize_concat'), [4, 8, 8, 8], 1),
        (dict(in_index=[2, 1], in_channels=[4, 4], input_transform='resize_concat'), [4, 8, 8, 8], 2),
    ],
)
def test_a_head_follows_the_features_that_it_takes(kwargs, after, factor):
    head = Head(nn.Conv2d(8, 8, 3, dilation=6, padding=6), **kwargs)
    factors = rate_factors(head, FOUR, after)
    assert factors == {'': factor}
    if factor is None:
        with pytest.raises(ValueError, match=r"Head\.network.* Head takes don't all change alike"):
            scale_rates(head, factors)
        assert rates(head) == [6]
    else:
        scale_rates(head, factors)
        assert rates(head) == [6 * factor]


def test_a_head_in_a_head_follows_its_own_features():
    head = kernel_net()
    scale_rates(head, rate_factors(head, FOUR, [4, 8, 16, 8]))
    assert rates(head) == [12]


def test_a_neck_follows_where_all_its_features_change_alike_and_is_refused_else():
    neck = JPU(in_channels=(8, 8), mid_channels=4, dilations=(1, 2, 4))
    assert has_rates(neck)
    scale_rates(neck, rate_factors(neck, [16, 32], [8, 16]))
    assert rates(neck) == [4, 8]
    with pytest.raises(ValueError, match=r'JPU\.dilation_layers\.1\..* JPU takes'):
        scale_rates(neck, rate_factors(neck, [8, 16], [8, 8]))
    assert rates(neck) == [4, 8]
    scale_rates(neck, rate_factors(neck, [8, 16], [8, 16]))
    assert rates(neck) == [4, 8]


class Deformable(nn.Module):
    """mmcv's and torchvision's deformable convolutions are no nn.Conv2d either, and have children."""

    def __init__(self):
        super().__init__()
        self.kernel_size, self.dilation, self.padding = (3, 3), (2, 2), (2, 2)
        self.weight, self.offset = nn.Parameter(torch.ones(8, 8, 3, 3)), nn.Conv2d(8, 18, 3, 1, 1)


@pytest.mark.parametrize(
    ('layer', 'factor', 'message'),
    [
        (Deformable(), 2, r'(?s)Head\.network\.0: Deformable.* cannot be dilated exactly'),
        (nn.ConvTranspose2d(8, 8, 3, dilation=2, padding=2), 2, 'ConvTranspose2d.* cannot be dilated exactly'),
        (nn.MaxPool2d(3, 1, dilation=2), 2, 'MaxPool2d.* cannot be dilated exactly'),
        (nn.Unfold(3, dilation=2), 2, 'Unfold.* cannot be dilated exactly'),
        (nn.Conv2d(8, 8, 3, dilation=2), 2, 'has a rate but no padding'),
        (nn.Conv2d(8, 8, 3, dilation=6, padding=6), Fraction(2, 3) / 3, 'would need dilation 4/3 and padding 4/3'),
        (ConvModule(8, 8, 3, padding=1, dilation=2, padding_mode='reflect'), Fraction(1, 2), 'need padding 1/2'),
    ],
)
def test_a_rate_that_cannot_follow_is_refused_by_name_and_nothing_changes(layer, factor, message):
    head = Head(nn.Sequential(layer, conv_module()))
    before = {part: dict(vars(part)) for part in head.modules()}
    with pytest.raises(ValueError, match=message):
        scale_rates(head, {'': Fraction(factor)})
    # Also not what comes before it.
    head.network = nn.Sequential(*reversed(head.network))
    with pytest.raises(ValueError, match=message.replace(r'network\.0', r'network\.1')):
        scale_rates(head, {'': Fraction(factor)})
    assert all(vars(part) == attributes for part, attributes in before.items())
