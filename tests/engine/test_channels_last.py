import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmseg_ext.engine.channels_last import to_channels_last
from mmseg_ext.engine.hooks import ChannelsLastHook
from mmseg_ext.layers import SeparableConv2d


def gradients(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    out = model(x)
    # Whatever reads memory that it has not written finds nan there.
    litter = [torch.full((size,), torch.nan) for size in (10**4, 10**5, 10**6, x.numel() // 2, x.numel())]
    del litter
    (out.float() * target).sum().backward()
    return [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize('dilation', [1, 2, 6, 12])
def test_bfloat16_gradients_of_separable_convolutions_are_those_of_float32(dilation):
    model = SeparableConv2d(64, 16, dilation=dilation)
    x, target = torch.randn(2, 64, 30, 40), torch.randn(2, 16, 30, 40)
    expected = gradients(model, x, target)
    to_channels_last(model)
    assert model.conv_pw.weight.is_contiguous(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    for _ in range(3):
        with torch.autocast('cpu', torch.bfloat16):
            actual = gradients(model, x, target)
        for one, other in zip(actual, expected, strict=True):
            assert (one - other).norm() <= 0.2 * other.norm()


NARROW = """
import sys, torch
from torch import nn
from mmseg_ext.engine.channels_last import to_channels_last

for channels in (4, 8, 15):
    plain = nn.Conv2d(channels, 16, 1, stride=2, bias=False)
    conv = nn.Conv2d(channels, 16, 1, stride=2, bias=False)
    conv.load_state_dict(plain.state_dict())
    to_channels_last(conv)
    for _ in range(20):
        x, target = torch.randn(2, channels, 60, 80), torch.randn(2, 16, 30, 40)
        expected, = torch.autograd.grad(plain(x), plain.weight, target)
        with torch.autocast('cpu', torch.bfloat16, enabled=sys.argv[1] == 'bfloat16'):
            out = conv(x.to(memory_format=torch.channels_last))
        actual, = torch.autograd.grad(out, conv.weight, target.to(out.dtype))
        assert (actual - expected).norm() <= 0.01 * expected.norm()
        litter = [torch.empty(size) for size in (10, 100, 1000, 10000)]
"""


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_narrow_strided_convolutions_write_where_they_may(precision):
    """In a process of its own, which ends with a signal where memory was overwritten."""
    run = subprocess.run([sys.executable, '-c', NARROW, precision], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_hook_leaves_the_state_dict_the_same():
    model = SeparableConv2d(8, 4, dilation=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ChannelsLastHook().before_train(SimpleNamespace(model=model))
    assert model.conv_pw.weight.is_contiguous(memory_format=torch.channels_last)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
