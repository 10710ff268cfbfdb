"""Change the output stride of a backbone that isn't ours, and prove that the change is exact.

For backbones with the stages of a ResNet, ``layer1``, ``layer2``, ...: torchvision's, timm's, mmpretrain's, mmseg's.
The arithmetic is that of ``output_stride.py``; what is added is the description of a network that can't describe
itself, and a proof on a copy, because a description by names and attributes may miss what a block really does.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .live_modules import all_or_nothing, quiet_copy, run_on_black_image
from .output_stride import Unit, _one, is_layer, native_stride, remember_geometry, set_output_stride, unit_stride
from .pooling import AvgPool2d, MaxPool2d

_SHORTCUTS = ('downsample', 'shortcut')
# Height and width of the image of the proof; three samples are left of it at output stride 32.
_SIZE = 96
_TOLERANCE = 1e-9
_HARMLESS = (nn.Conv2d, nn.Sequential, nn.Identity, nn.ReLU, nn.AvgPool2d, nn.MaxPool2d, _BatchNorm)


def rewrite_dilation(module: nn.Module, output_stride: int) -> None:
    """Change the output stride of a backbone in place, its weights untouched, and forth and back as often as you like.

    Removed strides become dilations, in pools as well: these are exchanged for the ones of ``pooling.py``. Only the
    layers' numbers change, no attribute in which a library keeps its own notes (``feature_info`` in timm).

    The change is first made on a copy without hooks, in float64, on the CPU and with random statistics, where the
    features of each stage, subsampled, must equal the coarser network's to 1e-9 ("a trous": Chen et al.,
    arXiv:1606.00915, section 3.1) for a random image of 96x96.

    Args:
        module: a network with stages ``layer1``, ``layer2``, ... that maps an image ``(B, C, H, W)`` to anything.
        output_stride: size of the image over size of the last stage's features.

    Raises:
        ValueError: the network has no such stages, lacks the strides, was built dilated and should become coarser, or
            holds something that has no exact dilated form (attention, blurred or deformable sampling, normalisation
            over the map); the message says which. The module has not been changed then.
    """
    names = []
    while isinstance(getattr(module, f'layer{len(names) + 1}', None), nn.Module):
        names.append(f'layer{len(names) + 1}')
    if not names:
        raise ValueError(
            f'{type(module).__name__} has no stages layer1, layer2, ...: pass the ResNet-like backbone itself'
        )
    trial = quiet_copy(module).cpu().double()
    generator = torch.Generator().manual_seed(0)
    try:
        black, _ = run_on_black_image(trial, _SIZE)
    except Exception as error:
        raise ValueError(
            f'{type(module).__name__} does not run on an image of {_SIZE}x{_SIZE} ({type(error).__name__}: {error})'
        ) from error
    image = torch.randn(black.shape, dtype=torch.float64, generator=generator)
    _randomise(trial, image, generator)

    entered, before = _run(trial, names, image)
    if _SIZE % entered:
        raise ValueError(
            f'layer1 gets {entered} of {_SIZE} pixels: the stem has no whole stride, so none can be planned'
        )
    stem_stride = _SIZE // entered
    _apply(trial, names, output_stride, stem_stride)
    try:
        _, after = _run(trial, names, image)
    except RuntimeError as error:
        raise ValueError(
            f'output_stride={output_stride}: {type(module).__name__} does not run once its layers are rewritten; it '
            f'subsamples outside of layers with a stride, or in several of them at once ({error})'
        ) from error
    for name in names:
        _check_identity(name, getattr(trial, name), before[name], after[name], output_stride)
    if after[names[-1]].shape[-1] * output_stride != _SIZE:
        raise ValueError(f'output_stride={output_stride}: {names[-1]} keeps a stride that is not in one of its layers')
    with all_or_nothing([module]):
        _apply(module, names, output_stride, stem_stride)


def _randomise(module: nn.Module, image: Tensor, generator: torch.Generator) -> None:
    """Give every layer an effect, or the proof would be blind behind a normalisation that starts at zero.

    Batch normalisation then gets the statistics of the image, so that no activation saturates.
    """
    for parameter in module.parameters():
        if parameter.ndim <= 1 or not parameter.any():
            nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)

    def adopt_statistics(layer: _BatchNorm, args: tuple[Tensor]) -> None:
        layer.running_mean.copy_(args[0].mean((0, 2, 3)))
        layer.running_var.copy_(args[0].var((0, 2, 3), correction=0))

    handles = [
        layer.register_forward_pre_hook(adopt_statistics)
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]
    with torch.no_grad():
        module(image)
    for handle in handles:
        handle.remove()


def _run(module: nn.Module, names: list[str], image: Tensor) -> tuple[int, dict[str, Tensor]]:
    """Return the width of the map that the first stage gets, and each stage's features."""
    entered, features = [], {}

    def enter(stage: nn.Module, args: tuple[Tensor]) -> None:
        entered.append(args[0].shape[-1])

    def leave(name: str, stage: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        features[name] = output.clone()

    handles = [getattr(module, names[0]).register_forward_pre_hook(enter)]
    handles += [getattr(module, name).register_forward_hook(partial(leave, name)) for name in names]
    with torch.no_grad():
        module(image)
    for handle in handles:
        handle.remove()
    if list(features) != names:
        raise ValueError(f'{type(module).__name__} runs {list(features)}, not its stages {names} in order')
    return entered[0], features


def _apply(module: nn.Module, names: list[str], output_stride: int, stem_stride: int) -> None:
    for name in names:
        _swap_pools(getattr(module, name))
    units = [
        unit
        for name in names
        for index, block in getattr(module, name).named_children()
        for unit in _units(f'{name}.{index}', block)
    ]
    layers = [layer for unit in units for branch in unit.branches for layer in branch]
    if not all(hasattr(layer, 'native_geometry') for layer in layers):
        remember_geometry(units)
    native = stem_stride * math.prod(unit_stride(unit) for unit in units)
    built_dilated = [layer for layer in layers if _native_dilation(layer) > 1]
    if output_stride > native and built_dilated:
        raise ValueError(
            f'output_stride={output_stride}: the network was built dilated, for {native} ({built_dilated[0]}), and '
            'nothing in it tells which strides were removed; build it with its strides, then rewrite it'
        )
    set_output_stride(units, output_stride, stem_stride)


def _swap_pools(module: nn.Module) -> None:
    """Exchange torch's pools for ours, which can be dilated and are the same as long as they are not."""
    for name, child in module.named_children():
        if type(child) is nn.AvgPool2d and child.divisor_override is None:
            pool = AvgPool2d(*_window(child), child.ceil_mode, child.count_include_pad)
        elif type(child) is nn.MaxPool2d and _largest(child, 'dilation') == 1 and not child.return_indices:
            pool = MaxPool2d(*_window(child), child.ceil_mode)
        else:
            _swap_pools(child)
            continue
        setattr(module, name, pool.train(child.training))


def _window(pool: nn.Module) -> tuple[int, int, int]:
    return _one(pool, 'kernel_size'), _one(pool, 'stride'), _one(pool, 'padding')


def _units(name: str, block: nn.Module) -> Iterator[Unit]:
    """Describe a block, if it has layers that matter: those with a stride or a kernel larger than one."""
    shortcuts = [child for key, child in block.named_children() if key in _SHORTCUTS]
    branches = [list(_spatial_layers(block, skip=shortcuts))]
    branches += [list(_spatial_layers(shortcut)) for shortcut in shortcuts]
    strided = []
    for branch in branches:
        strided.append([i for i, layer in enumerate(branch) if _native_stride(layer) > 1])
        if len(strided[-1]) > 1:
            raise ValueError(f'{name} has {len(strided[-1])} layers with a stride in one path, so none can be planned')
    strides = {math.prod(_native_stride(layer) for layer in branch) for branch in branches}
    if len(strides) > 1:
        raise ValueError(f'{name} has paths with the strides {sorted(strides)}, so none can be planned')
    filled = [(branch, (at or [0])[0]) for branch, at in zip(branches, strided, strict=True) if branch]
    if filled:
        yield Unit([branch for branch, _ in filled], [at for _, at in filled])


def _spatial_layers(module: nn.Module, skip: list[nn.Module] | None = None) -> Iterator[nn.Module]:
    if hasattr(module, 'stride') and is_layer(module):
        if _native_stride(module) > 1 or _largest(module, 'kernel_size') > 1:
            yield module
        return
    for child in module.children():
        if skip is None or not any(child is shortcut for shortcut in skip):
            yield from _spatial_layers(child)


def _native_stride(layer: nn.Module) -> int:
    return native_stride(layer) if hasattr(layer, 'native_geometry') else _one(layer, 'stride')


def _native_dilation(layer: nn.Module) -> Fraction:
    return Fraction(_largest(layer, 'dilation'), layer.native_geometry.density)


def _largest(layer: nn.Module, name: str) -> int:
    value = getattr(layer, name, 1)
    return max(value) if isinstance(value, (tuple, list)) else value


def _check_identity(name: str, stage: nn.Module, before: Tensor, after: Tensor, output_stride: int) -> None:
    coarse, dense = sorted((before, after), key=lambda features: features.shape[-1])
    factor = dense.shape[-1] // coarse.shape[-1]
    subset = dense[..., ::factor, ::factor]
    if subset.shape == coarse.shape and (subset - coarse).abs().max() <= _TOLERANCE * coarse.abs().max():
        return
    kinds = {
        type(child).__name__
        for block in stage.children()
        for child in block.children()
        if not isinstance(child, _HARMLESS)
    }
    hint = f'; its blocks hold {", ".join(sorted(kinds))}' if kinds else ''
    raise ValueError(
        f'output_stride={output_stride}: {name} is the first stage whose dense features are not those of the strided '
        f'network, so something in it has no exact dilated form{hint}'
    )
