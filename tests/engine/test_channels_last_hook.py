from types import SimpleNamespace

import pytest
import torch
from torch import nn

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
    ChannelsLastHook().before_train(SimpleNamespace(model=model))
    assert model.conv_pw.weight.is_contiguous(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    for _ in range(3):
        with torch.autocast('cpu', torch.bfloat16):
            actual = gradients(model, x, target)
        for one, other in zip(actual, expected, strict=True):
            assert (one - other).norm() <= 0.2 * other.norm()


def test_state_dict_stays_the_same():
    model = SeparableConv2d(8, 4, dilation=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ChannelsLastHook().before_train(SimpleNamespace(model=model))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
