import pytest
import torch

from mmseg_ext.models.decode_heads import ASPPHead, DepthwiseSeparableASPPHead
from tests.models.head_parity import (
    ARGUMENTS,
    assert_logits_equal_mmsegs,
    assert_training_equals_mmsegs,
    convolve_every_level_at_its_own_size,
)

VARIANTS = [
    {},
    dict(align_corners=True),
    dict(dilations=(1, 2)),
    dict(dilations=(3, 1, 5)),
    dict(norm_cfg=None),
    dict(norm_cfg=dict(type='GN', num_groups=2)),
    dict(conv_cfg=dict(type='Conv2d', padding_mode='reflect'), dilations=(1, 2, 3)),
]
PLUS = dict(c1_in_channels=4, c1_channels=6, in_channels=16, in_index=1)
PLUS_SHAPES = [(2, 4, 25, 33), (2, 16, 7, 9)]


@pytest.mark.parametrize('kwargs', VARIANTS)
def test_logits_and_keys_equal_mmsegs(kwargs):
    assert_logits_equal_mmsegs('ASPPHead', [(2, 16, 13, 17)], in_channels=16, **kwargs)


@pytest.mark.parametrize('kwargs', VARIANTS)
def test_loss_and_gradients_equal_mmsegs(kwargs, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    assert_training_equals_mmsegs('ASPPHead', [(2, 16, 12, 16)], in_channels=16, **kwargs)


@pytest.mark.parametrize('kwargs', [*VARIANTS, dict(c1_in_channels=0, c1_channels=0)])
def test_logits_and_keys_of_the_separable_head_equal_mmsegs(kwargs):
    assert_logits_equal_mmsegs('DepthwiseSeparableASPPHead', PLUS_SHAPES, **{**PLUS, **kwargs})


@pytest.mark.parametrize('kwargs', [*VARIANTS, dict(c1_in_channels=0, c1_channels=0)])
def test_loss_and_gradients_of_the_separable_head_equal_mmsegs(kwargs, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    assert_training_equals_mmsegs('DepthwiseSeparableASPPHead', PLUS_SHAPES, **{**PLUS, **kwargs})


def test_without_image_pooling_the_logits_are_those_of_a_pool_that_has_no_effect():
    without = ASPPHead(in_channels=16, with_image_pool=False, **ARGUMENTS).eval()
    pooling = ASPPHead(in_channels=16, **ARGUMENTS).eval()
    weights = without.state_dict()
    unused = torch.zeros_like(weights['bottleneck.conv.weight'][:, :8])
    weights['bottleneck.conv.weight'] = torch.cat([unused, weights['bottleneck.conv.weight']], dim=1)
    missing, unexpected = pooling.load_state_dict(weights, strict=False)
    assert {key.split('.')[0] for key in missing} == {'image_pool'}
    assert not unexpected
    features = [torch.randn(2, 16, 9, 11)]
    torch.testing.assert_close(without(features), pooling(features))


def test_training_on_one_image_names_the_layer_and_the_remedy():
    head = ASPPHead(in_channels=16, **ARGUMENTS).train()
    with pytest.raises(ValueError, match=r'PooledProjection\.1\.bn: .* Train with a batch of 2 or more'):
        head([torch.randn(1, 16, 12, 12)])
    ASPPHead(in_channels=16, with_image_pool=False, **ARGUMENTS).train()([torch.randn(1, 16, 12, 12)])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(c1_in_channels=-1, c1_channels=3), 'c1_in_channels=-1 must be 0 or more'),
        (dict(c1_in_channels=0, c1_channels=3), 'c1_channels=3 must be 0 where c1_in_channels=0'),
        (dict(c1_in_channels=4, c1_channels=3, dilations=6), 'dilations must be a list of positive integers .* got 6'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DepthwiseSeparableASPPHead(in_channels=16, **ARGUMENTS, **kwargs)
