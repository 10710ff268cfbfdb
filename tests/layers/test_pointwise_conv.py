import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from mmseg_ext.layers import PointwiseConv2d


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('autocast', [False, True])
def test_output_and_gradients_are_those_of_the_convolution(memory_format, autocast):
    layer = PointwiseConv2d(5, 3)
    x = torch.randn(2, 5, 6, 7).contiguous(memory_format=memory_format).requires_grad_()
    results = []
    for run in (layer, lambda x: F.conv2d(x, layer.weight, layer.bias)):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            out = run(x)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), [x, layer.weight, layer.bias])))
    tolerance = dict(rtol=0.02, atol=0.05) if autocast else dict(rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_gradient_of_a_bias_behind_many_channels_does_not_corrupt_memory():
    # Of torch's own convolution it does (see pointwise_conv.py); the process ends by a signal, hence another one.
    code = """
import torch
from mmseg_ext.layers import PointwiseConv2d
torch.set_num_threads(2)
for _ in range(8):
    layer = PointwiseConv2d(4096, 11).bfloat16().to(memory_format=torch.channels_last)
    x = torch.randn(2, 4096, 30, 40, dtype=torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_()
    layer(x).backward(torch.ones(2, 11, 30, 40, dtype=torch.bfloat16))
    torch.testing.assert_close(layer.bias.grad, torch.full((11,), 2400., dtype=torch.bfloat16))
    others = [torch.randn(n) for n in range(1, 3000, 7)]
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
