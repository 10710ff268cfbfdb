"""Random numbers as a function of what they are drawn for, not of what was drawn before.

A run that is killed and resumed has lost its generators' states, and those of its data workers. So every sample, every
iteration and every validation starts from a seed of its own, made of the run's seed and of its place in the run.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# What the numbers are for: the first part of a key.
SAMPLE, ITERATION, VALIDATION, ORDER, EPOCH = range(5)


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


class DrawnApart:
    """An iterator with random numbers of its own wherever it draws some; all others' stay untouched.

    Args:
        items: what is iterated.
        key: of the numbers, as for :func:`seed_everything`.
    """

    def __init__(self, items: Iterable, *key: int):
        with _kept_outside(self):
            seed_sample(*key)
            self._iterator = iter(items)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        with _kept_outside(self):
            return next(self._iterator)

    def skip(self, count: int) -> int:
        """Pass over so many items, and return how many there were."""
        with _kept_outside(self):
            return sum(1 for _ in itertools.islice(self._iterator, count))


@contextmanager
def _kept_outside(owner: DrawnApart) -> Iterator[None]:
    """Keep the states of the generators, and give a block those of ``owner``."""
    outside = _get_state()
    if hasattr(owner, '_state'):
        _set_state(owner._state)
    try:
        yield
    finally:
        owner._state = _get_state()
        _set_state(outside)


def _get_state() -> tuple:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
