"""A processor without instructions for bfloat16 is told from one with them, and spared from it."""

import pytest
import torch

from mmseg_ext.engine import bfloat16
from mmseg_ext.engine.runner import has_accelerator

on_cpu = pytest.mark.skipif(has_accelerator(), reason='what happens on a CPU')


@pytest.fixture
def cost(monkeypatch):
    """Say what bfloat16 costs here."""
    return lambda value: monkeypatch.setattr(bfloat16, 'bfloat16_cost', lambda: value)


@on_cpu
def test_bfloat16_is_slow_where_it_doubles_the_time_of_float32(cost):
    cost(22.4)
    assert bfloat16.slow_bfloat16() == 'bfloat16 takes 22 times as long as float32 on this processor'
    cost(1.9)
    assert bfloat16.slow_bfloat16() == ''


def test_a_gpu_is_not_judged_by_the_processor(cost, monkeypatch):
    cost(22.4)
    monkeypatch.setattr(bfloat16, 'get_device', lambda: 'cuda')
    assert bfloat16.slow_bfloat16() == ''


def test_the_cost_is_the_median_ratio_of_times_behind_a_warm_up(monkeypatch):
    """A clock that goes on by 3 s in each step in bfloat16 and by 2 s in float32; the first steps take longer."""
    durations = iter([90, 2] + [3, 2] * 3 + [70, 2] * 2)
    now = [0]

    def clock():
        now[0] += next(durations) if clock.running else 0
        clock.running = not clock.running
        return now[0]

    clock.running = False
    monkeypatch.setattr(bfloat16.time, 'perf_counter', clock)
    before = torch.get_rng_state()
    assert bfloat16.bfloat16_cost.__wrapped__() == 1.5
    assert torch.equal(torch.get_rng_state(), before)


def test_the_cost_agrees_with_what_the_processor_can_do():
    """oneDNN has no bfloat16 below AVX512 on x86; there torch's own code is many times slower than float32."""
    if torch.backends.cpu.get_cpu_capability() == 'AVX2':
        assert bfloat16.bfloat16_cost() > 2
    else:
        assert bfloat16.bfloat16_cost() > 0
