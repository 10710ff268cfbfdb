"""Split attention (Zhang et al., "ResNeSt: Split-Attention Networks", arXiv:2004.08955, section 3.1).

The layer of the official code, with its state-dict keys. What ours does otherwise:

- the pooled sum of the splits is the sum of the pooled splits, so the splits are never added at full size;
- the weighted sum runs into one map, without a product of all splits;
- the normalised and rectified splits, the largest maps of the block, aren't kept for the backward pass but
  normalised again from the convolution's output, which is kept anyway (under plain batch normalisation);
- a map that is ``d`` times denser than native can have one attention for each of its ``d * d`` phases
  (``PhasePool2d``), which the a trous identity of ``dilation.py`` needs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_norm import batch_norm, check_norm_input
from .drop_block import DropBlock2d
from .pooling import AvgPool2d, PhasePool2d, tile_phases
from .rectified_conv import RectifiedConv2d


def _batch_norm(index: int, channels: int) -> tuple[str, nn.Module]:
    return f'bn{index}', nn.BatchNorm2d(channels)


class SplAtConv2d(nn.Module):
    """Split-attention convolution: maps ``(B, in_channels, H, W)`` to ``(B, channels, H', W')``.

    Args:
        in_channels, channels, kernel_size, stride, padding, dilation, bias: of the convolution, as in torch.
        groups: the cardinality: number of groups of channels with an attention of their own.
        radix: number of splits in each group; 1 makes it a gate.
        reduction_factor: the attention's hidden width is ``in_channels * radix / reduction_factor``, but at least 32.
        avd: let an average pool of 3x3 take the convolution's stride (section 3.2, "average downsampling").
        avd_first: put the pool in front of the convolution.
        dropblock_prob: rate of ``DropBlock2d`` behind the first normalisation.
        rectify: use ``RectifiedConv2d``.
        rectify_avg: its averaging form.
        make_conv: builds the convolution; takes torch's arguments.
        make_norm: called with an index (0, 1) and a number of channels; returns a name and a normalisation layer.

    Raises:
        ValueError: an argument is out of range or excludes another.
    """

    # Where the layer is in its network, for error messages; the network sets it.
    path = 'SplAtConv2d'

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        radix: int = 2,
        reduction_factor: int = 4,
        avd: bool = False,
        avd_first: bool = False,
        dropblock_prob: float = 0.0,
        rectify: bool = False,
        rectify_avg: bool = False,
        make_conv: Callable[..., nn.Module] = nn.Conv2d,
        make_norm: Callable[[int, int], tuple[str, nn.Module]] = _batch_norm,
    ):
        super().__init__()
        if radix < 1:
            raise ValueError(f'radix={radix} must be 1 or more')
        if channels % groups:
            raise ValueError(f'channels={channels} must be a multiple of groups={groups}')
        if rectify:
            if make_conv is not nn.Conv2d:
                raise ValueError(f'rectify=True and make_conv={make_conv} both choose the convolution: drop one')
            conv_kwargs = dict(average=rectify_avg)
            make_conv = RectifiedConv2d
        else:
            conv_kwargs = {}
        self.radix = radix
        self.groups = groups
        self.channels = channels
        self.avd_first = avd_first
        self.avd_layer = AvgPool2d(3, stride, padding=1) if avd else None
        hidden = max(in_channels * radix // reduction_factor, 32)
        self.conv = make_conv(
            in_channels,
            channels * radix,
            kernel_size,
            stride=1 if avd else stride,
            padding=padding,
            dilation=dilation,
            groups=groups * radix,
            bias=bias,
            **conv_kwargs,
        )
        self.norm0_name, norm0 = make_norm(0, channels * radix)
        self.add_module(self.norm0_name, norm0)
        self.drop_block = DropBlock2d(dropblock_prob) if dropblock_prob > 0 else None
        self.pool = PhasePool2d()
        self.fc1 = nn.Conv2d(channels, hidden, 1, groups=groups)
        self.norm1_name, norm1 = make_norm(1, hidden)
        self.add_module(self.norm1_name, norm1)
        self.fc2 = nn.Conv2d(hidden, channels * radix, 1, groups=groups)

    @property
    def norm0(self) -> nn.Module:
        return getattr(self, self.norm0_name)

    @property
    def norm1(self) -> nn.Module:
        return getattr(self, self.norm1_name)

    @property
    def strided_layer(self) -> nn.Module:
        """The layer that carries the stride."""
        return self.conv if self.avd_layer is None else self.avd_layer

    def spatial_layers(self, phase_wise: bool) -> list[nn.Module]:
        """Layers with a kernel larger than one or a stride, in order, for ``output_stride.Unit``.

        Under ``phase_wise`` the attention's pool is one of them: a denser map then has an attention for each phase.
        """
        layers = [self.conv, self.pool] if phase_wise else [self.conv]
        if self.avd_layer is None:
            return layers
        return [self.avd_layer, *layers] if self.avd_first else [*layers, self.avd_layer]

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            ValueError: in training, a batch of one leaves batch normalisation in the attention one value a channel.
        """
        if self.avd_layer is not None and self.avd_first:
            x = self.avd_layer(x)
        x = self._attend(self.conv(x))
        if self.avd_layer is not None and not self.avd_first:
            x = self.avd_layer(x)
        return x

    def _attend(self, source: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and source.requires_grad):
            x = F.relu(self._normalise(source), inplace=True)
            return weighted_sum(x, self.attention(x), self.radix)
        dropping = self.drop_block is not None and self.training
        if type(self.norm0) is not nn.BatchNorm2d or dropping:
            x = F.relu(self._normalise(source), inplace=True)
            return _WeightedSum.apply(x, self.attention(x), self.radix, None, x)
        normalised, *statistics = batch_norm(self.norm0, source)
        again = _Again(self.norm0)
        x = _ReLU.apply(normalised, again, source, *statistics)
        return _WeightedSum.apply(x, self.attention(x), self.radix, again, source, *statistics)

    def _normalise(self, source: Tensor) -> Tensor:
        x = self.norm0(source)
        return x if self.drop_block is None else self.drop_block(x)

    def attention(self, x: Tensor) -> Tensor:
        """Weights of the splits: maps ``(B, radix * channels, H, W)`` to ``(B, radix * channels, d, d)``.

        ``d`` is 1, or the dilation of the pool. Splits are outermost among the channels, as in ``x``.
        """
        x = self.pool(x).unflatten(1, (self.radix, self.channels)).sum(1)
        x = self.fc1(x)
        check_norm_input(self.norm1, x, f'{self.path}.{self.norm1_name}')
        x = self.fc2(F.relu(self.norm1(x)))
        if self.radix == 1:
            return x.sigmoid()
        # fc2 puts the splits inside of the groups: (B, groups, radix, channels / groups, d, d).
        x = x.unflatten(1, (self.groups, self.radix, -1)).softmax(2)
        return x.transpose(1, 2).flatten(1, 3)


