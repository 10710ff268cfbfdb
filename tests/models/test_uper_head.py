import pytest

from tests.models.head_parity import (
    assert_logits_equal_mmsegs,
    assert_training_equals_mmsegs,
    convolve_every_level_at_its_own_size,
)

LEVELS = dict(in_channels=[4, 6, 8, 10], in_index=[0, 1, 2, 3])
SHAPES = [(2, 4, 24, 32), (2, 6, 12, 16), (2, 8, 6, 8), (2, 10, 3, 4)]
ODD_SHAPES = [(2, 4, 27, 17), (2, 6, 14, 9), (2, 8, 7, 5), (2, 10, 4, 3)]
VARIANTS = [
    {},
    dict(align_corners=True),
    dict(pool_scales=(1, 3)),
    dict(norm_cfg=None),
    dict(norm_cfg=dict(type='GN', num_groups=2)),
    dict(conv_cfg=dict(type='Conv2d', padding_mode='reflect'), pool_scales=(2,)),
    dict(in_channels=[4, 10], in_index=[0, 3]),
]


@pytest.mark.parametrize('shapes', [SHAPES, ODD_SHAPES])
@pytest.mark.parametrize('kwargs', VARIANTS)
def test_logits_and_keys_equal_mmsegs(kwargs, shapes):
    assert_logits_equal_mmsegs('UPerHead', shapes, **{**LEVELS, **kwargs})


@pytest.mark.parametrize('kwargs', VARIANTS)
def test_loss_and_gradients_equal_mmsegs(kwargs, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    assert_training_equals_mmsegs('UPerHead', SHAPES, **{**LEVELS, **kwargs})
