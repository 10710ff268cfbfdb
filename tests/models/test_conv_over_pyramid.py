"""Which convolutions work below the upsampling, and that all others give the plain result too."""

import pytest
import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from torch.nn.functional import interpolate
from torch.nn.utils.parametrizations import weight_norm

from mmseg_ext.models import decode_heads
from mmseg_ext.models.decode_heads import pyramid
from tests.models.head_parity import convolve_every_level_at_its_own_size
from tests.reference.weights import randomise, relative_error

BN = dict(type='BN')
LEVELS = dict(in_channels=[4, 6, 8], in_index=[0, 1, 2])


@pytest.fixture
def calls(monkeypatch):
    """Count the convolutions that work below the upsampling."""
    sizes = []

    def counted(levels, *args, **kwargs):
        sizes.append([tuple(level.shape[2:]) for level in levels])
        return original(levels, *args, **kwargs)

    original = pyramid.pyramid_conv2d
    monkeypatch.setattr(pyramid, 'pyramid_conv2d', counted)
    return sizes


def plain(module, levels, size, align_corners):
    maps = [interpolate(level, size=size, mode='bilinear', align_corners=align_corners) for level in levels]
    return module(torch.cat(maps, dim=1))


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(
    ('below', 'kwargs'),
    [
        (True, dict(kernel_size=1)),
        (True, dict(kernel_size=3, padding=1, norm_cfg=BN)),
        (True, dict(kernel_size=5, padding=4, dilation=2, act_cfg=None)),
        (True, dict(kernel_size=3, padding=1, norm_cfg=BN, act_cfg=dict(type='GELU'))),
        (False, dict(kernel_size=3, padding=2)),
        (False, dict(kernel_size=2, padding=1, dilation=2)),
        (False, dict(kernel_size=(3, 1), padding=(1, 0))),
        (False, dict(kernel_size=3, padding=(1, 2), dilation=(1, 2))),
        (False, dict(kernel_size=3, padding=1, stride=2)),
        (False, dict(kernel_size=3, padding=1, groups=2)),
        (False, dict(kernel_size=3, padding=1, conv_cfg=dict(type='Conv2d', padding_mode='circular'))),
        (False, dict(kernel_size=3, padding=1, padding_mode='reflect')),
        (False, dict(kernel_size=3, padding=1, conv_cfg=dict(type='ConvAWS'))),
        (False, dict(kernel_size=3, padding=1, norm_cfg=BN, order=('norm', 'act', 'conv'))),
        (False, dict(kernel_size=3, padding=1, with_spectral_norm=True)),
    ],
)
def test_every_module_gives_the_plain_result(kwargs, below, align_corners, calls, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    module = randomise(ConvModule(6, 4, **kwargs)).eval()
    levels = [torch.randn(2, 3, 3, 4), torch.randn(2, 2, 9, 12), torch.randn(2, 1, 5, 12)]
    for size in (None, (9, 12), (11, 10)):
        out = pyramid.conv_over_pyramid(module, levels, size, align_corners=align_corners)
        assert relative_error(out, plain(module, levels, size or (3, 4), align_corners)) <= 1e-5
    assert len(calls) == 3 * below


def test_a_separable_convolution_and_a_parametrised_one_get_the_concatenation(calls):
    levels = [torch.randn(1, 4, 8, 8), torch.randn(1, 2, 4, 4)]
    parametrised = ConvModule(6, 4, 3, padding=1)
    weight_norm(parametrised.conv)
    for module in (DepthwiseSeparableConvModule(6, 4, 3, padding=1), parametrised):
        out = pyramid.conv_over_pyramid(module, levels, align_corners=False)
        assert relative_error(out, plain(module, levels, (8, 8), False)) <= 1e-6
    assert not calls


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
