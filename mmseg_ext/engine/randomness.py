"""Random numbers as a function of what they are drawn for, not of what was drawn before.

A run that is killed and resumed has lost its generators' states, and those of its data workers. So every sample, every
iteration and every validation starts from a seed of its own, made of the run's seed and of its place in the run.
"""

import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch

# What the numbers are for: the first part of a key.
SAMPLE, ITERATION, VALIDATION, ORDER = range(4)


def seed_everything(*key: int) -> None:
    """Seed Python, NumPy and torch (on every device) as a function of ``key``, non-negative integers."""
    torch.manual_seed(_seed_host(*key))


def seed_sample(*key: int) -> None:
    """As :func:`seed_everything`, for what a data worker uses: Python, NumPy and torch on the CPU."""
    torch.default_generator.manual_seed(_seed_host(*key))


def _seed_host(*key: int) -> int:
    a, b, c, d = (int(word) for word in np.random.SeedSequence(key).generate_state(4))
    random.seed(a)
    np.random.seed(b)
    return c << 32 | d


def drawn_apart(items: Iterable, *key: int) -> Iterator:
    """Yield ``items``, with random numbers of their own wherever the iterator draws some; all others stay untouched."""
    outside = _get_state()
    seed_sample(*key)
    iterator = iter(items)
    inside = _get_state()
    _set_state(outside)
    while True:
        outside = _get_state()
        _set_state(inside)
        try:
            item = next(iterator)
        except StopIteration:
            return
        finally:
            inside = _get_state()
            _set_state(outside)
        yield item


def _get_state() -> tuple:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
