"""Where a small level of a pyramid lies in the output of a convolution, as matrices, and what the two ways there cost.

See ``pyramid_conv.py`` and ``pyramid_place.py``.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# What the operators of one level cost at least, in multiply-adds of a large matrix product.
_OVERHEAD = 25_000_000
# Up to this many columns, an interpolation matrix is used whole: bands of it would not be faster.
_DENSE = 96
# Rows or columns of the output in a band.
_BAND = 32


class _Cost(NamedTuple):
    """What the two ways cost for each number that they handle, in multiply-adds of a large matrix product.

    Fitted to times on a CPU with AVX-512, where new memory is dear.
    """

    upsampled: float  # of a level that is upsampled and concatenated
    taps: float  # of what the taps give
    product: float  # a multiply-add along the columns
    wide: float  # of what is placed along the columns
    out: float  # of the output
    weight: float  # of the level's weight


_PLANES = _Cost(upsampled=400, taps=140, product=1, wide=0, out=23, weight=85)
_CHANNELS_LAST = _Cost(upsampled=220, taps=0, product=2, wide=53, out=40, weight=285)


class Band(NamedTuple):
    """Output rows ``start:stop``, which need the level's rows ``first:last``."""

    start: int
    stop: int
    first: int
    last: int


class Axis:
    """The interpolation along one axis, for every tap of the kernel.

    ``taps``: ``(k, out, n)``. ``interleaved``: ``(out, n * k)``, the tap innermost.
    """

    def __init__(self, n: int, out: int, kernel_size: int, dilation: int, align_corners: bool, like: Tensor):
        plain = interpolation_matrix(n, out, align_corners)
        taps = plain.new_zeros(kernel_size, out, n)
        for i in range(kernel_size):
            shift = (i - kernel_size // 2) * dilation
            to, source = max(0, -shift), max(0, shift)
            length = out - to - source
            if length > 0:
                taps[i, to : to + length] = plain[source : source + length]
        self.bands = list(_bands(taps.abs().sum(0), kernel_size))
        self.taps = taps.to(like)
        self.interleaved = taps.permute(1, 2, 0).reshape(out, n * kernel_size).to(like)


def interpolation_matrix(n: int, out: int, align_corners: bool) -> Tensor:
    """Return the matrix ``(out, n)`` of torch's bilinear interpolation along one axis, in float64."""
    eye = torch.eye(n, dtype=torch.float64)
    return F.interpolate(eye[:, None], size=out, mode='linear', align_corners=align_corners)[:, 0].t().contiguous()


def _bands(weights: Tensor, kernel_size: int) -> Iterator[Band]:
    out, n = weights.shape
    if n * kernel_size <= _DENSE:
        step = out
    else:
        # As many rows of the level as of the kernel's reach at least, so that bands don't overlap by much.
        step = max(_BAND, -(-8 * out // n))
    for start in range(0, out, step):
        stop = min(start + step, out)
        used = weights[start:stop].sum(0).nonzero()
        if len(used):
            yield Band(start, stop, int(used[0]), int(used[-1]) + 1)


@lru_cache(maxsize=128)
def _axis(n, out, kernel_size, dilation, align_corners, dtype, device) -> Axis:
    # Made outside of inference mode: what is made inside can't take part in a training step later.
    with torch.inference_mode(False), torch.no_grad():
        like = torch.empty(0, dtype=dtype, device=device)
        return Axis(n, out, kernel_size, dilation, align_corners, like)


class Placing(NamedTuple):
    """Where a level of size ``low`` lies in an output of size ``size``, and the convolution that it goes through."""

    low: tuple[int, int]
    size: tuple[int, int]
    kernel_size: int
    dilation: int
    align_corners: bool

    @property
    def padding(self) -> int:
        return self.kernel_size // 2 * self.dilation

    def axes(self, like: Tensor) -> tuple[Axis, Axis]:
        """Return rows and columns."""
        return tuple(
            _axis(n, out, self.kernel_size, self.dilation, self.align_corners, like.dtype, like.device)
            for n, out in zip(self.low, self.size, strict=True)
        )

    def saves(self, batch: int, in_channels: int, out_channels: int, channels_last: bool = False) -> bool:
        """Whether the level is cheaper below the upsampling, by what the two ways compute and move."""
        (h, w), (height, width), k = self.low, self.size, self.kernel_size
        if h * w >= height * width:
            return False
        cost = _CHANNELS_LAST if channels_last else _PLANES
        weight = k * k * in_channels * out_channels
        direct = batch * height * width * (weight + cost.upsampled * in_channels)
        # Along columns, every tap is placed on its own; in bands, which are not dense, one needs no more than this.
        columns = k * (w if channels_last else min(w, _BAND * w // width + (k - 1) * self.dilation + 2))
        wide = k * h * width * (cost.product * columns + cost.wide)
        below = batch * (h * w * (weight + cost.taps * k * k * out_channels) + wide * out_channels)
        below += batch * height * width * cost.out * out_channels + cost.weight * weight
        # What saves little may, by the error of this estimate, save nothing.
        return 1.2 * below + _OVERHEAD < direct
