"""Time and memory of several sides of a comparison.

The sides take turns, so that whatever else the machine does meets all of them, and the middle of their times counts.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

CLOCKS = dict(wall=time.perf_counter, cpu=time.process_time)


@dataclass(frozen=True)
class Timing:
    """One side's seconds: median, least and 90th percentile; and the median of the ratios to the first side's."""

    seconds: float
    best: float
    p90: float
    ratio: float


def time_alternating(
    sides: dict[str, Callable[[], object]], repeats: int, device: torch.device, clock: str = 'wall'
) -> dict[str, Timing]:
    """Run the sides in turn, ``repeats`` rounds after one for warming up.

    Args:
        sides: name -> what to run; the first is the one to compare with.
        repeats: rounds that count.
        device: where they run.
        clock: 'wall', or 'cpu' for the processor time of all threads, which other programs disturb less.
    """
    rounds = []
    for i in range(repeats + 1):
        # Back and forth, so that no side always comes behind the same other one.
        order = list(sides.items())[:: -1 if i % 2 else 1]
        rounds.append({name: _seconds(run, device, CLOCKS[clock]) for name, run in order})
    rounds = rounds[1:]
    first = next(iter(sides))
    return {
        name: Timing(
            statistics.median(r[name] for r in rounds),
            min(r[name] for r in rounds),
            sorted(r[name] for r in rounds)[math.ceil(0.9 * repeats) - 1],
            statistics.median(r[name] / r[first] for r in rounds),
        )
        for name in sides
    }


def _seconds(run: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    _synchronise(device)
    start = clock()
    run()
    _synchronise(device)
    return clock() - start


@contextmanager
def time_calls(owner: object, name: str, device: torch.device) -> Iterator[list[float]]:
    """Measure every call of the method ``name`` inside the block; yields the list that their seconds go to."""
    call, seconds = getattr(owner, name), []

    def timed(*args):
        out = []
        seconds.append(_seconds(lambda: out.append(call(*args)), device, time.perf_counter))
        return out[0]

    setattr(owner, name, timed)
    try:
        yield seconds
    finally:
        setattr(owner, name, call)


def _synchronise(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes of tensors that ``run`` holds at one time beyond those that exist before.

    On the CPU that is what torch's allocator gave out, so two runs give the same number whatever else the machine does.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def count_multiply_adds(run: Callable[[], object]) -> int:
    """Return the multiply-adds of the convolutions and matrix products that ``run`` does, forward and backward.

    The sizes of what is computed count, whatever algorithm computes it.
    """
    corrections = {
        # torch's counter knows these without their in-place forms,
        torch.ops.aten.addmm_: _product_flops,
        torch.ops.aten.baddbmm_: _product_flops,
        # and counts the weights' gradient of a convolution in groups as if there were one group.
        torch.ops.aten.convolution_backward: _convolution_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=corrections) as counter:
        run()
    return counter.get_total_flops() // 2


def _product_flops(total: Sequence[int], a: Sequence[int], b: Sequence[int], **kwargs) -> int:
    return 2 * math.prod(a) * b[-1]


def _convolution_backward_flops(grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *args, **kwargs) -> int:
    *_, transposed, _, _, (wants_input, wants_weight, _) = args
    # Each weight meets each pixel of the output once, or of the input of a transposed convolution.
    pixels = math.prod((x if transposed else grad)[2:])
    return 2 * (wants_input + wants_weight) * grad[0] * pixels * math.prod(weight)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True))]
        return f'| {" | ".join(padded)} |'

    rule = '|'.join('-' * (w + 2) if i == 0 else '-' * (w + 1) + ':' for i, w in enumerate(widths))
    return '\n'.join([line(header), f'|{rule}|', *map(line, rows)])


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as :func:`format_table` returns it."""
    print(format_table(header, rows))
