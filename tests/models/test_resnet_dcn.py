"""Deformable convolutions in ResNet, where mmcv brings its compiled operators."""

import mmseg.models.backbones as mmseg_backbones
import pytest
import torch

from mmseg_ext.models import backbones
from tests.reference.weights import randomise, relative_error

try:
    from mmcv.ops import ModulatedDeformConv2dPack  # noqa: F401
except ImportError:
    pytest.skip("this mmcv has no compiled operators (onedl-mmcv from PyPI hasn't)", allow_module_level=True)

ARGUMENTS = dict(
    depth=50,
    base_channels=8,
    stem_channels=8,
    dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
    stage_with_dcn=(False, False, True, True),
)


def test_features_and_keys_equal_mmsegs():
    ours = randomise(backbones.ResNet(**ARGUMENTS))
    theirs = mmseg_backbones.ResNet(**ARGUMENTS)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.eval(), theirs.eval()
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(ours(x), theirs(x), strict=True):
        assert relative_error(a, b) <= 1e-5


def test_an_output_stride_is_refused_because_offsets_do_not_scale():
    model = backbones.ResNet(**ARGUMENTS)
    with pytest.raises(ValueError, match='cannot be dilated exactly'):
        model.set_output_stride(8)
