"""Heads against mmseg's on the same device and weights."""

import copy

import pytest
import torch

from tests.gpu.heads import HEADS, distance, gradients, pair_on
from tests.models.head_parity import training_step

# What mmseg's own error may be multiplied by.
FACTOR = 3


def floor(key: str) -> float:
    """Return what is no error in float32. A rectifier's input near zero may change its sign, and a gradient with it."""
    return 1e-5 if key == 'logits' else 1e-2


@pytest.mark.parametrize('name', HEADS)
def test_losses_gradients_and_buffers_equal_mmsegs_in_float64(name, device, way):
    ours, theirs, features = pair_on(device, name)
    features = [x.double() for x in features]
    labels = torch.randint(0, 5, (2, 1, 60, 80), device=device)
    results, expected = (training_step(head.double().train(), features, labels) for head in (ours, theirs))
    assert list(results) == list(expected)
    for key, value in expected.items():
        assert results[key].device == value.device, key
        if value.is_floating_point():
            assert distance(results[key], value) <= 1e-9, key
        else:
            assert torch.equal(results[key], value), key


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('name', HEADS)
def test_logits_and_gradients_are_as_exact_as_mmsegs(name, dtype, device, way):
    ours, theirs, features = pair_on(device, name)
    grad = torch.randn_like(theirs.eval()(features))
    exact = gradients(copy.deepcopy(theirs).double(), [x.double() for x in features], grad)
    results, others = (gradients(head.eval(), features, grad, dtype) for head in (ours, theirs))
    assert results['logits'].dtype == others['logits'].dtype == dtype
    for key, value in exact.items():
        assert distance(results[key], value) <= FACTOR * distance(others[key], value) + floor(key), key


@pytest.mark.parametrize('name', HEADS)
def test_channels_last_changes_no_logit_and_no_gradient(name, device, way):
    head, _, features = pair_on(device, name)
    head, features = head.double().eval(), [x.double() for x in features]
    grad = torch.randn_like(head(features))
    expected = gradients(head, features, grad)
    to = dict(memory_format=torch.channels_last)
    results = gradients(head.to(**to), [x.to(**to) for x in features], grad.to(**to))
    for key, value in expected.items():
        assert distance(results[key], value) <= 1e-9, key
