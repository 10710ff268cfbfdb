"""Change the output stride of a live network, forth and back, with its weights untouched.

A network describes itself as a chain of :class:`Unit`; each layer remembers the stride and dilation that it has where
nothing is removed, and :func:`set_output_stride` puts the numbers of ``dilation.py`` into the layers. The result is
exact relative to the network as it was built, however that was (see ``dilation.py``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from .dilation import dilation_plan
from .pooling import AvgPool2d, MaxPool2d, PhasePool2d

_EXACT = (nn.Conv2d, AvgPool2d, MaxPool2d, PhasePool2d)


@dataclass(frozen=True)
class Unit:
    """A stretch of a network with one stride: a residual block, or a layer of a plain network.

    Args:
        branches: parallel paths through the stretch (main path, shortcut), each the layers, in order, that have a
            kernel larger than one or a stride. Exactly one layer of each branch carries the stride, if there is one.
        strided: for each branch, the index of the layer that carries the stride.
        removed: stride that was already taken out when the network was built, 1 for none.
    """

    branches: Sequence[Sequence[nn.Module]]
    strided: Sequence[int]
    removed: int = 1


@dataclass(frozen=True)
class Geometry:
    """Stride and dilation of a layer where no stride is removed; a fraction if it is denser than that already."""

    stride: int
    dilation: Fraction
    padding_per_dilation: Fraction


def _one(layer: nn.Module, name: str, default: int = 1) -> int:
    value = getattr(layer, name, default)
    if isinstance(value, (tuple, list)):
        if len(set(value)) != 1:
            raise ValueError(
                f'{layer}: {name}={tuple(value)} differs between the axes, so its stride cannot be changed'
            )
        value = value[0]
    if not isinstance(value, int):
        raise ValueError(f'{layer}: {name}={value!r} is not a number, so its stride cannot be changed')
    return value


def remember_geometry(units: Sequence[Unit]) -> None:
    """Store on every layer what it would be with all strides in place; called once, when a network is built."""
    density = 1
    for unit in units:
        for branch, strided in zip(unit.branches, unit.strided, strict=True):
            dense = density
            for i, layer in enumerate(branch):
                dilation = _one(layer, 'dilation')
                removed = unit.removed if i == strided else 1
                layer.native_geometry = Geometry(
                    _one(layer, 'stride') * removed,
                    Fraction(dilation, dense),
                    Fraction(_one(layer, 'padding', 0), dilation),
                )
                dense *= removed
        density *= unit.removed


def multiply_dilations(units: Sequence[Unit], multi_grid: Sequence[int]) -> None:
    """Multiply the dilations of the convolutions in the last units' main paths by ``multi_grid``, one factor a unit.

    Chen et al., DeepLabV3, arXiv:1706.05587, section 3.2.1.

    Raises:
        ValueError: there are fewer units than factors.
    """
    if len(multi_grid) > len(units):
        raise ValueError(f'multi_grid={tuple(multi_grid)} has more values than the {len(units)} blocks it is for')
    for unit, factor in zip(units[-len(multi_grid) :], multi_grid, strict=True):
        for layer in unit.branches[0]:
            if isinstance(layer, nn.Conv2d) and _one(layer, 'kernel_size') > 1:
                _assign(layer, 'dilation', _one(layer, 'dilation') * factor)
                _assign(layer, 'padding', _one(layer, 'padding', 0) * factor)


def output_stride(units: Sequence[Unit], stem_stride: int) -> int:
    """Return the present output stride of a network."""
    return stem_stride * math.prod(math.prod(_one(layer, 'stride') for layer in unit.branches[0]) for unit in units)


def unit_stride(unit: Unit) -> int:
    """Native stride of a unit."""
    return unit.branches[0][unit.strided[0]].native_geometry.stride


def set_output_stride(units: Sequence[Unit], output_stride: int, stem_stride: int) -> None:
    """Remove the strides behind ``output_stride`` and dilate what follows, or put them back.

    Args:
        units: the network's chain, in order, as given to :func:`remember_geometry`.
        output_stride: size of the input over size of the output.
        stem_stride: stride of what comes before the first unit; it stays.

    Raises:
        ValueError: the network can't have that output stride: it lacks the strides, or it was built with dilations
            that have no counterpart there. Nothing has been changed then.
    """
    strides = [unit_stride(unit) for unit in units]
    plan = dilation_plan(strides, output_stride, stem_stride=stem_stride)
    changes = []
    for unit, native_stride, block in zip(units, strides, plan, strict=True):
        for branch in unit.branches:
            dense = block.dilation_in
            for layer in branch:
                if not isinstance(layer, _EXACT):
                    raise ValueError(
                        f'output_stride={output_stride}: {layer} cannot be dilated exactly (only plain convolutions '
                        'and the pools of mmseg_ext.layers can); build the network without it'
                    )
                native = layer.native_geometry
                dilation = native.dilation * dense
                kernel_size = _one(layer, 'kernel_size', 0)
                if kernel_size == 1:
                    dilation = Fraction(1)
                if dilation.denominator != 1:
                    raise ValueError(
                        f'output_stride={output_stride}: {layer} would need dilation {dilation}. The network was built '
                        'denser without dilating this layer; build it with `output_stride=` instead to be able to '
                        'go coarser, or keep its output stride'
                    )
                stride = native.stride if block.stride == native_stride else 1
                changes.append((layer, stride, int(dilation), native.padding_per_dilation * dilation))
                dense *= native.stride // stride
    for layer, stride, dilation, padding in changes:
        _assign(layer, 'stride', stride)
        _assign(layer, 'dilation', dilation)
        _assign(layer, 'padding', int(padding))


def _assign(layer: nn.Module, name: str, value: int) -> None:
    old = getattr(layer, name, None)
    if old is None:
        return
    # A pool of ours keeps its padding in samples of the native map; see pooling.py.
    if name == 'padding' and not isinstance(layer, nn.Conv2d):
        return
    setattr(layer, name, (value, value) if isinstance(old, tuple) else value)
