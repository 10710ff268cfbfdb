"""The part of a convolution that belongs to one small level, computed at the level's size and placed on the output.

For a level ``x`` of ``h x w`` and an output of ``H x W``, with ``k x k`` taps ``W[a, b]``, the part is

    sum over a, b of  R_a (W[a, b] x) C_b^T

where ``R_a`` (``H x h``) and ``C_b`` (``W x w``) are the matrices of the bilinear interpolation, their rows shifted by
the tap, with zeros where the tap lies in the padding. They are banded: a block of output rows needs few of the level's.

``add_level`` and ``add_level_gradients`` do that in place, on a CPU, by products with the dense parts of the bands, in
pieces that stay in the cache.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .interpolation import Axis
from .pyramid_level import BAND, Placing

# Up to this many columns, an interpolation matrix is used whole: bands of it would not be faster.
_DENSE = 96
# Up to this many pixels, a level's taps are computed without reordering the weight.
_TINY = 256
# Bytes of the taps that are worked on at once: less than what a memory allocator gives back to the system.
_CHUNK_BYTES = 2**24


class Band(NamedTuple):
    """Outputs ``start:stop`` along an axis, which need the level's ``first:last``, and the matrix of each tap.

    ``taps``: ``(k, stop - start, last - first)``. ``interleaved``: ``(stop - start, (last - first) * k)``, the tap
    innermost.
    """

    start: int
    stop: int
    first: int
    last: int
    taps: Tensor
    interleaved: Tensor


def _bands(placing: Placing, axis: int, dtype: torch.dtype, whole: bool = False) -> list[Band]:
    """The bands of rows (axis 0) or columns (1); ``whole``: one."""
    n, out, k = placing.low[axis], placing.size[axis], placing.kernel_size
    if whole or n * k <= _DENSE:
        step = out
    else:
        # As many rows of the level as of the kernel's reach at least, so that bands don't overlap by much.
        step = max(BAND, -(-8 * out // n))
    return _kept_bands(n, out, k, placing.dilation, placing.align_corners, step, dtype)


@lru_cache(maxsize=64)
def _kept_bands(n, out, kernel_size, dilation, align_corners, step, dtype) -> list[Band]:
    # Made outside of inference mode: what is made inside can't take part in a training step later.
    with torch.inference_mode(False), torch.no_grad():
        plain = Axis.identity(n).resize(out, align_corners, torch.promote_types(dtype, torch.float32))
        taps = [plain.shift((i - kernel_size // 2) * dilation) for i in range(kernel_size)]
        bands = []
        for start in range(0, out, step):
            parts = [tap.crop(start, start + step) for tap in taps]
            inputs = [part.inputs() for part in parts if part.weight.any()] if step < out else [(0, n)]
            first, last = min(first for first, _ in inputs), max(last for _, last in inputs)
            matrices = torch.stack([part.matrix(first, last) for part in parts]).to(dtype)
            interleaved = matrices.permute(1, 2, 0).flatten(1)
            bands.append(Band(start, start + parts[0].out, first, last, matrices, interleaved))
        return bands


def add_level(out: Tensor, x: Tensor, weight: Tensor, placing: Placing) -> None:
    """Add a level's part to the output, in place.

    Args:
        out: ``(B, C_out, H, W)``, contiguous or channels_last.
        x: the level, ``(B, C, h, w)``.
        weight: its slice of the weight, ``(C_out, C, k, k)``.
        placing: where it lies.
    """
    rows = _bands(placing, 0, out.dtype)
    if out.is_contiguous():
        columns = _bands(placing, 1, out.dtype)
        for part, maps, chunk in _chunks(out, x, weight):
            _add_planes(part, _taps(chunk, maps), rows, columns)
    else:
        (columns,) = _bands(placing, 1, out.dtype, whole=True)
        matrices = weight.permute(2, 1, 3, 0).flatten(2)  # (k, C, k * C_out)
        for part, maps in zip(out.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1), strict=True):
            _add_pixels(part, maps, matrices, rows, columns)


def add_level_gradients(grad_weight: Tensor, grad: Tensor, x: Tensor, weight: Tensor, placing: Placing) -> Tensor:
    """Transpose of :func:`add_level`: add to the gradient of ``weight``, and return that of ``x``.

    Args:
        grad_weight: ``(C_out, C, k, k)``; changed in place.
        grad: the gradient of the output, contiguous or channels_last.
        x, weight, placing: as in :func:`add_level`.
    """
    rows = _bands(placing, 0, grad.dtype)
    grad_x = torch.zeros_like(x)
    if grad.is_contiguous():
        columns = _bands(placing, 1, grad.dtype)
        for part, maps, chunk, grad_maps, grad_chunk in _chunks(grad, x, weight, grad_x, grad_weight):
            grad_taps = _gather_planes(part, rows, columns, placing)  # (k, k, c, h * w)
            k, _, c, _ = grad_taps.shape
            flat = grad_taps.flatten(0, 2)
            grad_chunk += (flat @ maps.flatten(1).t()).view(k, k, c, -1).permute(2, 3, 1, 0)
            grad_maps += (_tap_matrix(chunk).t() @ flat).view_as(grad_maps)
        return grad_x
    (columns,) = _bands(placing, 1, grad.dtype, whole=True)
    matrices = weight.permute(2, 1, 3, 0).flatten(2)
    grad_matrices = torch.zeros_like(matrices)
    pixels = (tensor.permute(0, 2, 3, 1) for tensor in (grad, x, grad_x))
    for part, maps, grad_maps in zip(*pixels, strict=True):
        maps = maps.flatten(0, 1)
        for a, grad_taps in enumerate(_gather_pixels(part, rows, columns, placing)):
            grad_matrices[a].addmm_(maps.t(), grad_taps)
            grad_maps += (grad_taps @ matrices[a].t()).view_as(grad_maps)
    k = len(matrices)
    grad_weight += grad_matrices.view(k, x.shape[1], k, -1).permute(3, 1, 0, 2)
    return grad_x


def _chunks(out: Tensor, x: Tensor, weight: Tensor, *like_x_and_weight: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield, for each image and a few output channels at a time, what belongs together."""
    step = max(8, _CHUNK_BYTES // (weight.shape[2] ** 2 * x[0, 0].numel() * x.element_size()))
    for n in range(len(out)):
        for start in range(0, len(weight), step):
            chunk = slice(start, start + step)
            more = (tensor[index] for tensor, index in zip(like_x_and_weight, (n, chunk), strict=False))
            yield out[n, chunk], x[n], weight[chunk], *more


def _tap_matrix(weight: Tensor) -> Tensor:
    """Reorder ``(c, C, k, k)`` to ``(k * k * c, C)``, the horizontal tap outermost."""
    return weight.permute(3, 2, 0, 1).flatten(0, 2)


def _taps(weight: Tensor, x: Tensor) -> Tensor:
    """Apply every tap as a 1x1 convolution: ``(c, C, k, k)`` and ``(C, h, w)`` to ``(k, k, c, h, w)``."""
    (c, _, k, _), (_, h, w) = weight.shape, x.shape
    if k > 1 and h * w <= _TINY:
        # The weight is larger than all else: read it as it lies.
        taps = torch.bmm(weight.flatten(2).transpose(1, 2), x.flatten(1).expand(c, -1, -1))  # (c, k * k, h * w)
        return taps.view(c, k, k, h, w).permute(2, 1, 0, 3, 4).contiguous()
    return (_tap_matrix(weight) @ x.flatten(1)).view(k, k, c, h, w)


def _add_planes(out: Tensor, taps: Tensor, rows: list[Band], columns: list[Band]) -> None:
    """Place ``(k, k, c, h, w)`` on ``(c, H, W)``: columns first, as products of all planes at once."""
    k, _, c, h, _ = taps.shape
    width = out.shape[2]
    wide = out.new_empty(c * h, k, width)
    for a in range(k):
        for band in columns:
            target = wide[:, a, band.start : band.stop]
            for b in range(k):
                source = taps[b, a].flatten(0, 1)[:, band.first : band.last]
                if b == 0:
                    torch.mm(source, band.taps[b].t(), out=target)
                else:
                    target.addmm_(source, band.taps[b].t())
    wide = wide.view(c, h * k, width)
    for band in rows:
        matrix = band.interleaved.expand(c, -1, -1)
        source = wide[:, band.first * k : band.last * k]
        if len(rows) == 1:
            out.baddbmm_(matrix, source)
        else:
            out[:, band.start : band.stop] += torch.bmm(matrix, source)


def _gather_planes(grad: Tensor, rows: list[Band], columns: list[Band], placing: Placing) -> Tensor:
    """Transpose of :func:`_add_planes`: ``(c, H, W)`` to ``(k, k, c, h * w)``."""
    (h, w), k, (c, _, width) = placing.low, placing.kernel_size, grad.shape
    wide = grad.new_zeros(c, h * k, width)
    for band in rows:
        matrix = band.interleaved.t().expand(c, -1, -1)
        wide[:, band.first * k : band.last * k] += torch.bmm(matrix, grad[:, band.start : band.stop])
    wide = wide.view(c * h, k, width)
    taps = grad.new_zeros(k, k, c * h, w)
    for a in range(k):
        for b in range(k):
            for band in columns:
                taps[b, a, :, band.first : band.last].addmm_(wide[:, a, band.start : band.stop], band.taps[b])
    return taps.view(k, k, c, h * w)


def _add_pixels(out: Tensor, x: Tensor, matrices: Tensor, rows: list[Band], columns: Band) -> None:
    """Place ``(h, w, C)``, its taps applied by ``(k, C, k * c)``, on ``(H, W, c)``: columns, then rows."""
    (h, w, _), (height, width, c), k = x.shape, out.shape, len(matrices)
    out = out.view(height, width * c)
    for a in range(k):
        taps = (x.flatten(0, 1) @ matrices[a]).view(h, w * k, c)
        wide = torch.bmm(columns.interleaved.expand(h, -1, -1), taps).view(h, width * c)
        for band in rows:
            out[band.start : band.stop].addmm_(band.taps[a], wide[band.first : band.last])


def _gather_pixels(grad: Tensor, rows: list[Band], columns: Band, placing: Placing) -> Iterator[Tensor]:
    """Transpose of :func:`_add_pixels`: yield ``(h * w, k * c)`` for each vertical tap of ``(H, W, c)``."""
    (h, w), k, (_, width, c) = placing.low, placing.kernel_size, grad.shape
    for a in range(k):
        wide = grad.new_zeros(h, width * c)
        for band in rows:
            wide[band.first : band.last].addmm_(band.taps[a].t(), grad[band.start : band.stop].flatten(1))
        yield torch.bmm(columns.interleaved.t().expand(h, -1, -1), wide.view(h, width, c)).view(h * w, k * c)
