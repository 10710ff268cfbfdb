"""To try, and to change, modules that somebody is using."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_HOOKS = ('_forward_pre_hooks', '_forward_hooks', '_backward_pre_hooks', '_backward_hooks')


def quiet_copy(module: nn.Module, share_parameters: bool = False) -> nn.Module:
    """Copy a module without its users' hooks, in evaluation mode throughout, the original untouched.

    torch's own hooks stay, because they make weights (``weight_norm``, ``spectral_norm``, lazy layers). The mode is set
    without ``eval()``, which a module may have given further effects.

    Args:
        module: the original.
        share_parameters: let the copy have the original's parameters, not copies of them: enough for a forward pass.

    Raises:
        ValueError: the module holds something that Python can't copy (a lock, an open file).
    """
    memo = {}
    for part in module.modules():
        for name in _HOOKS:
            hooks = getattr(part, name)
            memo[id(hooks)] = OrderedDict((key, hook) for key, hook in hooks.items() if _is_torchs(hook))
        # Results that weight_norm leaves on the module; Python copies no tensor with a history.
        memo.update({id(x): x.detach() for x in vars(part).values() if isinstance(x, Tensor) and not x.is_leaf})
    if share_parameters:
        # A lazy layer's first pass would fill the original's.
        memo.update({id(p): p for p in module.parameters() if not nn.parameter.is_lazy(p)})
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:
        raise ValueError(
            f'{type(module).__name__} cannot be copied for a trial run ({type(error).__name__}: {error})'
        ) from error
    for part in twin.modules():
        part.training = False
    return twin


@torch.no_grad()
def run_on_black_image(module: nn.Module, side: int) -> tuple[Tensor, object]:
    """Run a module on one black image of ``side x side``, and return the image and the result.

    The image has as many channels as the module takes, which is what one of its convolutions does, the first one in
    most. Random numbers that are drawn, by a lazy layer for instance, are drawn again by who comes next.

    Raises:
        Exception: what the module raises, for the likeliest number of channels.
    """
    like = next(module.parameters(), torch.empty(0))
    convs = [m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d) and m.in_channels]  # lazy: 0
    first_error = None
    with torch.random.fork_rng([like.device] if like.is_cuda else []):
        for channels in dict.fromkeys((*convs[:1], 3, *convs)):
            image = torch.zeros(1, channels, side, side, dtype=like.dtype, device=like.device)
            try:
                return image, module(image)
            except Exception as error:
                first_error = first_error or error
    raise first_error


def _is_torchs(hook: object) -> bool:
    return (getattr(hook, '__module__', None) or '').startswith('torch.nn.')


@contextmanager
def all_or_nothing(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Whatever the block raises, give all attributes of the modules, and their children, the values from before it.

    Values that are changed in place (the numbers in a tensor) are not given back.
    """
    before = []
    for part in {part for module in modules for part in module.modules()}:
        tables = (vars(part), part._parameters, part._buffers, part._modules)
        before += [(table, dict(table)) for table in tables]
    try:
        yield
    except BaseException:
        for table, values in before:
            table.clear()
            table.update(values)
        raise
