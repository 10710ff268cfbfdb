"""What the names in a checkpoint's pickle make: a table of functions that check their arguments.

torch, numpy and mmengine have functions of the same names. None of them is called by a file: what each would make of
well-formed arguments is made here. Containers become exact ones: an ``OrderedDict``, ``defaultdict`` or ``Counter`` a
dict, without the attributes that torch hangs on it (``_metadata``), a ``deque`` a list, a ``torch.Size`` a tuple, and
a path a str.
"""

from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import torch

from . import arrays, histories, tensors
from .plain import NotDataError, check_key, shown
from .unpickling import Stream, Unpickler

_FACTORIES = {f'builtins.{name}' for name in ('list', 'dict', 'set', 'tuple', 'int', 'float', 'str')}


def unpickle(stream: Stream, load_persistent: Callable[[Any], Any], limit: int) -> Any:
    """Read one pickle of a checkpoint, and nothing behind it; see :class:`.unpickling.Unpickler` for the arguments."""
    return Unpickler(stream, _CALLS, _VALUES, _is_name, load_persistent, limit).load()


def _is_name(text: str) -> bool:
    return text in _NAMES or text.startswith(f'{histories.HISTORY}.')


def _ordered_dict(machine: Unpickler, pairs: list | None = None) -> dict:
    made = {}
    pairs = [] if pairs is None else _exact(list, pairs)
    machine.spend(objects=50 * len(pairs))
    for pair in pairs:
        if type(pair) not in (list, tuple):
            raise TypeError('the items of a dict are no pairs')
        key, value = pair
        made[check_key(key)] = value
    return machine.expect_state(made, lambda state: None)


def _default_dict(machine: Unpickler, factory: Any = None) -> dict:
    return {}


def _counter(machine: Unpickler, counts: dict | None = None) -> dict:
    counts = {} if counts is None else _exact(dict, counts)
    machine.spend(objects=50 * len(counts))
    return dict(counts)


def _deque(machine: Unpickler, items: list | tuple = (), length: int | None = None) -> list:
    items = _exact(list if type(items) is list else tuple, items)
    machine.spend(copied=8 * len(items))
    return list(items)


def _set(machine: Unpickler, items: list) -> set:
    machine.spend(objects=216 + 32 * len(_exact(list, items)))
    return {check_key(item) for item in items}


def _encode(machine: Unpickler, text: str, encoding: str) -> bytes:
    """Bytes, as they are written by protocols that have none."""
    if encoding != 'latin1':
        raise NotDataError('it encodes as something else than latin1.')
    machine.spend(copied=len(_exact(str, text)))
    return text.encode('latin1')


def _bytes(machine: Unpickler, *arguments: Any) -> bytes:
    if arguments:
        raise NotDataError('it calls bytes with arguments.')
    return b''


def _bytearray(machine: Unpickler, content: bytes = b'') -> bytearray:
    if type(content) is not bytes:
        raise NotDataError('it calls bytearray with something else than bytes.')
    machine.spend(copied=len(content))
    return bytearray(content)


def _complex(machine: Unpickler, real: float, imaginary: float) -> complex:
    return complex(_exact(float, real), _exact(float, imaginary))


def _posix_path(machine: Unpickler, *parts: str) -> str:
    machine.spend(copied=sum(len(_exact(str, part)) for part in parts))
    return str(PurePosixPath(*parts))


def _windows_path(machine: Unpickler, *parts: str) -> str:
    machine.spend(copied=sum(len(_exact(str, part)) for part in parts))
    return str(PureWindowsPath(*parts))


def _size(machine: Unpickler, sizes: tuple) -> tuple:
    if not all(type(size) is int for size in _exact(tuple, sizes)):
        raise TypeError('a torch.Size is not made of numbers')
    return sizes


def _device(machine: Unpickler, kind: str, index: int | None = None) -> torch.device:
    if index is None:
        return torch.device(_exact(str, kind))
    return torch.device(_exact(str, kind), _exact(int, index))


def _exact(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f'{shown(value)} is where a {kind.__name__} should be')
    return value


_CALLS = {
    'collections.OrderedDict': _ordered_dict,
    'collections.defaultdict': _default_dict,
    'collections.Counter': _counter,
    'collections.deque': _deque,
    'builtins.set': _set,
    'builtins.bytes': _bytes,
    'builtins.bytearray': _bytearray,
    'builtins.complex': _complex,
    '_codecs.encode': _encode,
    'torch.Size': _size,
    'torch.device': _device,
    **tensors.CALLS,
    **arrays.CALLS,
    **histories.CALLS,
}
for _module in ('pathlib', 'pathlib._local'):
    for _kind in ('', 'Pure'):
        _CALLS[f'{_module}.{_kind}PosixPath'] = _posix_path
        _CALLS[f'{_module}.{_kind}WindowsPath'] = _windows_path
_VALUES = tensors.DTYPES
_NAMES = _FACTORIES | tensors.NAMES | arrays.NAMES
