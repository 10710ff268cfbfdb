"""Resizes, crops and flips of a map, and any tile of their result without the rest of it.

Each step is linear and treats rows and columns apart, so that any chain of them is ``R x C^T`` for each channel, with
banded ``R`` (``H_out x h``) and ``C`` (``W_out x w``; ``interpolation.py``): a tile of the output needs a few rows and
columns of the input, and a gradient goes back through the transposed matrices.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .interpolation import Axis
from .products import may_multiply, without_autocast

# Columns of a tile: more of them make the product with the banded matrix denser, fewer make its operands too small.
_TILE_COLUMNS = 128
# Bytes of a tile on a CPU: what stays in the cache from one operator to the next.
_CPU_TILE_BYTES = 2**20
# Elsewhere: so many that a tile is the whole map as a rule, because every operator has to be launched.
_TILE_BYTES = 2**28


class Block(NamedTuple):
    """Outputs ``start:stop`` of an axis, which are a banded matrix times its inputs ``first:last``.

    The matrix is applied as a product with its dense form, which a CPU does fastest, or by its taps: each output the
    sum of a few inputs, each times its weight. Only these can be infinite without harm to other outputs, and are
    computed in their own dtype whatever the settings for products are. With neither, the outputs are the inputs.
    """

    start: int
    stop: int
    first: int
    last: int
    matrix: Tensor | None = None  # (stop - start, last - first)
    taps: tuple[Tensor, Tensor] | None = None  # inputs and weights, (stop - start, width)
    gradient_taps: tuple[Tensor, Tensor] | None = None  # outputs and weights of each input

    @property
    def outputs(self) -> slice:
        return slice(self.start, self.stop)

    @without_autocast
    def rows(self, x: Tensor) -> Tensor:
        """Map ``(C, h, w)`` to the block's rows, ``(C, stop - start, w)``."""
        x = x[:, self.first : self.last]
        if self.taps is not None:
            return _apply(self.taps, x, 1)
        return x if self.matrix is None else self.matrix @ x

    @without_autocast
    def columns(self, x: Tensor) -> Tensor:
        """Map ``(C, H, w)`` to the block's columns, ``(C, H, stop - start)``."""
        x = x[:, :, self.first : self.last]
        if self.taps is not None:
            return _apply(self.taps, x, 2)
        return x if self.matrix is None else (x.flatten(0, 1) @ self.matrix.t()).view(*x.shape[:2], -1)

    @without_autocast
    def add_rows_gradient(self, grad: Tensor, grad_rows: Tensor) -> None:
        """Add to the gradient of ``x``, ``(C, h, w)``, given that of :meth:`rows`."""
        part = grad[:, self.first : self.last]
        if self.taps is not None:
            part += _apply(self.gradient_taps, grad_rows, 1)
        else:
            part += grad_rows if self.matrix is None else self.matrix.t() @ grad_rows

    @without_autocast
    def add_columns_gradient(self, grad: Tensor, grad_columns: Tensor) -> None:
        """Add to the gradient of ``x``, ``(C, H, w)``, contiguous, given that of :meth:`columns`."""
        part = grad[:, :, self.first : self.last]
        if self.taps is not None:
            part += _apply(self.gradient_taps, grad_columns, 2)
        elif self.matrix is None:
            part += grad_columns
        else:
            part.view(-1, part.shape[2]).addmm_(grad_columns.flatten(0, 1), self.matrix)


def _apply(taps: tuple[Tensor, Tensor], x: Tensor, axis: int) -> Tensor:
    index, weight = taps
    picked = x.index_select(axis, index.flatten()).unflatten(axis, index.shape)
    return picked.mul_(weight if axis == x.ndim - 1 else weight[..., None]).sum(axis + 1)


def _blocks(axis: Axis, step: int, like: Tensor, products: bool) -> Iterator[Block]:
    for begin in range(0, axis.out, step):
        part = axis.crop(begin, begin + step)
        first, last = int(part.start.min()), int(part.start.max()) + part.weight.shape[1]
        block = Block(begin, begin + part.out, first, last)
        if part.is_slice():
            yield block
        elif products:
            yield block._replace(matrix=part.matrix(first, last).to(like))
        else:
            part = part._replace(n=last - first, start=part.start - first)
            both = (
                (index.to(like.device), weight.to(like)) for index, weight in (part.taps(), part.transposed().taps())
            )
            yield block._replace(taps=next(both), gradient_taps=next(both))


class _Step(NamedTuple):
    """What a step does to a map, and to the matrices of rows and columns, which are made when they are needed."""

    apply: Callable[[Tensor], Tensor]
    rows: Callable[[Axis], Axis]
    columns: Callable[[Axis], Axis]


