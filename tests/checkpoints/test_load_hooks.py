"""Modules that rename or resize weights while these are loaded are asked what they understand."""

import pytest
import torch
from mmcv.cnn.bricks.conv_ws import ConvAWS2d
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mmseg_ext.checkpoints.coverage import check_fit, load_weights
from tests.reference.segmentors import refusal, same, snapshot, without


class Renaming(nn.Conv2d):
    """Knows an older name of its weight."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        old = prefix[:-1] + '_kernel'
        if old in state_dict:
            state_dict[prefix + 'weight'] = state_dict.pop(old)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Resizing(nn.Module):
    """Cuts a longer table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4))
        self.register_load_state_dict_pre_hook(self._cut)

    @staticmethod
    def _cut(module, state_dict, prefix, *_):
        if prefix + 'table' in state_dict:
            state_dict[prefix + 'table'] = state_dict[prefix + 'table'][:4]


def test_keys_and_shapes_that_modules_change_themselves_while_loading_are_theirs_to_judge():
    model = nn.ModuleDict(dict(backbone=nn.ModuleDict(dict(conv=Renaming(1, 2, 1, bias=False), position=Resizing()))))
    before = snapshot(model)
    weights = {'backbone.conv_kernel': torch.randn(2, 1, 1, 1), 'backbone.position.table': torch.randn(9)}
    coverage = check_fit(model, weights, 'w.pth')
    assert (coverage.missing, coverage.unexpected, coverage.mismatched) == ([], [], {})
    assert same(model, before, before)
    load_weights(model, weights, 'w.pth')
    assert torch.equal(model['backbone']['conv'].weight, weights['backbone.conv_kernel'])
    assert torch.equal(model['backbone']['position'].table, weights['backbone.position.table'][:4])
    assert '1 missing (backbone.conv.weight)' in refusal(model, without(weights, 'backbone.conv'))
    message = refusal(model, {**weights, 'backbone.conv_kernel': torch.ones(3, 1, 1, 1)})
    assert 'backbone.conv.weight: (3, 1, 1, 1) in the file, (2, 1, 1, 1) in the model' in message


def test_the_older_keys_of_torchs_weight_norm_load():
    model = nn.ModuleDict(dict(backbone=weight_norm(nn.Linear(3, 2))))
    weights = {
        'backbone.bias': torch.randn(2),
        'backbone.weight_g': torch.rand(2, 1),
        'backbone.weight_v': torch.randn(2, 3),
    }
    load_weights(model, weights, 'w.pth')
    v = weights['backbone.weight_v']
    torch.testing.assert_close(model['backbone'].weight, weights['backbone.weight_g'] * v / v.norm(dim=1, keepdim=True))
    assert '1 unexpected (backbone.weight_h)' in refusal(model, {**weights, 'backbone.weight_h': v})


def test_weights_of_a_plain_convolution_load_into_mmcvs_standardised_one():
    model = nn.ModuleDict(dict(backbone=ConvAWS2d(3, 4, 3)))
    weights = {'backbone.weight': torch.randn(4, 3, 3, 3), 'backbone.bias': torch.randn(4)}
    coverage = load_weights(model, weights, 'w.pth')
    assert coverage.missing == []
    torch.testing.assert_close(model['backbone'].weight_beta.flatten(), weights['backbone.weight'].mean((1, 2, 3)))
    assert '1 missing (backbone.bias)' in refusal(model, without(weights, 'backbone.bias'))


def test_older_keys_of_mmcvs_deformable_convolution_load():
    ops = pytest.importorskip('mmcv.ops.modulated_deform_conv', exc_type=ImportError)
    model = nn.ModuleDict(dict(backbone=nn.ModuleDict(dict(conv2=ops.ModulatedDeformConv2dPack(2, 2, 3)))))
    weights = {key.replace('conv2.conv_offset', 'conv2_offset'): x + 1 for key, x in model.state_dict().items()}
    load_weights(model, weights, 'w.pth')
    assert torch.equal(model['backbone']['conv2'].conv_offset.bias, weights['backbone.conv2_offset.bias'])
