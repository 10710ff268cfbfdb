"""Where a level of a pyramid lies in the output of a convolution, and what the two ways there cost on a CPU.

See ``pyramid_conv.py``.
"""

from typing import NamedTuple

# What the operators of one level cost at least, in multiply-adds of a large matrix product.
_OVERHEAD = 25_000_000
# Rows or columns of the output in a band (``pyramid_products.py``).
BAND = 32


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

    def saves(self, batch: int, in_channels: int, out_channels: int, channels_last: bool = False) -> bool:
        """Whether the level is cheaper below the upsampling, by what the two ways compute and move."""
        (h, w), (height, width), k = self.low, self.size, self.kernel_size
        if h * w >= height * width:
            return False
        cost = _CHANNELS_LAST if channels_last else _PLANES
        weight = k * k * in_channels * out_channels
        direct = batch * height * width * (weight + cost.upsampled * in_channels)
        # Along columns, every tap is placed on its own; in bands, which are not dense, one needs no more than this.
        columns = k * (w if channels_last else min(w, BAND * w // width + (k - 1) * self.dilation + 2))
        wide = k * h * width * (cost.product * columns + cost.wide)
        below = batch * (h * w * (weight + cost.taps * k * k * out_channels) + wide * out_channels)
        below += batch * height * width * cost.out * out_channels + cost.weight * weight
        # What saves little may, by the error of this estimate, save nothing.
        return 1.2 * below + _OVERHEAD < direct
