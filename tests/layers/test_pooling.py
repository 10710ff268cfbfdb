import pytest
import torch
from torch import nn

from mmseg_ext.layers import AvgPool2d, MaxPool2d, PhasePool2d

POOLS = [
    (AvgPool2d, nn.AvgPool2d, dict(kernel_size=2, stride=2, ceil_mode=True, count_include_pad=False)),
    (AvgPool2d, nn.AvgPool2d, dict(kernel_size=3, stride=2, padding=1)),
    (AvgPool2d, nn.AvgPool2d, dict(kernel_size=3, stride=2, padding=1, count_include_pad=False)),
    (MaxPool2d, nn.MaxPool2d, dict(kernel_size=2, stride=2)),
    (MaxPool2d, nn.MaxPool2d, dict(kernel_size=3, stride=2, padding=1)),
]


@pytest.mark.parametrize(('ours', 'theirs', 'arguments'), POOLS)
def test_undilated_pool_is_torchs(ours, theirs, arguments):
    x = torch.randn(2, 3, 9, 12)
    assert torch.equal(ours(**arguments)(x), theirs(**arguments)(x))


@pytest.mark.parametrize('density', [1, 2, 4])
@pytest.mark.parametrize(('ours', 'theirs', 'arguments'), POOLS)
def test_every_phase_of_a_dense_pool_is_the_undilated_pool_of_that_phase(ours, theirs, arguments, density):
    x = torch.randn(2, 3, 8 * density, 12 * density, dtype=torch.float64)
    pool = ours(**arguments)
    pool.stride, pool.dilation = 1, density
    dense = pool(x)
    assert dense.shape == x.shape
    step = 2 * density
    for i in range(density):
        for j in range(density):
            strided = theirs(**arguments)(x[:, :, i::density, j::density])
            torch.testing.assert_close(dense[:, :, i::step, j::step], strided, rtol=0, atol=1e-12)


@pytest.mark.parametrize('shape', [(8, 8), (7, 10)])
@pytest.mark.parametrize('dilation', [1, 2, 4])
def test_phase_pool_is_the_mean_of_each_phase(shape, dilation):
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    pool = PhasePool2d()
    pool.dilation = dilation
    means = pool(x)
    assert means.shape == (2, 3, dilation, dilation)
    for i in range(dilation):
        for j in range(dilation):
            torch.testing.assert_close(means[:, :, i, j], x[:, :, i::dilation, j::dilation].mean((2, 3)))


def test_phase_pool_of_a_map_smaller_than_its_dilation_is_refused():
    pool = PhasePool2d()
    pool.dilation = 4
    with pytest.raises(ValueError, match='map of 3x8 is smaller than its dilation 4'):
        pool(torch.zeros(1, 1, 3, 8))
