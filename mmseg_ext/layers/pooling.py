"""Pooling layers that can be dilated, so that a pool behind a removed stride keeps its meaning (see ``dilation.py``).

With dilation 1 they are torch's layers, bit for bit. With dilation ``d`` and stride 1 the output has the input's size,
and its every ``d``-th row and column, from each offset, is what the undilated pool gives on that offset's samples.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AvgPool2d(nn.AvgPool2d):
    """``torch.nn.AvgPool2d`` that can lose its stride and gain a dilation; it then keeps the input's size.

    Padding counts as in torch: ``padding`` zeros are part of the mean under ``count_include_pad``; what a window lacks
    beyond that, at the lower and right border, never is (torch's rule for ``ceil_mode``).
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.native_stride = stride
        self.dilation = 1

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == self.stride == 1:
            return x
        if not _is_dense(self):
            return super().forward(x)
        total = _window_sum(_pad_dilated(x, self, 0.0), self, (2, 3))
        return total / (self._counts(x, 2)[:, None] * self._counts(x, 3))

    def _counts(self, x: Tensor, axis: int) -> Tensor:
        """How many samples of each window along an axis the mean counts."""
        before = self.padding * self.dilation
        after = (self.kernel_size - 1 - self.padding) * self.dilation
        counted = (before, min(before, after)) if self.count_include_pad else (0, 0)
        ones = x.new_ones(x.shape[axis] + sum(counted))
        return _window_sum(F.pad(ones, (before - counted[0], after - counted[1])), self, (0,))


class MaxPool2d(nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` that can lose its stride and gain a dilation; it then keeps the input's size."""

    def __init__(self, kernel_size: int, stride: int, padding: int = 0, ceil_mode: bool = False):
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.native_stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if not _is_dense(self):
            return super().forward(x)
        return F.max_pool2d(_pad_dilated(x, self, -torch.inf), self.kernel_size, 1, 0, self.dilation)


def _is_dense(pool: AvgPool2d | MaxPool2d) -> bool:
    """Whether the pool lost its stride or gained a dilation."""
    return pool.dilation > 1 or (pool.stride == 1 and pool.native_stride > 1)


def _pad_dilated(x: Tensor, pool: AvgPool2d | MaxPool2d, value: float) -> Tensor:
    """Pad ``(B, C, H, W)`` so that every sample has a whole window."""
    before = pool.padding * pool.dilation
    after = (pool.kernel_size - 1 - pool.padding) * pool.dilation
    return F.pad(x, (before, after, before, after), value=value)


def _window_sum(x: Tensor, pool: AvgPool2d, axes: tuple[int, ...]) -> Tensor:
    """Sum over the pool's dilated window, at stride 1, along each of the axes."""
    for axis in axes:
        length = x.shape[axis] - (pool.kernel_size - 1) * pool.dilation
        x = sum(x.narrow(axis, i * pool.dilation, length) for i in range(pool.kernel_size))
    return x


class PhasePool2d(nn.Module):
    """Global average pooling of a map that is ``dilation`` times denser than native: one mean for each offset.

    Maps ``(B, C, H, W)`` to ``(B, C, d, d)`` with ``d = dilation``; entry ``(i, j)`` is the mean over the samples
    ``[i::d, j::d]``, which is the global mean that the strided network would see. With dilation 1: ``(B, C, 1, 1)``.
    """

    def __init__(self):
        super().__init__()
        self.dilation = 1

    def forward(self, x: Tensor) -> Tensor:
        d, (height, width) = self.dilation, x.shape[2:]
        if d == 1:
            return x.mean((2, 3), keepdim=True)
        if height < d or width < d:
            raise ValueError(
                f'PhasePool2d: a map of {height}x{width} is smaller than its dilation {d}; use a larger image'
            )
        rows, columns = (phases / phases.sum(0) for phases in _one_hot_phases(x, d))
        return rows.T @ (x @ columns)


def tile_phases(attention: Tensor, x: Tensor) -> Tensor:
    """Repeat a value for each phase, ``(B, C, d, d)``, over the map ``x``: ``(B, C, H, W)``."""
    rows, columns = _one_hot_phases(x, attention.shape[2])
    return rows @ (attention @ columns.T)


def _one_hot_phases(x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Which phase each row and column of a map is in, as matrices ``(H, d)`` and ``(W, d)`` of zeros and ones.

    Products with them are plain operators at every size, whose gradients fill one map, not one for each phase.
    """
    offsets = torch.arange(d, device=x.device)
    return tuple((torch.arange(n, device=x.device)[:, None] % d == offsets).to(x.dtype) for n in x.shape[2:])
