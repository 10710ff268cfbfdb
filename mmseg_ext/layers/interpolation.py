"""Bilinear interpolation along one axis, as the banded matrix that it is.

Resizes, crops, flips and shifts of a map treat rows and columns apart and are linear along each: a matrix, in whose
rows only a few neighbouring numbers are not zero. They compose to matrices of the same kind.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Axis(NamedTuple):
    """A banded matrix: output ``i`` is ``weight[i]`` times the inputs from ``start[i]`` on, of ``n``."""

    n: int
    start: Tensor  # (out,), on the CPU as well as
    weight: Tensor  # (out, width), float64

    @classmethod
    def identity(cls, n: int) -> 'Axis':
        return cls(n, torch.arange(n), torch.ones(n, 1, dtype=torch.float64))

    @property
    def out(self) -> int:
        return len(self.start)

    def resize(self, out: int, align_corners: bool, dtype: torch.dtype = torch.float32) -> 'Axis':
        """Interpolate to another length as ``torch.nn.functional.interpolate`` does.

        Args:
            out: the length.
            align_corners: whether the outer samples keep their places, or the borders of the map.
            dtype: of the positions: float64 for float64 maps, float32 for all others.
        """
        if out == self.out:
            return self
        index, weight = _linear_taps(self.out, out, align_corners, dtype)
        positions = self.start[index][..., None] + torch.arange(self.weight.shape[1])  # (out, 2, width)
        values = self.weight[index] * weight[..., None]
        start = positions.amin((1, 2))
        width = int((positions.amax((1, 2)) - start).max()) + 1
        start = start.clamp(max=self.n - width)
        offsets = (positions - start[:, None, None]).flatten(1)
        return Axis(self.n, start, values.new_zeros(out, width).scatter_add_(1, offsets, values.flatten(1)))

    def crop(self, begin: int, end: int) -> 'Axis':
        return Axis(self.n, self.start[begin:end], self.weight[begin:end])

    def flip(self) -> 'Axis':
        return Axis(self.n, self.start.flip(0), self.weight.flip(0))

    def shift(self, offset: int) -> 'Axis':
        """Let output ``i`` be what output ``i + offset`` was, and zero where there was none."""
        source = torch.arange(self.out) + offset
        inside = (source >= 0) & (source < self.out)
        source = source.clamp(0, self.out - 1)
        return Axis(self.n, self.start[source], self.weight[source] * inside[:, None])

    def inputs(self) -> tuple[int, int]:
        """The first input that has a part in any output, and the one behind the last; the same where there is none."""
        used = self.weight != 0
        position = self.start[:, None] + torch.arange(self.weight.shape[1])
        if not used.any():
            return 0, 0
        return int(position[used].min()), int(position[used].max()) + 1

    def is_slice(self) -> bool:
        """Whether the outputs are neighbouring inputs as they are."""
        # Where only one input has a part in an output, its weight is 1.
        return self.weight.shape[1] == 1 and torch.equal(self.start, self.start[0] + torch.arange(self.out))

    def matrix(self, first: int, last: int) -> Tensor:
        """Return the matrix, ``(out, last - first)`` in float64, of inputs ``first:last``, which are all that count."""
        dense = self.weight.new_zeros(self.out, self.n).scatter_add_(1, self.columns(), self.weight)
        return dense[:, first:last]

    def columns(self) -> Tensor:
        """The input that each weight belongs to, ``(out, width)``."""
        return self.start[:, None] + torch.arange(self.weight.shape[1])

    def taps(self) -> tuple[Tensor, Tensor]:
        """Return inputs and weights, both ``(out, width)``, none of which is zero in a row that has any.

        A product with zero is not harmless where the other factor is infinite. A weight of zero is replaced by a part
        of the row's largest, at its place.
        """
        largest = self.weight.abs().argmax(1, keepdim=True)
        is_zero = self.weight == 0
        index = torch.where(is_zero, self.start[:, None] + largest, self.columns())
        shared = self.weight.gather(1, largest) / (1 + is_zero.sum(1, keepdim=True))
        shares = is_zero.scatter(1, largest, True)
        return index, torch.where(shares, shared, self.weight)

    def transposed(self) -> 'Axis':
        """Return the transposed matrix: it takes the gradient of the outputs to that of the inputs."""
        dense = self.matrix(0, self.n).t()  # (n, out)
        used = dense != 0
        begin = used.int().argmax(1)
        end = self.out - used.flip(1).int().argmax(1)
        width = int(torch.where(used.any(1), end - begin, 1).max())
        begin = begin.clamp(max=self.out - width)
        return Axis(self.out, begin, dense.gather(1, begin[:, None] + torch.arange(width)))


def _linear_taps(n: int, out: int, align_corners: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Each output's two inputs and their weights, ``(out, 2)``, rounded as torch rounds for maps of the dtype."""
    position = torch.arange(out, dtype=torch.float64)
    if align_corners:
        position = position * _rounded((n - 1) / (out - 1) if out > 1 else 0.0, dtype)
    else:
        # Rounded once, below: torch is compiled to fuse the product with the difference.
        position = ((position + 0.5) * _rounded(n / out, dtype) - 0.5).clamp(min=0)
    position = position.to(dtype)
    first = position.long().clamp(max=n - 1)
    fraction = (position - first).clamp(max=1)
    index = torch.stack([first, (first + 1).clamp(max=n - 1)], dim=1)
    return index, torch.stack([1 - fraction, fraction], dim=1).double()


def _rounded(value: float, dtype: torch.dtype) -> float:
    return torch.tensor(value, dtype=dtype).item()
