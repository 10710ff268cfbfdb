"""Split attention's hand-written passes on a device, against mmseg's ResNeSt."""

import copy

import pytest
import torch
from mmseg.models.backbones.resnest import ResNeSt as MmsegResNeSt
from mmseg.models.backbones.resnest import SplitAttentionConv2d

from mmseg_ext.layers import SplAtConv2d
from mmseg_ext.models.backbones import ResNeSt
from tests.gpu.heads import autocast, distance
from tests.reference.weights import randomise

FORM = dict(depth=50, stem_channels=8, base_channels=8, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
# A bias in front of a normalisation.
NO_GRADIENT = 'fc1.bias'
RESNESTS = ResNeSt, MmsegResNeSt


def step(net, images, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return the last features, the gradients of a sum over them, and the buffers."""
    images = images.clone().requires_grad_()
    with autocast(images.device, dtype):
        out = net(images)
    out = out[-1] if isinstance(out, tuple) else out
    (out.double() * torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)).sum().backward()
    grads = {key: p.grad for key, p in net.named_parameters()}
    return {'out': out.detach(), 'images': images.grad, **grads, **dict(net.named_buffers())}


def pair(device, kinds, **arguments) -> list[torch.nn.Module]:
    """Build ours and mmseg's, on the same weights, for training."""
    ours, theirs = (kind(**arguments) for kind in kinds)
    theirs.load_state_dict(randomise(ours).state_dict())
    for net in (ours, theirs):
        net.to(device).train()
    return [ours, theirs]


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_training_step_of_resnest_equals_mmsegs_in_float64(memory_format, device):
    ours, theirs = pair(device, RESNESTS, **FORM)
    images = torch.randn(2, 3, 64, 64, device=device, dtype=torch.float64)
    to = dict(memory_format=memory_format)
    results, expected = step(ours.double().to(**to), images.to(**to)), step(theirs.double(), images)
    for key, value in expected.items():
        if not value.is_floating_point():
            assert torch.equal(results[key], value), key
        elif not key.endswith(NO_GRADIENT):
            assert distance(results[key], value) <= 1e-7, key


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('radix', [1, 2])
def test_a_training_step_of_split_attention_is_as_exact_as_mmsegs(radix, dtype, device):
    form = dict(in_channels=16, channels=16, kernel_size=3, padding=1, radix=radix)
    ours, theirs = pair(device, (SplAtConv2d, SplitAttentionConv2d), **form)
    images = torch.randn(4, 16, 24, 24, device=device)
    exact = step(copy.deepcopy(theirs).double(), images.double())
    results, others = (step(net, images, dtype) for net in (ours, theirs))
    for key, value in exact.items():
        # A rectifier's input near zero may change its sign, and a gradient with it.
        floor = 1e-5 if key == 'out' else 1e-2
        if value.is_floating_point() and not key.endswith(NO_GRADIENT):
            assert distance(results[key], value) <= 3 * distance(others[key], value) + floor, key


def test_resnest_keeps_less_for_its_backward_pass_than_mmsegs(cuda):
    images = torch.randn(2, 3, 128, 128, device=cuda)
    kept = []
    for net in pair(cuda, RESNESTS, **FORM):
        step(net, images)  # finds workspaces
        before = torch.cuda.memory_allocated()
        out = net(images)
        kept.append(torch.cuda.memory_allocated() - before)
        del out
    assert kept[0] < 0.95 * kept[1]
