"""Arrays and scalars of numpy in a checkpoint: numbers only, always copied.

numpy's own way gives ``numpy.dtype`` a state, which can make the process-wide float64 big-endian or hold references,
and takes the bytes of a pickle for the memory of an array, which a second state would free.
"""

import math
import re
from typing import Any

import numpy as np

from .plain import Name, NotDataError, short, shown
from .unpickling import Unpickler

_NUMBER = re.compile(r'[biufc]\d{1,2}')


class NumpyType:
    """Stands in for a ``numpy.dtype``: a type code and a byte order."""

    def __init__(self, code: str):
        if type(code) is not str:
            raise TypeError('a numpy.dtype has no name')
        if not _NUMBER.fullmatch(code):
            raise NotDataError(f'it holds a numpy array of type {short(code)}, which is not a number.')
        self.dtype = np.dtype(code)

    def set_state(self, state: tuple) -> None:
        order = state[1]
        if order not in ('<', '>', '=', '|'):
            raise ValueError('a numpy.dtype has no proper byte order')
        self.dtype = self.dtype.newbyteorder('=' if order == '|' else order)


def _dtype(machine: Unpickler, code: str, align: Any = False, copy: Any = False) -> NumpyType:
    kind = NumpyType(code)
    return machine.expect_state(kind, kind.set_state)


def _number_bytes(machine: Unpickler, content: Any, shape: tuple, kind: Any) -> np.ndarray:
    """Return the elements, in the order and memory of the file, as an array of one dimension."""
    if type(kind) is not NumpyType or type(content) not in (bytes, bytearray):
        raise NotDataError('it holds a numpy array that is not made of numbers.')
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError('a numpy array has no proper shape')
    if math.prod(shape) * kind.dtype.itemsize != len(content):
        raise ValueError(f'a numpy array has {len(content)} bytes, which is not its shape')
    machine.spend(copied=len(content), objects=100)
    return np.frombuffer(content, kind.dtype)


def _reconstruct(machine: Unpickler, kind: Any, shape: Any, code: Any) -> np.ndarray:
    """An empty array, which gets its shape and content as its state."""
    if type(kind) is not Name or kind.text != 'numpy.ndarray':
        raise NotDataError(f'it holds an array of the class {shown(kind)}.')
    machine.spend(objects=500)
    array = np.empty(0, np.uint8)

    def set_state(state: tuple) -> None:
        _, shape, kind, fortran, content = state
        numbers = _number_bytes(machine, content, shape, kind)
        # In native order and in memory of its own: numpy would use that of the pickle's bytes.
        own = numbers.astype(kind.dtype.newbyteorder('=')).tobytes()
        array.__setstate__((1, shape, kind.dtype.newbyteorder('='), fortran is True, own))

    return machine.expect_state(array, set_state)


def _from_buffer(
    machine: Unpickler, content: Any, kind: Any, shape: tuple, order: str, axes: tuple | None = None
) -> np.ndarray:
    """An array as protocol 5 writes it."""
    numbers = _number_bytes(machine, content, shape, kind).astype(kind.dtype.newbyteorder('='))
    if order == 'K' and axes is not None:
        return numbers.reshape(shape).transpose(axes)
    if order not in ('C', 'F'):
        raise ValueError('a numpy array has no proper order')
    return numbers.reshape(shape, order=order)


def _scalar(machine: Unpickler, kind: Any, content: Any) -> np.generic:
    return _number_bytes(machine, content, (), kind)[0]


CALLS = {'numpy.dtype': _dtype}
# Files written by numpy 1 name numpy.core, those by numpy 2 numpy._core.
for _package in ('numpy.core', 'numpy._core'):
    CALLS[f'{_package}.multiarray._reconstruct'] = _reconstruct
    CALLS[f'{_package}.multiarray.scalar'] = _scalar
    CALLS[f'{_package}.numeric._frombuffer'] = _from_buffer
NAMES = {'numpy.ndarray'}
