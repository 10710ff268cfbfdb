"""Change the output stride of a live network, forth and back, with its weights untouched.

A network describes itself as a chain of :class:`Unit`; each layer remembers its stride where nothing is removed and how
dense its input is, and :func:`set_output_stride` puts the numbers of ``dilation.py`` into the layers. The result is
exact relative to the network as it was built, however that was (see ``dilation.py``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from .dilation import dilation_plan
from .live_modules import all_or_nothing
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
    """What a layer knows of the network in which no stride is removed.

    ``stride`` is the layer's own as it was built, ``removed`` what was taken out of it then. ``density`` is the number
    of samples that its input has, along an axis, for each sample there.
    """

    stride: int | tuple[int, ...]
    removed: int
    density: int


def _one(layer: nn.Module, name: str, value: int | Sequence[int] | None = None) -> int:
    """Return an attribute of a layer, or the given value of it, as one number for both axes."""
    value = getattr(layer, name, 1) if value is None else value
    values = value if isinstance(value, (tuple, list)) else (value,)
    if len(set(values)) != 1:
        raise ValueError(f'{layer}: {name}={tuple(values)} differs between the axes, so it has no one output stride')
    return values[0]


def is_layer(module: nn.Module) -> bool:
    """Whether a module's stride and dilation are its own: a block or mmcv's ConvModule has them for information.

    A layer has weights of its own or no children, or is a convolution whose weights come from elsewhere.
    """
    if isinstance(module, nn.Conv2d) or next(module.parameters(recurse=False), None) is not None:
        return True
    return next(module.children(), None) is None


def remember_geometry(units: Sequence[Unit]) -> None:
    """Store on every layer what it would be with all strides in place; called once, when a network is built."""
    density = 1
    for unit in units:
        for branch, strided in zip(unit.branches, unit.strided, strict=True):
            dense = density
            for i, layer in enumerate(branch):
                removed = unit.removed if i == strided else 1
                layer.native_geometry = Geometry(getattr(layer, 'stride', 1), removed, dense)
                dense *= removed
        density *= unit.removed


def dilated(layer: nn.Module, factor: Fraction | int) -> dict[str, object]:
    """Return what attributes of a layer become on a map with ``factor`` times as many samples along an axis.

    The output, subsampled, then equals that on the coarser map, except at borders that are padded with the map's own
    samples: ``reflect`` and ``replicate`` take others there unless the size is a multiple plus one.

    Raises:
        ValueError: it can't be dilated, or not by a fraction.
    """
    if not isinstance(layer, _EXACT):
        raise ValueError(
            f'{layer} cannot be dilated exactly (only plain convolutions and the pools of mmseg_ext.layers can)'
        )
    if not isinstance(layer, nn.Conv2d):
        # A pool of ours keeps its padding in samples of the native map; see pooling.py.
        dilation = Fraction(layer.dilation if getattr(layer, 'kernel_size', 0) == 1 else layer.dilation * factor)
        if dilation.denominator != 1:
            raise ValueError(f'{layer} would need dilation {dilation}')
        return dict(dilation=int(dilation))
    dilation = [Fraction(d if k == 1 else d * factor) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    pads = [Fraction(pad * factor) for pad in _pads(layer, layer.dilation)]
    needed = f'{layer} would need dilation {_shown(dilation)} and padding {_shown(pads)}'
    if any(number.denominator != 1 for number in (*dilation, *pads)):
        raise ValueError(needed)
    dilation, pads = tuple(map(int, dilation)), list(map(int, pads))
    padding = layer.padding if isinstance(layer.padding, str) else tuple(pads[::2])
    if pads != _pads(layer, dilation, padding):
        raise ValueError(f'{needed}, which is not what {layer.padding!r} gives; build it with a number')
    # torch computes what it pads with in another mode than 'zeros' only once, back to front.
    backwards = [pad for axis in range(len(pads) - 2, -1, -2) for pad in pads[axis : axis + 2]]
    return dict(dilation=dilation, padding=padding, _reversed_padding_repeated_twice=backwards)


def _pads(conv: nn.Conv2d, dilation: Sequence[int], padding: Sequence[int] | str | None = None) -> list[int]:
    """Return how many samples a convolution adds: before the rows, behind them, before the columns, behind them."""
    padding = conv.padding if padding is None else padding
    if padding == 'same':
        both = [d * (k - 1) for d, k in zip(dilation, conv.kernel_size, strict=True)]
        return [side for total in both for side in (total // 2, total - total // 2)]
    if padding == 'valid':
        padding = (0,) * len(dilation)
    return [side for pad in padding for side in (pad, pad)]


def _shown(numbers: Sequence[Fraction]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else f'({", ".join(map(str, numbers))})'


def assign(layer: nn.Module, values: dict[str, object]) -> None:
    """Give a layer the attributes that it becomes."""
    for name, value in values.items():
        setattr(layer, name, value)


def multiply_dilations(units: Sequence[Unit], multi_grid: Sequence[int]) -> None:
    """Multiply the dilations of the convolutions in the last units' main paths by ``multi_grid``, one factor a unit.

    Chen et al., DeepLabV3, arXiv:1706.05587, section 3.2.1.

    Raises:
        ValueError: there are fewer units than factors.
    """
    if len(multi_grid) > len(units):
        raise ValueError(f'multi_grid={tuple(multi_grid)} has more values than the {len(units)} blocks it is for')
    for unit, factor in zip(units[len(units) - len(multi_grid) :], multi_grid, strict=True):
        for layer in unit.branches[0]:
            if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1:
                assign(layer, dilated(layer, factor))


def present_output_stride(units: Sequence[Unit], stem_stride: int) -> int:
    """Return the output stride that a network has now.

    Raises:
        ValueError: it has two, one for each axis.
    """
    return stem_stride * math.prod(math.prod(_one(layer, 'stride') for layer in unit.branches[0]) for unit in units)


def native_stride(layer: nn.Module) -> int:
    """Return the stride of a layer where none is removed."""
    geometry = layer.native_geometry
    return _one(layer, 'stride', geometry.stride) * geometry.removed


def unit_stride(unit: Unit) -> int:
    """Native stride of a unit."""
    return native_stride(unit.branches[0][unit.strided[0]])


def set_output_stride(units: Sequence[Unit], output_stride: int, stem_stride: int) -> None:
    """Remove the strides behind ``output_stride`` and dilate what follows, or put them back.

    Args:
        units: the network's chain, in order, as given to :func:`remember_geometry`.
        output_stride: size of the input over size of the output.
        stem_stride: stride of what comes before the first unit; it stays.

    Raises:
        ValueError: the network can't have that output stride: it lacks the strides, it holds a layer that can't be
            dilated, or it was built with dilations that have no counterpart there. Nothing has been changed then.
    """
    if output_stride == present_output_stride(units, stem_stride):
        return
    strides = [unit_stride(unit) for unit in units]
    plan = dilation_plan(strides, output_stride, stem_stride=stem_stride)
    changes = []
    for unit, whole, block in zip(units, strides, plan, strict=True):
        for branch in unit.branches:
            density = block.dilation_in
            for layer in branch:
                native = native_stride(layer)
                stride = native if block.stride == whole else 1
                changes.append((layer, _changed(layer, stride, density, output_stride)))
                density *= native // stride
    with all_or_nothing(layer for layer, _ in changes):
        for layer, values in changes:
            assign(layer, values)


def _changed(layer: nn.Module, stride: int, density: int, output_stride: int) -> dict[str, object]:
    geometry = layer.native_geometry
    if stride == _one(layer, 'stride') and density == geometry.density:
        return {}
    factor = Fraction(density, geometry.density)
    try:
        values = dilated(layer, factor)
    except ValueError as error:
        remedy = 'build the network without it'
        if factor < 1 and isinstance(layer, _EXACT):
            remedy = (
                'the network was built denser without dilating this layer; build it with `output_stride=` instead to '
                'be able to go coarser, or keep its output stride'
            )
        raise ValueError(f'output_stride={output_stride}: {error}: {remedy}') from error
    values['native_geometry'] = Geometry(geometry.stride, geometry.removed, density)
    if hasattr(layer, 'stride'):
        values['stride'] = (stride, stride) if isinstance(layer.stride, tuple) else stride
    return values