def weighted_sum(x: Tensor, attention: Tensor, radix: int) -> Tensor:
    """Sum the splits of ``x``, each times its attention.

    Args:
        x: ``(B, radix * C, H, W)``.
        attention: ``(B, radix * C, d, d)``; entry ``(i, j)`` is for the samples ``[i::d, j::d]``.
        radix: number of splits.

    Returns:
        ``(B, C, H, W)`` in the type of ``x``.
    """
    splits = x.unflatten(1, (radix, -1)).unbind(1)
    weights = _tile(attention.to(x.dtype), x).unflatten(1, (radix, -1)).unbind(1)
    out = splits[0] * weights[0]
    for split, weight in zip(splits[1:], weights[1:], strict=True):
        out.addcmul_(split, weight)
    return out


def _tile(attention: Tensor, x: Tensor) -> Tensor:
    """Make the attention broadcast with ``x``."""
    return attention if attention.shape[2] == 1 else tile_phases(attention, *x.shape[2:])


def _sum_phases(x: Tensor, d: int) -> Tensor:
    """Sum ``(B, C, H, W)`` over each phase: ``(B, C, d, d)``."""
    if d == 1:
        return x.sum((2, 3), keepdim=True)
    rows = torch.stack([x[:, :, i::d].sum(2) for i in range(d)], dim=2)
    return torch.stack([rows[..., j::d].sum(3) for j in range(d)], dim=3)


class _Again:
    """Computes the rectified splits from the convolution's output once more, for the two backward passes in need."""

    def __init__(self, norm: nn.BatchNorm2d):
        self.norm = norm
        self.uses_batch = norm.training or norm.running_mean is None
        self.value = None

    def get(self, source: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        if self.value is None:
            norm = self.norm
            if torch.is_grad_enabled() and self.uses_batch:
                # For second derivatives the statistics are a function of the source.
                x = F.batch_norm(source, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
            else:
                x = F.batch_norm(source, mean, var, norm.weight, norm.bias, False, 0.0, norm.eps)
            self.value = x.relu_()
        return self.value

    def pop(self, *saved: Tensor) -> Tensor:
        value, self.value = self.get(*saved), None
        return value


class _ReLU(torch.autograd.Function):
    """Rectification in place that doesn't keep its output."""

    @staticmethod
    def forward(ctx, x: Tensor, again: _Again, *saved: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.again = again
        ctx.save_for_backward(*saved)
        return x.relu_()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.again.pop(*ctx.saved_tensors)
        if torch.is_grad_enabled():
            grad = grad * (x > 0)
        else:
            grad = torch.ops.aten.threshold_backward.grad_input(grad, x, 0, grad_input=x)
        return grad, None, None, None, None


class _WeightedSum(torch.autograd.Function):
    """``weighted_sum`` that keeps ``x``, or what ``again`` computes it from, and no products."""

    @staticmethod
    def forward(ctx, x: Tensor, attention: Tensor, radix: int, again: _Again | None, *saved: Tensor) -> Tensor:
        ctx.radix, ctx.again = radix, again
        ctx.save_for_backward(attention, *saved)
        return weighted_sum(x, attention, radix)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        attention, *saved = ctx.saved_tensors
        x = saved[0] if ctx.again is None else ctx.again.get(*saved)
        splits = x.unflatten(1, (ctx.radix, -1)).unbind(1)
        grad_attention = torch.cat([_sum_phases(split * grad, attention.shape[2]) for split in splits], dim=1)
        weights = _tile(attention.to(grad.dtype), grad).unflatten(1, (ctx.radix, -1))
        if torch.is_grad_enabled():
            grad_x = (grad.unsqueeze(1) * weights).flatten(1, 2)
        else:
            # Not a view, so that autograd can add the pool's gradient in place.
            grad_x = torch.empty_like(x)
            torch.mul(grad.unsqueeze(1), weights, out=grad_x.unflatten(1, (ctx.radix, -1)))
        return grad_x, grad_attention.to(attention.dtype), *(None for _ in range(2 + len(saved)))
