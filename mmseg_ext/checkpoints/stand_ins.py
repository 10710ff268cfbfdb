"""numpy's numbers and mmengine's log history in a checkpoint, rebuilt without running their own unpickling.

A training checkpoint of mmengine needs ``getattr``, ``numpy.dtype``, ``numpy.ndarray`` and ``HistoryBuffer``. Each is a
tool for an attacker: ``getattr`` reaches any method; a file may tell ``numpy.dtype`` to change flags of the
process-wide float64, or an array to read raw bytes as object pointers; ``HistoryBuffer`` takes new statistics for all
its instances. torch's ``weights_only=True`` lets all that through once these names are allowed. So here the names lead
to stand-ins, which take numbers and nothing else.
"""

import pickle
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer


class PlainType:
    """Stands in for ``numpy.dtype``: a type code and a byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.code = code
        self.order = '='

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        if self.order not in ('<', '>', '=', '|') or self.code[:1] not in tuple('biufc') or not self.code[1:].isdigit():
            raise pickle.UnpicklingError(f'it holds a numpy array of type {self.code!r}, which is not a number')
        return np.dtype(self.order.replace('|', '=') + self.code)


class PlainArray(np.ndarray):
    """An array that a checked state was put into; it is saved again as a plain ``numpy.ndarray``."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, kind, fortran, content = state
        if not isinstance(kind, PlainType) or not isinstance(content, bytes):
            raise pickle.UnpicklingError('it holds a numpy array that is not made of numbers')
        super().__setstate__((version, shape, kind.dtype(), fortran, content))

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()


class PlainHistory(HistoryBuffer):
    """Becomes a ``HistoryBuffer`` when it gets its two arrays; statistics stay those of the class."""

    def __setstate__(self, state: dict) -> None:
        arrays = {name: state[name] for name in ('_log_history', '_count_history')}
        if not all(isinstance(array, PlainArray) for array in arrays.values()):
            raise pickle.UnpicklingError('it holds a log history that is not made of numbers')
        self.__init__(max_length=int(state['max_length']))
        self.__dict__.update({name: array.view(np.ndarray) for name, array in arrays.items()})
        self.__class__ = HistoryBuffer


def _reconstruct(kind: type, shape: tuple, code: bytes) -> PlainArray:
    return np.empty(0, dtype=np.uint8).view(PlainArray)


def _scalar(kind: PlainType, content: bytes) -> Any:
    return np.frombuffer(content, dtype=kind.dtype())[0]


def _no_bytes(*arguments: Any) -> bytes:
    """Stands in for ``bytes``, which gives an empty array its content."""
    if arguments:
        raise pickle.UnpicklingError('it calls bytes with arguments')
    return b''


def _name_statistic(owner: type, name: str) -> str:
    """Stands in for ``getattr``, by which a log history names its statistics: mean, max, min, current."""
    if owner is not PlainHistory:
        raise pickle.UnpicklingError(f'it calls getattr for {name!r}')
    return name


def safe_globals() -> list:
    """What ``torch.serialization.safe_globals`` needs to read a training checkpoint through the stand-ins."""
    # Files written by numpy 1 name numpy.core, those by numpy 2 numpy._core.
    functions = [
        (function, f'numpy.{package}.multiarray.{name}')
        for package in ('core', '_core')
        for name, function in (('_reconstruct', _reconstruct), ('scalar', _scalar))
    ]
    classes = [
        (PlainType, 'numpy.dtype'),
        (PlainArray, 'numpy.ndarray'),
        (PlainHistory, 'mmengine.logging.history_buffer.HistoryBuffer'),
    ]
    # torch asks for the state of an object by the name of the class that it has then.
    functions += [(_name_statistic, 'builtins.getattr'), (_no_bytes, 'builtins.bytes')]
    return [*functions, *classes, *(kind for kind, _ in classes)]
