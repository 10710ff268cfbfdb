import pytest
import torch

from mmseg_ext.models.decode_heads import FCNHead
from tests.models.head_parity import (
    ARGUMENTS,
    assert_logits_equal_mmsegs,
    assert_training_equals_mmsegs,
    convolve_every_level_at_its_own_size,
    pair,
)

SINGLE = dict(in_channels=16)
HRNET = dict(in_channels=[4, 2, 1, 1], in_index=[0, 1, 2, 3], input_transform='resize_concat')
SHAPES = [(2, 4, 24, 32), (2, 2, 12, 16), (2, 1, 6, 8), (2, 1, 3, 4)]
ODD_SHAPES = [(2, 4, 27, 17), (2, 2, 14, 9), (2, 1, 7, 5), (2, 1, 4, 3)]
VARIANTS = [
    {},
    dict(align_corners=True),
    dict(num_convs=1, kernel_size=1, concat_input=False),
    dict(num_convs=1, kernel_size=1),
    dict(num_convs=3, concat_input=False),
    dict(kernel_size=5, dilation=2),
    dict(kernel_size=1, dilation=2),
    dict(dilation=3, norm_cfg=None),
    dict(norm_cfg=dict(type='GN', num_groups=2)),
    dict(conv_cfg=dict(type='Conv2d', padding_mode='reflect')),
]


@pytest.mark.parametrize('kwargs', [*VARIANTS, dict(num_convs=1, kernel_size=2, concat_input=False)])
def test_logits_and_keys_equal_mmsegs(kwargs):
    assert_logits_equal_mmsegs('FCNHead', [(2, 16, 13, 17)], **SINGLE, **kwargs)


@pytest.mark.parametrize('shapes', [SHAPES, ODD_SHAPES])
@pytest.mark.parametrize('kwargs', VARIANTS)
def test_logits_and_keys_of_resized_features_equal_mmsegs(kwargs, shapes):
    assert_logits_equal_mmsegs('FCNHead', shapes, **HRNET, **kwargs)


@pytest.mark.parametrize('concat_input', [True, False])
@pytest.mark.parametrize('inputs', [dict(in_channels=8), dict(HRNET)])
def test_without_convolutions_in_a_row_logits_equal_mmsegs(inputs, concat_input):
    shapes = SHAPES if 'in_index' in inputs else [(2, 8, 13, 17)]
    assert_logits_equal_mmsegs('FCNHead', shapes, num_convs=0, concat_input=concat_input, **inputs)
    assert_training_equals_mmsegs('FCNHead', shapes, num_convs=0, concat_input=concat_input, **inputs)


@pytest.mark.parametrize('num_convs', [0, 1, 3])
def test_the_convolutions_in_a_row_are_one_module_of_mmsegs_kind(num_convs):
    ours, theirs = pair('FCNHead', in_channels=8, num_convs=num_convs)
    assert isinstance(ours.convs, type(theirs.convs))
    x = torch.randn(1, 8, 5, 7)
    assert torch.equal(ours.convs.eval()(x), theirs.convs.eval()(x))


@pytest.mark.parametrize('kwargs', VARIANTS)
def test_loss_and_gradients_equal_mmsegs(kwargs):
    assert_training_equals_mmsegs('FCNHead', [(2, 16, 12, 16)], **SINGLE, **kwargs)


@pytest.mark.parametrize('kwargs', VARIANTS)
def test_loss_and_gradients_of_resized_features_equal_mmsegs(kwargs, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    assert_training_equals_mmsegs('FCNHead', SHAPES, **HRNET, **kwargs)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(num_convs=-1), 'num_convs=-1 must be 0 or more'),
        (dict(num_convs=0), 'num_convs=0 leaves 16 input channels for a classifier of channels=8'),
        (dict(dilation=0), 'dilation=0 must be a positive integer'),
        (dict(kernel_size=2), 'kernel_size=2 changes the size of the map'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FCNHead(**SINGLE, **ARGUMENTS, **kwargs)
