"""A convolution over upsampled and concatenated maps that builds neither the upsampled maps nor the concatenation.

PSPNet (arXiv:1612.01105), UPerNet (arXiv:1807.10221), SegFormer (arXiv:2105.15203), HRNet (arXiv:1908.07919) and
DeepLabV3+ (arXiv:1802.02611) compute ``conv2d(concat(upsample(x_i)))``. Both operators are linear, so the convolution
is a sum over the levels ``x_i``, and that of a small level can move below the upsampling: the taps of its kernel become
1x1 convolutions at the level's own size, whose results are interpolated, each shifted by its tap, onto the output. The
result is the same for every kernel, dilation and level size; the arithmetic shrinks with the level's area.

``pyramid_products.py`` does that on a CPU. Everywhere else, and where something other than a plain pass looks at the
operators (``eager.py``), it is made of torch's own operators. In half precision only levels of a few pixels are treated
so, on a CPU and in another way (``pyramid_half.py``), and the others are upsampled.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import pyramid_half
from .eager import is_eager
from .measured import measured_choice
from .pointwise_conv import is_product, pointwise_conv2d
from .products import may_multiply, without_autocast
from .pyramid_half import conv_with_pixel_maps
from .pyramid_level import Placing
from .pyramid_products import add_level, add_level_gradients


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
        below: which levels are convolved below the upsampling; None: those for which it is cheaper. On an accelerator
            that is measured, once for each kind of call (``measured.py``), and none where it can't be.

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
    compute = partial(_pyramid_conv2d, levels, weight, bias, placings)
    if below is None:
        below = [_saves(*level, weight) for level in zip(placings, levels, strict=True)]
        if any(below) and weight.device.type != 'cpu':
            below = _measured(compute, below, [*levels, weight], placings)
    return compute(below)


def _measured(
    compute: Callable, below: Sequence[bool], inputs: Sequence[Tensor], placings: Sequence[Placing]
) -> Sequence[bool]:
    none = [False] * len(below)
    if not is_eager(*inputs):
        return none
    ways = [none, below]
    key = (
        _compute_dtype(inputs[0]),
        *placings,
        *((x.shape, x.requires_grad, x.is_contiguous()) for x in inputs),
    )
    return ways[measured_choice(key, [partial(compute, way) for way in ways], inputs)]


def _pyramid_conv2d(
    levels: Sequence[Tensor], weight: Tensor, bias: Tensor | None, placings: Sequence[Placing], below: Sequence[bool]
) -> Tensor:
    dtype = _compute_dtype(levels[0])
    half = dtype in (torch.float16, torch.bfloat16)
    eager = is_eager(*levels, weight, bias)
    if half and eager and not all(level.isfinite().all() for level in compress(levels, below)):
        below = [False] * len(below)
    direct = [
        upsampled(level, placing.size, placing.align_corners)
        for level, placing, low in zip(levels, placings, below, strict=True)
        if not low
    ]
    if half and any(below):
        return _with_pixel_maps(direct, levels, weight, bias, placings, below, dtype)
    direct = _concat(direct)
    if not any(below):
        return _direct_conv(direct, weight, bias, placings[0])
    channels = [level.shape[1] for level in levels]
    lows, placings = list(compress(levels, below)), list(compress(placings, below))
    compute = _PyramidConv.apply if eager and may_multiply(*lows) else _plain_ops
    return compute(channels, below, placings, direct, weight, bias, *lows)


def _with_pixel_maps(direct, levels, weight, bias, placings, below, dtype) -> Tensor:
    lows, placings = list(compress(levels, below)), list(compress(placings, below))
    direct_weights, low_weights = _weight_slices(weight, [level.shape[1] for level in levels], below)
    with torch.autocast(weight.device.type, enabled=False):
        return conv_with_pixel_maps(direct, direct_weights, bias, lows, low_weights, placings, dtype)


def upsampled(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Interpolate ``(B, C, h, w)`` bilinearly to ``(B, C, *size)``; what has that size already stays as it is."""
    if _are_equal(x.shape[2:], size):
        return x
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=align_corners)


def _are_equal(one: Sequence[int], other: Sequence[int]) -> bool:
    if any(isinstance(length, torch.SymInt) for length in (*one, *other)):
        # A comparison would tie an exported program to its outcome.
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return all(statically_known_true(a == b) for a, b in zip(one, other, strict=True))
    return tuple(one) == tuple(other)


def concat_levels(levels: Sequence[Tensor], size: Sequence[int] | None = None, *, align_corners: bool) -> Tensor:
    """Upsample maps ``(B, C_i, H_i, W_i)`` to one size, None for the first's, and concatenate their channels."""
    size = levels[0].shape[2:] if size is None else size
    return _concat([upsampled(level, size, align_corners) for level in levels])


class PyramidConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` that also takes the levels of a pyramid, in place of their concatenation.

    Its parameters are torch's. Levels are treated as in :func:`pyramid_conv2d` where the convolution keeps the size of
    its input (stride 1, one group, zero padding, a square and odd kernel), and are upsampled and concatenated
    elsewhere.

    Args:
        in_channels: of the concatenation, or of each level.
        out_channels, kernel_size, stride, dilation: as in torch.
        padding: None keeps the size of the map, at stride 1 and with an odd kernel.
        align_corners: of the interpolation, unless the call says otherwise.
        kwargs: torch's other arguments.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        *,
        align_corners: bool = False,
        **kwargs,
    ):
        channels = in_channels if isinstance(in_channels, int) else sum(in_channels)
        padding = kernel_size // 2 * dilation if padding is None else padding
        super().__init__(channels, out_channels, kernel_size, stride, padding, dilation, **kwargs)
        self.align_corners = align_corners

    def forward(
        self, x: Tensor | Sequence[Tensor], size: Sequence[int] | None = None, align_corners: bool | None = None
    ) -> Tensor:
        """Map levels ``(B, C_i, H_i, W_i)`` to ``(B, out_channels, H, W)``, or one map as torch does.

        Args:
            x: the levels, or their concatenation.
            size: to which the levels are interpolated bilinearly; None: the first level's.
            align_corners: as in ``torch.nn.functional.interpolate``; None: the layer's.
        """
        align_corners = self.align_corners if align_corners is None else align_corners
        if isinstance(x, Tensor):
            return super().forward(x)
        if not self._keeps_size():
            return super().forward(concat_levels(x, size, align_corners=align_corners))
        return pyramid_conv2d(
            x, self.weight, self.bias, size=size, dilation=self.dilation[0], align_corners=align_corners
        )

    def _keeps_size(self) -> bool:
        kernel_size, dilation = self.kernel_size[0], self.dilation[0]
        return (
            self.stride == (1, 1)
            and self.groups == 1
            and self.padding_mode == 'zeros'
            and self.dilation == (dilation, dilation)
            and self.kernel_size == (kernel_size, kernel_size)
            and kernel_size % 2 == 1
            and self.padding in ((kernel_size // 2 * dilation,) * 2, 'same')
        )


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The type that a convolution of ``x`` is computed in."""
    if not x.is_meta and torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _saves(placing: Placing, level: Tensor, weight: Tensor) -> bool:
    if not all(isinstance(length, int) for length in (*placing.low, *placing.size)):
        return False  # a size that a compiler or a trace leaves open
    if _compute_dtype(level) in (torch.float16, torch.bfloat16):
        # It goes image by image and looks at the numbers, neither of which suits an accelerator.
        return weight.device.type == 'cpu' and pyramid_half.saves(placing, level.shape[1], weight.shape[1])
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
    """The sum over the levels in torch's own operators."""
    direct_weights, low_weights = _weight_slices(weight, channels, below)
    parts = [_level_part(*level) for level in zip(lows, low_weights, placings, strict=True)]
    if direct is not None:
        parts.append(_direct_conv(direct, _concat(direct_weights), bias, placings[0]))
    elif bias is not None:
        parts.append(bias[:, None, None])
    return sum(parts)


def _level_part(x: Tensor, weight: Tensor, placing: Placing) -> Tensor:
    """Return a level's part of the output in differentiable operators."""
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
        tap = upsampled(tap, size, placing.align_corners)
        total = total + F.pad(tap, (-shift, shift) if axis == 3 else (0, 0, -shift, shift))
    return total


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
    @without_autocast
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
        for level in zip(lows, low_weights, placings, strict=True):
            add_level(out, *level)
        return out

    @staticmethod
    @without_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        channels, below, placings = ctx.channels, ctx.below, ctx.placings
        direct, weight, bias, *lows = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        differentiable = torch.is_grad_enabled()
        if differentiable or not (is_eager(grad) and may_multiply()):
            with torch.enable_grad():
                # Views, because one input can be a function of another.
                views = [x if x is None else x.view_as(x) for x in (direct, weight, bias, *lows)]
                out = _plain_ops(channels, below, placings, *views)
            wanted = list(compress(views, needed))
            grads = iter(torch.autograd.grad(out, wanted, grad, create_graph=differentiable))
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
        grad_lows = [
            add_level_gradients(part, grad, *level)
            for part, *level in zip(low_slices, lows, low_weights, placings, strict=True)
        ]
        grad_bias = grad.sum((0, 2, 3)) if needed[2] else None
        return None, None, None, grad_direct, grad_weight, grad_bias, *grad_lows
