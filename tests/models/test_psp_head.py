import pytest
import torch

from mmseg_ext.models.decode_heads import PSPHead
from tests.models.head_parity import (
    ARGUMENTS,
    assert_logits_equal_mmsegs,
    assert_training_equals_mmsegs,
    convolve_every_level_at_its_own_size,
)

GN = dict(type='GN', num_groups=2)
VARIANTS = [
    {},
    dict(align_corners=True),
    dict(pool_scales=(1, 4)),
    dict(norm_cfg=None),
    dict(norm_cfg=GN),
    dict(conv_cfg=dict(type='Conv2d', padding_mode='reflect')),
    dict(conv_cfg=dict(type='Conv2dAdaptivePadding'), act_cfg=dict(type='LeakyReLU')),
]


@pytest.mark.parametrize('kwargs', VARIANTS)
def test_logits_and_keys_equal_mmsegs(kwargs):
    assert_logits_equal_mmsegs('PSPHead', [(2, 16, 13, 17)], in_channels=16, **kwargs)


@pytest.mark.parametrize('kwargs', VARIANTS)
def test_loss_and_gradients_equal_mmsegs(kwargs, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    assert_training_equals_mmsegs('PSPHead', [(2, 16, 12, 16)], in_channels=16, **kwargs)


@pytest.mark.parametrize('pool_scales', [3, (0, 1), ('a',)])
def test_wrong_pool_scales_are_named(pool_scales):
    with pytest.raises(ValueError, match='pool_scales must be a list of positive integers'):
        PSPHead(pool_scales=pool_scales, in_channels=16, **ARGUMENTS)


def test_training_on_one_image_names_the_layer_and_the_remedy():
    head = PSPHead(in_channels=16, **ARGUMENTS).train()
    with pytest.raises(ValueError, match=r'PooledProjection\.1\.bn: .* Train with a batch of 2 or more'):
        head([torch.randn(1, 16, 12, 12)])
    head.eval()
    assert head([torch.randn(1, 16, 12, 12)]).shape == (1, 5, 12, 12)
    PSPHead(in_channels=16, **dict(ARGUMENTS, norm_cfg=GN)).train()([torch.randn(1, 16, 12, 12)])
