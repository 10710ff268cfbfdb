"""A convolution over upsampled and concatenated maps that builds neither the upsampled maps nor the concatenation.

PSPNet (arXiv:1612.01105), UPerNet (arXiv:1807.10221), SegFormer (arXiv:2105.15203), HRNet (arXiv:1908.07919) and
DeepLabV3+ (arXiv:1802.02611) compute ``conv2d(concat(upsample(x_i)))``. Both operators are linear, so the convolution
is a sum over the levels ``x_i``, and that of a small level can move below the upsampling: the taps of its kernel become
1x1 convolutions at the level's own size, whose results are interpolated, each shifted by its tap, onto the output. The
result is the same for every kernel, dilation and level size; the arithmetic shrinks with the level's area.

``pyramid_place.py`` does the placing. In half precision only levels of a few pixels are treated so, in another way
(``pyramid_half.py``), and the others are upsampled.
"""

from collections.abc import Sequence
from itertools import compress

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import pyramid_half
from .placing import Placing
from .pointwise_conv import is_product, pointwise_conv2d
from .precision import full_precision
from .pyramid_half import conv_with_pixel_maps
from .pyramid_place import add_level, add_level_gradients, add_level_plainly


def pyramid_conv2d(
    levels: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    size: Sequence[int] | None = None,
    dilation: int = 1,
    align_corners: bool = False,
    below: Sequence[bool] | None = None,
) -> Tensor:
    """Compute ``conv2d(concat(upsample(level) for level in levels))`` with zero padding that keeps the size.

    Args:
        levels: maps ``(B, C_i, H_i, W_i)`` of any sizes.
        weight: ``(C_out, sum of C_i, k, k)``, ``k`` odd.
        bias: ``(C_out,)``.
        size: ``(H, W)`` of the output, to which every level is interpolated bilinearly; None: the first level's.
        dilation: of the convolution.
        align_corners: as in ``torch.nn.functional.interpolate``.
        below: which levels are convolved below the upsampling; None: those for which it is cheaper.

    Returns:
        ``(B, C_out, H, W)``.

    Raises:
        ValueError: the channels of weight and levels differ, or the kernel is not square and odd.
    """
    channels = [level.shape[1] for level in levels]
    kernel_size = weight.shape[2]
    if sum(channels) != weight.shape[1]:
        raise ValueError(f'the levels have {channels} channels, in sum {sum(channels)}, the weight {weight.shape[1]}')
    if kernel_size % 2 == 0 or kernel_size != weight.shape[3]:
        raise ValueError(f'the kernel is {tuple(weight.shape[2:])}, it must be square and odd')
    size = tuple(levels[0].shape[2:] if size is None else size)
    placings = [Placing(tuple(level.shape[2:]), size, kernel_size, dilation, align_corners) for level in levels]
    dtype = _compute_dtype(levels[0])
    half = dtype in (torch.float16, torch.bfloat16)
    if below is None:
        below = [_saves(*level, weight, half) for level in zip(placings, levels, strict=True)]
    direct = [
        level
        if level.shape[2:] == size
        else F.interpolate(level, size=size, mode='bilinear', align_corners=align_corners)
        for level, low in zip(levels, below, strict=True)
        if not low
    ]
    if not any(below):
        return _direct_conv(_concat(direct), weight, bias, placings[0])
    lows, placings = list(compress(levels, below)), list(compress(placings, below))
    if half:
        direct_weights, low_weights = _weight_slices(weight, channels, below)
        with torch.autocast(weight.device.type, enabled=False):
            return conv_with_pixel_maps(direct, direct_weights, bias, lows, low_weights, placings, dtype)
    arguments = channels, below, placings, _concat(direct), weight, bias, *lows
    return _plain_ops(*arguments) if torch.compiler.is_compiling() else _PyramidConv.apply(*arguments)


class PyramidConv2d(nn.Conv2d):
    """:func:`pyramid_conv2d` as a layer, with the parameters of the convolution over the concatenation.

    Args:
        in_channels: channels of each level.
        out_channels, kernel_size, dilation, bias: of the convolution.
        align_corners: of the interpolation.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        kernel_size: int = 3,
        dilation: int = 1,
        bias: bool = True,
        align_corners: bool = False,
    ):
        padding = kernel_size // 2 * dilation
        super().__init__(sum(in_channels), out_channels, kernel_size, padding=padding, dilation=dilation, bias=bias)
        self.align_corners = align_corners

    def forward(self, levels: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
        """Map levels ``(B, C_i, H_i, W_i)`` to ``(B, out_channels, *size)``; ``size`` None: the first level's."""
        return pyramid_conv2d(
            levels,
            self.weight,
            self.bias,
            size=size,
            dilation=self.dilation[0],
            align_corners=self.align_corners,
        )


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The type that a convolution of ``x`` is computed in."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _saves(placing: Placing, level: Tensor, weight: Tensor, half: bool) -> bool:
    if not all(isinstance(length, int) for length in (*placing.low, *placing.size)):
        return False  # a size that a compiler or a trace leaves open
    if half:
        return pyramid_half.saves(placing, level.shape[1], weight.shape[1])
    channels_last = not level.is_contiguous() and level.is_contiguous(memory_format=torch.channels_last)
    return placing.saves(len(level), level.shape[1], len(weight), channels_last)


