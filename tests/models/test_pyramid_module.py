"""Which convolutions work below the upsampling, and that all others give the plain result too."""

import pytest
import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from torch import nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrizations import weight_norm

from mmseg_ext.layers import PyramidConv2d, pyramid_conv
from mmseg_ext.models import decode_heads
from mmseg_ext.models.decode_heads.pyramid_module import PyramidConvModule, PyramidSequential
from tests.models.head_parity import convolve_every_level_at_its_own_size
from tests.reference.weights import randomise, relative_error

BN = dict(type='BN')
LEVELS = dict(in_channels=[4, 6, 8], in_index=[0, 1, 2])
FEATURES = [(2, 4, 16, 16), (2, 6, 8, 8), (2, 8, 4, 4)]


@pytest.fixture
def calls(monkeypatch):
    """Note the sizes of the levels that are convolved below the upsampling."""
    sizes = []

    def counted(levels, *args, **kwargs):
        sizes.append([tuple(level.shape[2:]) for level in levels])
        return original(levels, *args, **kwargs)

    original = pyramid_conv.pyramid_conv2d
    monkeypatch.setattr(pyramid_conv, 'pyramid_conv2d', counted)
    return sizes


def concatenated(levels, size, align_corners):
    maps = [interpolate(level, size=size, mode='bilinear', align_corners=align_corners) for level in levels]
    return torch.cat(maps, dim=1)


