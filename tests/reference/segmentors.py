"""Small segmentors with random weights, and what a refused checkpoint is told."""

import copy

import pytest
import torch
from torch import nn

from mmseg_ext.checkpoints.building import build_model
from mmseg_ext.checkpoints.coverage import check_fit, load_weights

from .weights import randomise

WIDTH = dict(base_channels=4, stem_channels=4)


def backbone(depth: int = 18, **options) -> dict:
    return dict(type='ResNetV1c', depth=depth, **WIDTH, **options)


def head(kind: str = 'PSPHead', channels: int = 8, **options) -> dict:
    return dict(type=kind, in_index=-1, channels=channels, num_classes=5, norm_cfg=dict(type='BN'), **options)


def segmentor(backbone: dict, *heads: dict, **options) -> nn.Module:
    parts = dict(zip(('decode_head', 'auxiliary_head'), heads, strict=False))
    model = dict(type='EncoderDecoder', backbone=backbone, **copy.deepcopy(parts), **options)
    return randomise(build_model(model, 'mmseg_ext'))


def psp(classes: int = 5, depth: int = 18, **options) -> nn.Module:
    auxiliary = dict(head('FCNHead', 4, num_convs=1, concat_input=False), num_classes=classes)
    return segmentor(backbone(depth, **options), dict(head(), num_classes=classes), auxiliary)


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def refusal(model: nn.Module, weights: dict, **options) -> str:
    """Return the message of the refusal, which both functions give and which leaves the model as it was."""
    before, messages = snapshot(model), []
    for function in (check_fit, load_weights):
        with pytest.raises(ValueError, match=r'checkpoint w\.pth does not fit') as caught:
            function(model, weights, 'w.pth', **options)
        messages.append(str(caught.value))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert messages[0] == messages[1]
    assert '\n' not in messages[0]
    return messages[0]


def without(weights: dict, prefix: str) -> dict:
    return {key: value for key, value in weights.items() if not key.startswith(prefix)}


def same(model: nn.Module, weights: dict, keys) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], weights[key]) for key in keys)
