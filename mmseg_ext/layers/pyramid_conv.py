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
from .precision import full_precision
from .pyramid_half import conv_with_pixel_maps
from .pyramid_place import Placing, add_level, add_level_plainly, level_gradients


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
        return F.conv2d(_concat(direct), weight, bias, padding=placings[0].padding, dilation=dilation)
    weights = weight.split(channels, dim=1)
    direct_weights = [part for part, low in zip(weights, below, strict=True) if not low]
    lows, low_weights, placings = (list(compress(values, below)) for values in (levels, weights, placings))
    if half:
        with torch.autocast(weight.device.type, enabled=False):
            return conv_with_pixel_maps(direct, direct_weights, bias, lows, low_weights, placings, dtype)
    direct, direct_weight = _concat(direct), _concat(direct_weights)
    if torch.compiler.is_compiling():
        return _plain_ops(direct, direct_weight, bias, lows, low_weights, placings)
    return _PyramidConv.apply(placings, direct, direct_weight, bias, *lows, *low_weights)


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
    return placing.saves(len(level), level.shape[1], len(weight))


def _concat(parts: Sequence[Tensor]) -> Tensor | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _plain_ops(direct, direct_weight, bias, lows, low_weights, placings) -> Tensor:
    """The same in differentiable operators: for compilers, for export, and for second derivatives."""
    parts = [add_level_plainly(*level) for level in zip(lows, low_weights, placings, strict=True)]
    if direct is not None:
        parts.append(_direct_conv(direct, direct_weight, bias, placings[0]))
    elif bias is not None:
        parts.append(bias[:, None, None])
    return sum(parts)


def _direct_conv(direct: Tensor, weight: Tensor, bias: Tensor | None, placing: Placing) -> Tensor:
    return F.conv2d(direct, weight, bias, padding=placing.padding, dilation=placing.dilation)


class _PyramidConv(torch.autograd.Function):
    """Keeps the levels and the weight, and of the output's size only what is convolved directly."""

    @staticmethod
    def forward(ctx, placings, direct, direct_weight, bias, *lows_and_weights) -> Tensor:
        ctx.placings = placings
        ctx.save_for_backward(direct, direct_weight, bias, *lows_and_weights)
        lows, weights = lows_and_weights[: len(placings)], lows_and_weights[len(placings) :]
        if direct is not None:
            out = _direct_conv(direct, direct_weight, bias, placings[0])
        else:
            out = lows[0].new_zeros(len(lows[0]), len(weights[0]), *placings[0].size)
            if bias is not None:
                out += bias[:, None, None]
        with full_precision(out.device):
            for level in zip(lows, weights, placings, strict=True):
                add_level(out, *level)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        placings, (direct, direct_weight, bias, *lows_and_weights) = ctx.placings, ctx.saved_tensors
        lows, weights = lows_and_weights[: len(placings)], lows_and_weights[len(placings) :]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return None, *_differentiable_gradients(grad, needed, direct, direct_weight, bias, lows, weights, placings)
        if not grad.is_contiguous() and not grad.is_contiguous(memory_format=torch.channels_last):
            grad = grad.contiguous()
        grads = [None, None, None]
        if direct is not None:
            padding, dilation = [placings[0].padding] * 2, [placings[0].dilation] * 2
            grads[:2] = torch.ops.aten.convolution_backward(
                grad, direct, direct_weight, None, [1, 1], padding, dilation, False, [0, 0], 1, (*needed[:2], False)
            )[:2]
        if needed[2]:
            grads[2] = grad.sum((0, 2, 3))
        with full_precision(grad.device):
            levels = [level_gradients(grad, *level) for level in zip(lows, weights, placings, strict=True)]
        return None, *grads, *(grad_x for grad_x, _ in levels), *(grad_weight for _, grad_weight in levels)


def _differentiable_gradients(grad, needed, direct, direct_weight, bias, lows, weights, placings):
    inputs = [direct, direct_weight, bias, *lows, *weights]
    out = _plain_ops(direct, direct_weight, bias, lows, weights, placings)
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
    grads = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return [next(grads) if need else None for need in needed]