def make_pair(*args, **kwargs):
    """mmcv's module and ours, with the same weights under the same keys."""
    theirs = randomise(ConvModule(*args, **kwargs)).eval()
    ours = PyramidConvModule(*args, **kwargs).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(
    ('below', 'kwargs'),
    [
        (True, dict(kernel_size=1)),
        (True, dict(kernel_size=3, padding=1, norm_cfg=BN)),
        (True, dict(kernel_size=5, padding=4, dilation=2, act_cfg=None)),
        (True, dict(kernel_size=3, padding=1, norm_cfg=BN, act_cfg=dict(type='GELU'))),
        (True, dict(kernel_size=3, padding=1, with_spectral_norm=True)),
        (False, dict(kernel_size=3, padding=2)),
        (False, dict(kernel_size=2, padding=1, dilation=2)),
        (False, dict(kernel_size=(3, 1), padding=(1, 0))),
        (False, dict(kernel_size=3, padding=(1, 2), dilation=(1, 2))),
        (False, dict(kernel_size=3, padding=1, stride=2)),
        (False, dict(kernel_size=3, padding=1, groups=2)),
        (False, dict(kernel_size=3, padding=1, padding_mode='reflect')),
        # mmcv's module takes it and leaves its convolution as it is.
        (True, dict(kernel_size=3, padding=1, padding_mode='circular')),
        (False, dict(kernel_size=3, padding=1, norm_cfg=BN, order=('norm', 'act', 'conv'))),
    ],
)
def test_every_module_gives_the_plain_result(kwargs, below, align_corners, calls, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    ours, theirs = make_pair(6, 4, **kwargs)
    levels = [torch.randn(2, 3, 3, 4), torch.randn(2, 2, 9, 12), torch.randn(2, 1, 5, 12)]
    for size in (None, (9, 12), (11, 10)):
        plain = concatenated(levels, size or (3, 4), align_corners)
        expected = theirs(plain)
        assert relative_error(ours(levels, size, align_corners), expected) <= 1e-5
        assert relative_error(ours(plain), expected) <= 1e-6
    assert len(calls) == 3 * below


def test_another_convolution_in_the_place_of_conv_gets_the_concatenation(calls):
    levels = [torch.randn(1, 4, 8, 8), torch.randn(1, 2, 4, 4)]
    module = PyramidConvModule(6, 4, 3, padding=1)
    module.conv = nn.Sequential(module.conv, nn.Identity())
    assert relative_error(module(levels), module(concatenated(levels, (8, 8), False))) <= 1e-6
    assert not calls


def test_a_sequence_hands_the_levels_to_its_first_module_alone(calls):
    levels = [torch.randn(1, 4, 8, 8), torch.randn(1, 2, 4, 4)]
    sequence = PyramidSequential(PyramidConvModule(6, 4, 3, padding=1), ConvModule(4, 3, 1))
    expected = nn.Sequential(*sequence)(concatenated(levels, (8, 8), False))
    assert relative_error(sequence(levels), expected) <= 1e-5
    assert len(calls) == 1
    sequence[0] = ConvModule(6, 4, 3, padding=1)
    assert sequence(levels).shape == expected.shape


@pytest.mark.parametrize('conv_cfg', [None, dict(type='Conv2d'), dict(type='Conv'), dict(type='ConvAWS')])
@pytest.mark.parametrize('name', ['PSPHead', 'ASPPHead', 'UPerHead', 'FCNHead', 'DeepLabV3PlusHead'])
def test_plain_convolutions_take_levels_and_all_others_their_concatenation(name, conv_cfg, calls):
    kwargs = dict(LEVELS) if name == 'UPerHead' else dict(in_channels=8, in_index=2)
    if name == 'DeepLabV3PlusHead':
        kwargs['low_level_in_channels'] = 4
    head = getattr(decode_heads, name)(channels=8, num_classes=5, conv_cfg=conv_cfg, **kwargs).eval()
    head([torch.randn(shape) for shape in FEATURES])
    is_plain = conv_cfg != dict(type='ConvAWS')
    assert any(isinstance(module, PyramidConv2d) for module in head.modules()) == is_plain
    assert bool(calls) == is_plain


@pytest.mark.parametrize(
    'wrap', [nn.Sequential, lambda module: ConvModule(module.in_channels, module.out_channels, 3, padding=1)]
)
def test_a_module_of_the_users_in_the_place_of_the_bottleneck_gets_the_concatenation(wrap, calls):
    head = decode_heads.PSPHead(in_channels=8, in_index=2, channels=8, num_classes=5).eval()
    head.bottleneck = wrap(head.bottleneck)
    assert head([torch.randn(shape) for shape in FEATURES]).shape == (2, 5, 4, 4)
    assert not calls


def test_depthwise_separable_modules_get_the_concatenation(calls):
    head = decode_heads.DepthwiseSeparableASPPHead(
        in_channels=8, in_index=2, channels=8, num_classes=5, dilations=(1, 2), c1_in_channels=4, c1_channels=4
    )
    assert isinstance(head.sep_bottleneck[0], DepthwiseSeparableConvModule)
    head.eval()([torch.randn(shape) for shape in FEATURES])
    assert calls == [[(1, 1), (4, 4), (4, 4)]]


def test_a_weight_that_is_computed_before_each_call_is_used(calls):
    levels = [torch.randn(1, 4, 8, 8), torch.randn(1, 2, 4, 4)]
    module = PyramidConvModule(6, 4, 3, padding=1)
    weight_norm(module.conv)
    module.conv.parametrizations.weight.original0.data.mul_(3)
    assert relative_error(module(levels), module(concatenated(levels, (8, 8), False))) <= 1e-5
    assert len(calls) == 1


@pytest.mark.parametrize(
    ('name', 'kwargs', 'expected'),
    [
        ('PSPHead', dict(in_channels=8, in_index=2), [[(4, 4), (1, 1), (2, 2), (3, 3), (6, 6)]]),
        ('ASPPHead', dict(in_channels=8, in_index=2, dilations=(1, 2)), [[(1, 1), (4, 4), (4, 4)]]),
        (
            'DepthwiseSeparableASPPHead',
            dict(in_channels=8, in_index=2, dilations=(1, 2), c1_in_channels=4, c1_channels=4),
            [[(1, 1), (4, 4), (4, 4)]],
        ),
        (
            'DeepLabV3PlusHead',
            dict(in_channels=8, in_index=2, dilations=(1, 2), low_level_in_channels=4),
            [[(1, 1), (4, 4), (4, 4)], [(4, 4), (16, 16)]],
        ),
        (
            'UPerHead',
            dict(LEVELS, pool_scales=(1, 2)),
            [[(4, 4), (1, 1), (2, 2)], [(16, 16), (8, 8), (4, 4)]],
        ),
        ('SegformerHead', LEVELS, [[(16, 16), (8, 8), (4, 4)]]),
        (
            'FCNHead',
            dict(LEVELS, input_transform='resize_concat'),
            [[(16, 16), (8, 8), (4, 4)], [(16, 16), (8, 8), (4, 4), (16, 16)]],
        ),
    ],
)
def test_heads_hand_over_their_maps_before_they_are_upsampled(name, kwargs, expected, calls):
    head = getattr(decode_heads, name)(channels=8, num_classes=5, **kwargs).eval()
    assert head([torch.randn(2, 4, 16, 16), torch.randn(2, 6, 8, 8), torch.randn(2, 8, 4, 4)]).shape[:2] == (2, 5)
    assert calls == expected
