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
