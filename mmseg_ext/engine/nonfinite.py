"""Where in a network numbers stop being finite."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def first_nonfinite(model: nn.Module, run: Callable[[], object]) -> str:
    """Say which module's output is the first that is not finite when ``run`` calls the model.

    Returns:
        A sentence; it also says so where everything is finite.
    """
    names = {module: name or 'the model' for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, inputs: tuple, kwargs: dict, output: Any) -> None:
        if found or all_finite(output):
            return
        kind = type(module).__name__
        bad = [name for name, weight in module.named_parameters(recurse=False) if not all_finite(weight)]
        bad += [name for name, buffer in module.named_buffers(recurse=False) if not all_finite(buffer)]
        sizes = [value.detach().abs().max().item() for value in tensors_in((inputs, kwargs)) if value.numel()]
        if not all_finite((inputs, kwargs)):
            because = 'its inputs are not finite either'
        elif bad:
            because = f'its {" and ".join(bad)} has infinite or nan values'
        else:
            because = f'its inputs are finite, at most {max(sizes, default=0):.3g}'
        found.append(f'The first output that is not finite is that of {names[module]} ({kind}); {because}.')

    handles = [module.register_forward_hook(look, with_kwargs=True) for module in names]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else 'The outputs of all layers are finite.'


def all_finite(values: Any) -> bool:
    """Whether every floating-point tensor in nested containers is finite."""
    return all(bool(value.isfinite().all()) for value in tensors_in(values))


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in nested containers."""
    if isinstance(values, Tensor):
        if values.is_floating_point() or values.is_complex():
            yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors_in(value)
