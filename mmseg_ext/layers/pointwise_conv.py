"""A 1x1 convolution as the product of matrices that it is.

A CPU's convolution first reorders its input, which for a 1x1 kernel takes longer than the convolution itself.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .eager import is_eager


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``torch.nn.functional.conv2d`` with a 1x1 kernel: ``(B, C, H, W)`` and ``(C_out, C, 1, 1)``."""
    if is_product(x, weight) and is_eager(x, weight, bias):
        # Not matmul, which may compute the transpose and copy it.
        out = torch.bmm(weight.flatten(1).expand(len(x), -1, -1), x.flatten(2))
        # A view would keep what follows from changing it in place.
        out = torch.ops.aten._unsafe_view(out, (*out.shape[:2], *x.shape[2:]))
        return out if bias is None else out.add_(bias.to(out.dtype)[:, None, None])
    if x.device.type == 'cpu' and bias is not None and bias.requires_grad and torch.is_grad_enabled():
        # oneDNN (torch 2.14.1) writes beyond the gradient of a bias: bfloat16, channels_last, several threads, more
        # than 2048 channels to few. The process dies. Outside of the convolution the bias is safe.
        out = F.conv2d(x, weight)
        return out + bias.to(out.dtype)[:, None, None]
    return F.conv2d(x, weight, bias)


def is_product(x: Tensor, weight: Tensor) -> bool:
    """Whether the convolution is best done as a product of matrices as they lie."""
    return weight.shape[2:] == (1, 1) and x.device.type == 'cpu' and x.is_contiguous()


class PointwiseConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` with a 1x1 kernel, faster on a CPU where its stride is 1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = True):
        super().__init__(in_channels, out_channels, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride != (1, 1):
            return super().forward(x)
        return pointwise_conv2d(x, self.weight, self.bias)
