"""Whether bfloat16 pays on this machine: a processor without instructions for it is better off without."""

import functools
import statistics
import time

import torch
from mmengine.device import get_device


def slow_bfloat16() -> str:
    """Return, where bfloat16 at least doubles the time of float32, a clause that says so; '' elsewhere and on a GPU."""
    if get_device() != 'cpu' or bfloat16_cost() < 2:
        return ''
    return f'bfloat16 takes {bfloat16_cost():.0f} times as long as float32 on this processor'


@functools.cache
def bfloat16_cost() -> float:
    """Return the time of a convolution's training step in bfloat16 on this CPU over float32's; measures for 0.5 s.

    With AVX2 alone it is 15 to 35 (torch 2.14.1): oneDNN, whose bfloat16 needs AVX512, leaves it to slower code.
    """

    def seconds(enabled: bool) -> float:
        start = time.perf_counter()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            torch.nn.functional.conv2d(images, weight, padding=1).sum().backward()
        return time.perf_counter() - start

    # Not random ones: the random numbers of the run that asks are its own.
    images, weight = (torch.ones(size, requires_grad=True) for size in ((1, 64, 32, 32), (64, 64, 3, 3)))
    ratios = [seconds(True) / seconds(False) for _ in range(6)]
    return statistics.median(ratios[1:])  # the first is a warm-up