def _concat(parts: Sequence[Tensor]) -> Tensor | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _weight_slices(weight: Tensor, channels: Sequence[int], below: Sequence[bool]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weight's slices of the levels that are convolved directly, and of those below."""
    slices = weight.split(channels, dim=1)
    return [part for part, low in zip(slices, below, strict=True) if not low], list(compress(slices, below))


def _plain_ops(channels, below, placings, direct, weight, bias, *lows) -> Tensor:
    """The same in differentiable operators: for compilers, for export, and for second derivatives."""
    direct_weights, low_weights = _weight_slices(weight, channels, below)
    parts = [add_level_plainly(*level) for level in zip(lows, low_weights, placings, strict=True)]
    if direct is not None:
        parts.append(_direct_conv(direct, _concat(direct_weights), bias, placings[0]))
    elif bias is not None:
        parts.append(bias[:, None, None])
    return sum(parts)


def _direct_conv(direct: Tensor, weight: Tensor, bias: Tensor | None, placing: Placing) -> Tensor:
    if placing.kernel_size == 1:
        return pointwise_conv2d(direct, weight, bias)
    return F.conv2d(direct, weight, bias, padding=placing.padding, dilation=placing.dilation)


def _direct_gradients(
    grad: Tensor, direct: Tensor, weight: Tensor, placing: Placing, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the input and the weight of :func:`_direct_conv`, those that are needed."""
    if is_product(direct, weight) and grad.is_contiguous():
        flat, maps = grad.flatten(2), direct.flatten(2)
        grad_direct = grad_weight = None
        if needed[0]:
            grad_direct = torch.bmm(weight.flatten(1).t().expand(len(flat), -1, -1), flat).view_as(direct)
        if needed[1]:
            grad_weight = sum(g @ x.t() for g, x in zip(flat, maps, strict=True)).view_as(weight)
        return grad_direct, grad_weight
    padding, dilation = [placing.padding] * 2, [placing.dilation] * 2
    return torch.ops.aten.convolution_backward(
        grad, direct, weight, None, [1, 1], padding, dilation, False, [0, 0], 1, (*needed, False)
    )[:2]


class _PyramidConv(torch.autograd.Function):
    """Keeps the levels and the weight, and of the output's size only what is convolved directly."""

    @staticmethod
    def forward(ctx, channels, below, placings, direct, weight, bias, *lows) -> Tensor:
        ctx.channels, ctx.below, ctx.placings = channels, below, placings
        ctx.save_for_backward(direct, weight, bias, *lows)
        direct_weights, low_weights = _weight_slices(weight, channels, below)
        if direct is not None:
            out = _direct_conv(direct, _concat(direct_weights), bias, placings[0])
        else:
            out = lows[0].new_zeros(len(lows[0]), len(weight), *placings[0].size)
            if bias is not None:
                out += bias[:, None, None]
        with full_precision(out.device):
            for level in zip(lows, low_weights, placings, strict=True):
                add_level(out, *level)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        channels, below, placings = ctx.channels, ctx.below, ctx.placings
        direct, weight, bias, *lows = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            out = _plain_ops(channels, below, placings, direct, weight, bias, *lows)
            wanted = list(compress((direct, weight, bias, *lows), needed))
            grads = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
            return None, None, None, *(next(grads) if need else None for need in needed)
        if not grad.is_contiguous() and not grad.is_contiguous(memory_format=torch.channels_last):
            grad = grad.contiguous()
        direct_weights, low_weights = _weight_slices(weight, channels, below)
        grad_direct = grad_of_direct_weight = None
        if direct is not None:
            grad_direct, grad_of_direct_weight = _direct_gradients(
                grad, direct, _concat(direct_weights), placings[0], needed[:2]
            )
        # One gradient of the whole weight, filled in place: it is the largest tensor of all.
        grad_weight = torch.zeros_like(weight)
        direct_slices, low_slices = _weight_slices(grad_weight, channels, below)
        if grad_of_direct_weight is not None:
            widths = [part.shape[1] for part in direct_slices]
            for part, values in zip(direct_slices, grad_of_direct_weight.split(widths, dim=1), strict=True):
                part.copy_(values)
            del grad_of_direct_weight
        with full_precision(grad.device):
            grad_lows = [
                add_level_gradients(part, grad, *level)
                for part, *level in zip(low_slices, lows, low_weights, placings, strict=True)
            ]
        grad_bias = grad.sum((0, 2, 3)) if needed[2] else None
        return None, None, None, grad_direct, grad_weight, grad_bias, *grad_lows
