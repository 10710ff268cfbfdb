"""Split attention (Zhang et al., "ResNeSt: Split-Attention Networks", arXiv:2004.08955, section 3.1).

The layer of the official code, with its state-dict keys. What ours does otherwise:

- the pooled sum of the splits is the sum of the pooled splits, so the splits are never added at full size;
- a map that is ``d`` times denser than native can have one attention for each of its ``d * d`` phases
  (``PhasePool2d``), which the a trous identity of ``dilation.py`` needs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_norm import check_norm_input
from .drop_block import DropBlock2d
from .pooling import AvgPool2d, PhasePool2d, tile_phases


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
        make_conv: builds the convolution; takes torch's arguments.
        make_norm: called with an index (0, 1) and a number of channels; returns a name and a normalisation layer.

    Raises:
        ValueError: an argument is out of range or excludes another.
    """

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
        make_conv: Callable[..., nn.Module] = nn.Conv2d,
        make_norm: Callable[[int, int], tuple[str, nn.Module]] = _batch_norm,
    ):
        super().__init__()
        if radix < 1:
            raise ValueError(f'radix={radix} must be 1 or more')
        if channels % groups:
            raise ValueError(f'channels={channels} must be a multiple of groups={groups}')
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
        x = self.norm0(self.conv(x))
        if self.drop_block is not None:
            x = self.drop_block(x)
        x = F.relu(x, inplace=True)
        attention = self.attention(x).to(x.dtype)  # the softmax is in float32 under autocast
        if self.pool.dilation > 1:
            attention = tile_phases(attention, x)
        x = weighted_sum(x, attention, self.radix)
        if self.avd_layer is not None and not self.avd_first:
            x = self.avd_layer(x)
        return x

    def attention(self, x: Tensor) -> Tensor:
        """Weights of the splits: maps ``(B, radix * channels, H, W)`` to ``(B, radix * channels, d, d)``.

        ``d`` is 1, or the dilation of the pool. Splits are outermost among the channels, as in ``x``.
        """
        x = self.pool(x).unflatten(1, (self.radix, self.channels)).sum(1)
        x = self.fc1(x)
        check_norm_input(self.norm1, x, f'SplAtConv2d.{self.norm1_name}')
        x = self.fc2(F.relu(self.norm1(x)))
        if self.radix == 1:
            return x.sigmoid()
        # fc2 puts the splits inside of the groups: (B, groups, radix, channels / groups, d, d).
        x = x.unflatten(1, (self.groups, self.radix, -1)).softmax(2)
        return x.transpose(1, 2).flatten(1, 3)


def weighted_sum(x: Tensor, attention: Tensor, radix: int) -> Tensor:
    """Sum the splits of ``x``, ``(B, radix * C, H, W)``, each times its attention, which is as large or broadcasts.

    Returns:
        ``(B, C, H, W)``.
    """
    splits, weights = x.chunk(radix, 1), attention.chunk(radix, 1)
    out = splits[0] * weights[0]
    # Not the sum of a product of all splits, which is as large as they are.
    for split, weight in zip(splits[1:], weights[1:], strict=True):
        out = torch.addcmul(out, split, weight)
    return out
