"""A choice between ways to the same result that depends on the machine: measured, once for each kind of call."""

import time
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

_RUNS = 3
_choices: dict[Hashable, int] = {}


def measured_choice(key: Hashable, ways: Sequence[Callable[[], Tensor]], inputs: Sequence[Tensor]) -> int:
    """Return the index of the fastest way on an accelerator, as ``torch.backends.cudnn.benchmark`` does for kernels.

    The first is taken without a measurement where results have to be the same in every run (deterministic
    algorithms), and while a graph of kernels is recorded, which can't be waited for.

    Args:
        key: what the call depends on: device, dtype, shapes.
        ways: each computes the result, from ``inputs``.
        inputs: tensors; the time of their gradients counts if the result has some.
    """
    device = inputs[0].device
    if torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic:
        return 0
    if device.type == 'cuda' and torch.cuda.is_current_stream_capturing():
        return 0
    key = (device, torch.is_grad_enabled(), key)
    if key not in _choices:
        # The first run of each finds its kernels and memory.
        times = [min([_time(way, inputs) for _ in range(1 + _RUNS)][1:]) for way in ways]
        _choices[key] = times.index(min(times))
    return _choices[key]


def _time(way: Callable[[], Tensor], inputs: Sequence[Tensor]) -> float:
    _wait(inputs[0].device)
    start = time.perf_counter()
    out = way()
    if out.requires_grad:
        torch.autograd.grad(out, [x for x in inputs if x.requires_grad], torch.ones_like(out), allow_unused=True)
    _wait(inputs[0].device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type != 'cpu':
        torch.accelerator.synchronize(device)
