"""Resizes, crops and flips of a map, composed to one matrix for the rows and one for the columns.

Bilinear interpolation, removing a border and flipping are linear, and each treats rows and columns apart. So any
chain of them is ``R x C^T`` for each channel, with banded ``R`` (``H_out x h``) and ``C`` (``W_out x w``): a tile of
the output needs a few rows and columns of the input, and a gradient goes back through the transposed matrices.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Columns of a tile: more of them make the product with the banded matrix denser, fewer make its operands too small.
_TILE_COLUMNS = 128
# Bytes of a tile. On a CPU: what stays in the cache from one operator to the next; elsewhere: what hides the launches.
_TILE_BYTES = {'cpu': 2**20}
_LARGE_TILE_BYTES = 2**26


class Block(NamedTuple):
    """Outputs ``start:stop`` of an axis, which are ``matrix`` times its inputs ``first:last``; None: those inputs."""

    start: int
    stop: int
    first: int
    last: int
    matrix: Tensor | None

    @property
    def outputs(self) -> slice:
        return slice(self.start, self.stop)

    def rows(self, x: Tensor) -> Tensor:
        """Map ``(C, h, w)`` to the block's rows, ``(C, stop - start, w)``."""
        x = x[:, self.first : self.last]
        return x if self.matrix is None else self.matrix @ x

    def columns(self, x: Tensor) -> Tensor:
        """Map ``(C, H, w)`` to the block's columns, ``(C, H, stop - start)``."""
        x = x[:, :, self.first : self.last]
        return x if self.matrix is None else (x.flatten(0, 1) @ self.matrix.t()).view(*x.shape[:2], -1)

    def add_rows_gradient(self, grad: Tensor, grad_rows: Tensor) -> None:
        """Add to the gradient of ``x``, ``(C, h, w)``, given that of :meth:`rows`."""
        grad[:, self.first : self.last] += grad_rows if self.matrix is None else self.matrix.t() @ grad_rows

    def add_columns_gradient(self, grad: Tensor, grad_columns: Tensor) -> None:
        """Add to the gradient of ``x``, ``(C, H, w)``, contiguous, given that of :meth:`columns`."""
        part = grad[:, :, self.first : self.last]
        if self.matrix is None:
            part += grad_columns
        else:
            part.view(-1, part.shape[2]).addmm_(grad_columns.flatten(0, 1), self.matrix)


class _Axis(NamedTuple):
    """A banded matrix: output ``i`` is ``weight[i]`` times the inputs from ``start[i]`` on, of ``n``."""

    n: int
    start: Tensor  # (out,)
    weight: Tensor  # (out, width), float64

    def resize(self, out: int, align_corners: bool, dtype: torch.dtype) -> '_Axis':
        if out == len(self.start):
            return self
        index, weight = _linear_taps(len(self.start), out, align_corners, dtype)
        positions = self.start[index][..., None] + torch.arange(self.weight.shape[1])  # (out, 2, width)
        values = self.weight[index] * weight[..., None]
        start = positions.amin((1, 2))
        width = int((positions.amax((1, 2)) - start).max()) + 1
        start = start.clamp(max=self.n - width)
        offsets = (positions - start[:, None, None]).flatten(1)
        return _Axis(self.n, start, values.new_zeros(out, width).scatter_add_(1, offsets, values.flatten(1)))

    def crop(self, begin: int, end: int) -> '_Axis':
        return _Axis(self.n, self.start[begin:end], self.weight[begin:end])

    def flip(self) -> '_Axis':
        return _Axis(self.n, self.start.flip(0), self.weight.flip(0))

    def blocks(self, step: int, like: Tensor) -> Iterator[Block]:
        width = self.weight.shape[1]
        for begin in range(0, len(self.start), step):
            start, weight = self.start[begin : begin + step], self.weight[begin : begin + step]
            first, last = int(start.min()), int(start.max()) + width
            # Where only one input has a part in an output, its weight is 1.
            if width == 1 and torch.equal(start, torch.arange(first, last)):
                matrix = None
            else:
                index = start[:, None] - first + torch.arange(width)
                matrix = weight.new_zeros(len(start), last - first).scatter_(1, index, weight).to(like)
            yield Block(begin, begin + len(start), first, last, matrix)


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


