"""Scale the atrous rates of any head or neck, ours or not, when its features change their stride.

A rate is the dilation of a layer that was built with one. Layers without it, such as a plain 3x3 convolution, stay.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from mmcv.cnn import ConvModule
from torch import nn

from mmseg_ext.layers.live_modules import all_or_nothing
from mmseg_ext.layers.output_stride import assign, dilated, is_layer


def has_rates(module: nn.Module) -> bool:
    """Whether a head or a neck has atrous layers."""
    return any(True for _ in _atrous_layers(module))


def rate_factors(
    module: nn.Module, before: Sequence[Fraction], after: Sequence[Fraction]
) -> dict[str, Fraction | None]:
    """Say by how much the rates of a head or a neck grow, for :func:`scale_rates`.

    Args:
        module: what the features are given to. It, and each head inside of it, sees those in its ``in_index``, or all.
        before, after: size of the image over size of each of the features.

    Returns:
        The factor of the module, under '', and of each head in it, under its name; None where the features that it sees
        don't change alike.
    """
    factors = {}
    for name, part in module.named_modules():
        if name == '' or hasattr(part, 'in_index'):
            seen = {Fraction(before[i]) / after[i] for i in _seen(part, len(before))}
            factors[name] = seen.pop() if len(seen) == 1 else None
    return factors


def _seen(module: nn.Module, count: int) -> Sequence[int]:
    index = getattr(module, 'in_index', None)
    if index is None:
        return range(count)
    if isinstance(index, int):
        return [index]
    # All are resized to the first.
    return index[:1] if getattr(module, 'input_transform', None) == 'resize_concat' else index


def scale_rates(module: nn.Module, factors: dict[str, Fraction | None]) -> None:
    """Scale the rates of a head or a neck, those in each part of it by the factor of the innermost part that has one.

    Raises:
        ValueError: a rate can't be scaled, or its factor is None; the message says which. Nothing has been changed
            then.
    """
    with all_or_nothing([module]):
        for name, layer, owner in list(_atrous_layers(module)):
            part = max((part for part in factors if part == '' or name.startswith(f'{part}.')), key=len)
            if factors[part] == 1:
                continue
            where = f'{type(module).__name__}.{name}'
            if factors[part] is None:
                raise ValueError(
                    f'{where}, {layer}, has a rate, but the features that {type(module.get_submodule(part)).__name__} '
                    "takes don't all change alike, so it isn't known by how much; set the output stride of the "
                    'backbone alone (--keep-rates)'
                )
            _scale(layer, owner, factors[part], where)


def _scale(layer: nn.Module, owner: ConvModule | None, factor: Fraction, where: str) -> None:
    padding = getattr(owner, 'padding_layer', None)
    if padding is None and isinstance(layer, nn.Conv2d) and layer.padding in ('valid', (0, 0)):
        raise ValueError(
            f'{where}, {layer}, has a rate but no padding; whatever pads its input, if anything does, would have to '
            'follow: give the padding to the convolution'
        )
    try:
        values = dilated(layer, factor)
    except ValueError as error:
        raise ValueError(f'{where}: {error}; choose an output stride or dilations that divide') from error
    # A rate that becomes 1 is still one.
    assign(layer, dict(values, is_atrous=True))
    if padding is not None:
        padding.padding = tuple(_whole(side * factor, f'{where}: {padding}') for side in padding.padding)
    if owner is not None:  # It keeps notes of its convolution.
        owner.dilation = layer.dilation
        owner.padding = layer.padding if padding is None else padding.padding[::-2]


def _whole(number: Fraction, what: str) -> int:
    if number.denominator != 1:
        raise ValueError(f'{what} would need padding {number}; choose an output stride or dilations that divide')
    return int(number)


def _atrous_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module, ConvModule | None]]:
    """Find the layers with a rate: the name, the layer, and the ConvModule that it is the convolution of."""
    owners = {id(part.conv): part for part in module.modules() if isinstance(part, ConvModule)}
    for name, layer in module.named_modules():
        if (is_layer(layer) and _rate(layer) > 1) or getattr(layer, 'is_atrous', False):
            yield name, layer, owners.get(id(layer))


def _rate(layer: nn.Module) -> int:
    """Largest dilation along an axis whose kernel is larger than one."""
    sizes, dilations = getattr(layer, 'kernel_size', 0), getattr(layer, 'dilation', 1)
    sizes, dilations = (x if isinstance(x, (tuple, list)) else (x, x) for x in (sizes, dilations))
    return max((d for k, d in zip(sizes, dilations, strict=False) if k != 1 and isinstance(d, int)), default=1)
