"""Multiply-adds of convolutions, forward and backward, against their definition."""

import pytest
import torch
from torch import nn

from mmseg_ext.engine.measure import count_multiply_adds

N, C, H, W = 2, 12, 10, 8


@pytest.mark.parametrize('groups', [1, 3, C])
@pytest.mark.parametrize('needs_input_gradient', [True, False])
@pytest.mark.parametrize(
    ('layer', 'per_pixel'),
    [
        (lambda groups: nn.Conv2d(C, 2 * C, 3, padding=1, groups=groups), 9 * C * 2 * C),
        (lambda groups: nn.Conv2d(C, 2 * C, (3, 5), padding=(2, 4), dilation=2, groups=groups), 15 * C * 2 * C),
        (lambda groups: nn.Conv2d(C, 2 * C, 2, stride=2, groups=groups), 4 * C * 2 * C // 4),
        (lambda groups: nn.ConvTranspose2d(C, 2 * C, 2, stride=2, groups=groups), 4 * C * 2 * C),
    ],
)
def test_the_backward_pass_of_a_convolution_costs_one_forward_pass_for_each_gradient(
    layer, per_pixel, groups, needs_input_gradient
):
    convolution = layer(groups)
    x = torch.randn(N, C, H, W, requires_grad=needs_input_gradient)
    forward = N * H * W * per_pixel // groups
    assert count_multiply_adds(lambda: convolution(x)) == forward
    y = convolution(x).sum()
    assert count_multiply_adds(y.backward) == forward * (1 + needs_input_gradient)