class Resampling:
    """A chain of resizes, crops and flips; each method returns the chain with one more step.

    Args:
        size: height and width of the map that the chain starts with.
        dtype: what positions are computed in, as torch does: float64 for float64 maps, float32 for all others.
    """

    def __init__(self, size: Sequence[int], dtype: torch.dtype = torch.float32):
        self._rows, self._columns = (_Axis(n, torch.arange(n), torch.ones(n, 1, dtype=torch.float64)) for n in size)
        self._dtype = dtype

    @property
    def in_size(self) -> tuple[int, int]:
        return self._rows.n, self._columns.n

    @property
    def out_size(self) -> tuple[int, int]:
        return len(self._rows.start), len(self._columns.start)

    def resize(self, size: Sequence[int], align_corners: bool) -> 'Resampling':
        """As ``torch.nn.functional.interpolate(x, size, mode='bilinear', align_corners=align_corners)``.

        Raises:
            ValueError: a side of the size is not positive.
        """
        if min(size) < 1:
            raise ValueError(f'size={tuple(size)}: height and width to resize to must be positive')
        rows = self._rows.resize(size[0], align_corners, self._dtype)
        return self._with(rows, self._columns.resize(size[1], align_corners, self._dtype))

    def crop(self, top: int, bottom: int, left: int, right: int) -> 'Resampling':
        """Remove that many rows and columns at each border.

        Raises:
            ValueError: a number is negative, or nothing would be left.
        """
        height, width = self.out_size
        if min(top, bottom, left, right) < 0 or top + bottom >= height or left + right >= width:
            raise ValueError(
                f'top={top}, bottom={bottom}, left={left}, right={right}: cannot be removed from a map of '
                f'{height}x{width}; give the padding that was added'
            )
        return self._with(self._rows.crop(top, height - bottom), self._columns.crop(left, width - right))

    def flip(self, horizontal: bool, vertical: bool) -> 'Resampling':
        """Mirror left and right, top and bottom."""
        return self._with(
            self._rows.flip() if vertical else self._rows, self._columns.flip() if horizontal else self._columns
        )

    def tiles(self, channels: int, like: Tensor) -> tuple[list[Block], list[Block]]:
        """Cut the output into tiles that a device works on well; returns their rows and their columns.

        A tile is ``columns.columns(rows.rows(x))``, for ``x`` of ``in_size`` with that many channels.

        Args:
            channels: of the maps.
            like: a tensor with the dtype and device that the matrices get.
        """
        width = min(_TILE_COLUMNS, self.out_size[1])
        size = _TILE_BYTES.get(like.device.type, _LARGE_TILE_BYTES)
        height = max(1, size // (channels * width * like.element_size()))
        return list(self._rows.blocks(height, like)), list(self._columns.blocks(width, like))

    def _with(self, rows: _Axis, columns: _Axis) -> 'Resampling':
        result = Resampling.__new__(Resampling)
        result._rows, result._columns, result._dtype = rows, columns, self._dtype
        return result


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return float64 for a float64 map, float32 for all others."""
    return torch.promote_types(x.dtype, torch.float32)


def stream_tiles(maps: Tensor, resampling: Resampling) -> Iterator[tuple[tuple[int, slice, slice], Tensor]]:
    """Resample maps ``(B, C, h, w)``; yields each tile ``(C, r, c)``, behind its image, rows and columns in the output.

    Its dtype is that of :func:`compute_dtype`. It can be a view of the maps: it must not be changed.
    """
    like = maps.new_empty(0, dtype=compute_dtype(maps))
    rows, columns = resampling.tiles(maps.shape[1], like)
    for image in range(len(maps)):
        x = maps[image].to(like)
        for row in rows:
            strip = row.rows(x)
            for column in columns:
                yield (image, row.outputs, column.outputs), column.columns(strip)
