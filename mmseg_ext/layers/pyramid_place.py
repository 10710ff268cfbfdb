"""The part of a convolution that belongs to one small level, computed at the level's size and placed on the output.

For a level ``x`` of ``h x w`` and an output of ``H x W``, with ``k x k`` taps ``W[a, b]``, the part is

    sum over a, b of  R_a (W[a, b] x) C_b^T

where ``R_a`` (``H x h``) and ``C_b`` (``W x w``) are the matrices of the bilinear interpolation, their rows shifted by
the tap, with zeros where the tap lies in the padding. They are banded: a block of output rows needs few of the level's.

``add_level`` and ``add_level_gradients`` do that in place and in pieces that stay in the cache; ``add_level_plainly``
is the same in a few differentiable operators.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .placing import Axis, Placing

# Up to this many pixels, a level's taps are computed without reordering the weight.
_TINY = 256
# Bytes of the taps that are worked on at once: on a CPU less than what a memory allocator gives back to the system.
_CHUNK_BYTES = {'cpu': 2**24}
_LARGE_CHUNK_BYTES = 2**28


def add_level(out: Tensor, x: Tensor, weight: Tensor, placing: Placing) -> None:
    """Add a level's part to the output, in place.

    Args:
        out: ``(B, C_out, H, W)``, contiguous or channels_last.
        x: the level, ``(B, C, h, w)``.
        weight: its slice of the weight, ``(C_out, C, k, k)``.
        placing: where it lies.
    """
    rows, columns = placing.axes(out)
    if out.is_contiguous():
        for part, maps, chunk in _chunks(out, x, weight):
            _add_planes(part, _taps(chunk, maps), rows, columns)
    else:
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
    rows, columns = placing.axes(grad)
    grad_x = torch.zeros_like(x)
    if grad.is_contiguous():
        for part, maps, chunk, grad_maps, grad_chunk in _chunks(grad, x, weight, grad_x, grad_weight):
            grad_taps = _gather_planes(part, rows, columns)  # (k, k, c, h * w)
            k, _, c, _ = grad_taps.shape
            flat = grad_taps.flatten(0, 2)
            grad_chunk += (flat @ maps.flatten(1).t()).view(k, k, c, -1).permute(2, 3, 1, 0)
            grad_maps += (_tap_matrix(chunk).t() @ flat).view_as(grad_maps)
        return grad_x
    matrices = weight.permute(2, 1, 3, 0).flatten(2)
    grad_matrices = torch.zeros_like(matrices)
    pixels = (tensor.permute(0, 2, 3, 1) for tensor in (grad, x, grad_x))
    for part, maps, grad_maps in zip(*pixels, strict=True):
        maps = maps.flatten(0, 1)
        for a, grad_taps in enumerate(_gather_pixels(part, rows, columns)):
            grad_matrices[a].addmm_(maps.t(), grad_taps)
            grad_maps += (grad_taps @ matrices[a].t()).view_as(grad_maps)
    k = len(matrices)
    grad_weight += grad_matrices.view(k, x.shape[1], k, -1).permute(3, 1, 0, 2)
    return grad_x


def _chunks(out: Tensor, x: Tensor, weight: Tensor, *like_x_and_weight: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield, for each image and a few output channels at a time, what belongs together."""
    size = _CHUNK_BYTES.get(x.device.type, _LARGE_CHUNK_BYTES)
    step = max(8, size // (weight.shape[2] ** 2 * x[0, 0].numel() * x.element_size()))
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


def _add_planes(out: Tensor, taps: Tensor, rows: Axis, columns: Axis) -> None:
    """Place ``(k, k, c, h, w)`` on ``(c, H, W)``: columns first, as products of all planes at once."""
    k, _, c, h, _ = taps.shape
    width = out.shape[2]
    wide = out.new_empty(c * h, k, width)
    for a in range(k):
        for band in columns.bands:
            target = wide[:, a, band.start : band.stop]
            for b in range(k):
                source = taps[b, a].flatten(0, 1)[:, band.first : band.last]
                matrix = columns.taps[b, band.start : band.stop, band.first : band.last].t()
                if b == 0:
                    torch.mm(source, matrix, out=target)
                else:
                    target.addmm_(source, matrix)
    wide = wide.view(c, h * k, width)
    for band in rows.bands:
        matrix = rows.interleaved[band.start : band.stop, band.first * k : band.last * k].expand(c, -1, -1)
        source = wide[:, band.first * k : band.last * k]
        if len(rows.bands) == 1:
            out.baddbmm_(matrix, source)
        else:
            out[:, band.start : band.stop] += torch.bmm(matrix, source)


def _gather_planes(grad: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Transpose of :func:`_add_planes`: ``(c, H, W)`` to ``(k, k, c, h * w)``."""
    (k, _, h), w, (c, _, width) = rows.taps.shape, columns.taps.shape[2], grad.shape
    wide = grad.new_zeros(c, h * k, width)
    for band in rows.bands:
        matrix = rows.interleaved[band.start : band.stop, band.first * k : band.last * k].t().expand(c, -1, -1)
        wide[:, band.first * k : band.last * k] += torch.bmm(matrix, grad[:, band.start : band.stop])
    wide = wide.view(c * h, k, width)
    taps = grad.new_zeros(k, k, c * h, w)
    for a in range(k):
        for b in range(k):
            for band in columns.bands:
                matrix = columns.taps[b, band.start : band.stop, band.first : band.last]
                taps[b, a, :, band.first : band.last].addmm_(wide[:, a, band.start : band.stop], matrix)
    return taps.view(k, k, c, h * w)


def _add_pixels(out: Tensor, x: Tensor, matrices: Tensor, rows: Axis, columns: Axis) -> None:
    """Place ``(h, w, C)``, its taps applied by ``(k, C, k * c)``, on ``(H, W, c)``: columns, then rows."""
    (h, w, _), (height, width, c), k = x.shape, out.shape, len(matrices)
    out = out.view(height, width * c)
    for a in range(k):
        taps = (x.flatten(0, 1) @ matrices[a]).view(h, w * k, c)
        wide = torch.bmm(columns.interleaved.expand(h, -1, -1), taps).view(h, width * c)
        for band in rows.bands:
            matrix = rows.taps[a, band.start : band.stop, band.first : band.last]
            out[band.start : band.stop].addmm_(matrix, wide[band.first : band.last])


def _gather_pixels(grad: Tensor, rows: Axis, columns: Axis) -> Iterator[Tensor]:
    """Transpose of :func:`_add_pixels`: yield ``(h * w, k * c)`` for each vertical tap of ``(H, W, c)``."""
    (k, _, h), w, (_, width, c) = rows.taps.shape, columns.taps.shape[2], grad.shape
    for a in range(k):
        wide = grad.new_zeros(h, width * c)
        for band in rows.bands:
            matrix = rows.taps[a, band.start : band.stop, band.first : band.last].t()
            wide[band.first : band.last].addmm_(matrix, grad[band.start : band.stop].flatten(1))
        yield torch.bmm(columns.interleaved.t().expand(h, -1, -1), wide.view(h, width, c)).view(h * w, k * c)


def add_level_plainly(x: Tensor, weight: Tensor, placing: Placing) -> Tensor:
    """Return a level's part of the output in differentiable operators; see :func:`add_level`."""
    (height, width), (h, _), k = placing.size, placing.low, placing.kernel_size
    taps = F.conv2d(x, weight.permute(3, 2, 0, 1).flatten(0, 2)[..., None, None])
    taps = taps.unflatten(1, (k, -1)).unbind(1)  # k times (B, k * C_out, h, w), by horizontal tap
    wide = _shifted_sum(taps, (h, width), placing, axis=3)
    return _shifted_sum(wide.unflatten(1, (k, -1)).unbind(1), (height, width), placing, axis=2)


def _shifted_sum(taps: tuple[Tensor, ...], size: tuple[int, int], placing: Placing, axis: int) -> Tensor:
    """Interpolate each tap to ``size`` and sum them, each shifted along the axis by its place in the kernel."""
    total = 0
    for i, tap in enumerate(taps):
        shift = (i - placing.kernel_size // 2) * placing.dilation
        if abs(shift) >= size[axis - 2]:
            continue
        if tap.shape[2:] != size:
            tap = F.interpolate(tap, size=size, mode='bilinear', align_corners=placing.align_corners)
        total = total + F.pad(tap, (-shift, shift) if axis == 3 else (0, 0, -shift, shift))
    return total