class Resampling:
    """A chain of resizes, crops and flips; each method returns the chain with one more step.

    Args:
        size: height and width of the map that the chain starts with.
        dtype: what positions are computed in, as torch does: float64 for float64 maps, float32 for all others.

    Attributes:
        in_size, out_size: height and width of the map in front of the steps and behind them.
    """

    def __init__(self, size: Sequence[int], dtype: torch.dtype = torch.float32):
        self.in_size = self.out_size = tuple(size)
        self._dtype = dtype
        self._steps: tuple[_Step, ...] = ()

    def resize(self, size: Sequence[int], align_corners: bool) -> 'Resampling':
        """As ``torch.nn.functional.interpolate(x, size, mode='bilinear', align_corners=align_corners)``.

        Raises:
            ValueError: a side of the size is not positive.
        """
        size = tuple(size)
        if min(size) < 1:
            raise ValueError(f'size={size}: height and width to resize to must be positive')
        if size == self.out_size:
            return self
        return self._with(
            size,
            lambda x: F.interpolate(x, size, mode='bilinear', align_corners=align_corners),
            lambda rows: rows.resize(size[0], align_corners, self._dtype),
            lambda columns: columns.resize(size[1], align_corners, self._dtype),
        )

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
        return self._with(
            (height - top - bottom, width - left - right),
            lambda x: x[..., top : height - bottom, left : width - right],
            lambda rows: rows.crop(top, height - bottom),
            lambda columns: columns.crop(left, width - right),
        )

    def flip(self, horizontal: bool, vertical: bool) -> 'Resampling':
        """Mirror left and right, top and bottom."""
        axes = [axis for axis, mirrored in ((-2, vertical), (-1, horizontal)) if mirrored]
        return self._with(
            self.out_size,
            lambda x: x.flip(axes),
            lambda rows: rows.flip() if vertical else rows,
            lambda columns: columns.flip() if horizontal else columns,
        )

    def apply(self, x: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to the whole result, ``(B, C, H, W)``, step by step; it can be differentiated."""
        for step in self._steps:
            x = step.apply(x)
        return x

    def tiles(self, channels: int, like: Tensor, products: bool = True) -> tuple[list[Block], list[Block]]:
        """Cut the output into tiles that a device works on well; returns their rows and their columns.

        A tile is ``columns.columns(rows.rows(x))``, for ``x`` of ``in_size`` with that many channels.

        Args:
            channels: of the maps.
            like: a tensor with the dtype and device that the matrices get.
            products: apply them as dense matrices; see :class:`Block`.
        """
        rows, columns = map(Axis.identity, self.in_size)
        for step in self._steps:
            rows, columns = step.rows(rows), step.columns(columns)
        on_cpu = like.device.type == 'cpu'
        width = min(_TILE_COLUMNS, self.out_size[1]) if on_cpu else self.out_size[1]
        height = max(1, (_CPU_TILE_BYTES if on_cpu else _TILE_BYTES) // (channels * width * like.element_size()))
        return list(_blocks(rows, height, like, products)), list(_blocks(columns, width, like, products))

    def _with(self, size: tuple[int, int], *step: Callable) -> 'Resampling':
        result = Resampling(self.in_size, self._dtype)
        result.out_size, result._steps = size, (*self._steps, _Step(*step))
        return result


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return float64 for a float64 map, float32 for all others."""
    return torch.promote_types(x.dtype, torch.float32)


def fits_one_tile(maps: Tensor, size: Sequence[int]) -> bool:
    """Whether maps ``(..., h, w)`` are best resampled to a size as a whole: on an accelerator, if they are not huge."""
    numel = maps[..., 0, 0].numel() * size[0] * size[1]
    return maps.device.type != 'cpu' and numel * compute_dtype(maps).itemsize <= _TILE_BYTES


def stream_tiles(maps: Tensor, resampling: Resampling) -> Iterator[tuple[tuple[int, slice, slice], Tensor]]:
    """Resample maps ``(B, C, h, w)``; yields each tile ``(C, r, c)``, behind its image, rows and columns in the output.

    Its dtype is that of :func:`compute_dtype`. It can be a view of the maps: it must not be changed.
    """
    like = maps.new_empty(0, dtype=compute_dtype(maps))
    whole = fits_one_tile(maps[0], resampling.out_size)
    kept: dict[bool, tuple[list[Block], list[Block]]] = {}
    for image, x in enumerate(maps):
        x = x.to(like)
        if whole:
            yield (image, slice(None), slice(None)), resampling.apply(x[None])[0]
            continue
        products = may_multiply(x)
        if products not in kept:
            kept[products] = resampling.tiles(len(x), like, products)
        rows, columns = kept[products]
        for row in rows:
            strip = row.rows(x)
            for column in columns:
                yield (image, row.outputs, column.outputs), column.columns(strip)
