"""What counts as data in a checkpoint: exact plain values, tensors and numbers, in containers of any depth."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_ATOMS = (str, bytes, int, float, bool, type(None))
_VALUES = {
    *_ATOMS, bytearray, complex, set, torch.Tensor, torch.dtype, torch.device, np.ndarray, HistoryBuffer,
}  # fmt: skip
# Python hashes these as an attacker likes, so that a dict of them takes minutes; of 64 bits, few collide.
_LARGEST_KEY = 2**63
_LARGEST_IN_TUPLE = 2**31
_LONGEST_TUPLE = 16


class NotDataError(Exception):
    """A checkpoint holds more than data; the message says what, as a sentence that ends in a full stop."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global that a pickle names: ``module.name``. Nothing was imported for it."""

    text: str


def shown(value: Any) -> str:
    """Return what to call something out of a file in a message."""
    return short(value.text) if type(value) is Name else f'an object of type {type(value).__name__}'


def short(text: str) -> str:
    """Return a text out of a file as it can be printed: its beginning, on one line."""
    return ascii(text[:200])[1:-1]


def check_key(key: Any) -> Any:
    """Return a key of a dict or member of a set, if it is a plain one.

    Raises:
        NotDataError: it is of another kind, or a number or tuple such as are made to slow a dict down.
    """
    kind = type(key)
    if kind is str or (kind is int and abs(key) < _LARGEST_KEY):
        return key
    if kind is tuple and len(key) <= _LONGEST_TUPLE:
        if all(type(item) in _ATOMS and (type(item) is not int or abs(item) < _LARGEST_IN_TUPLE) for item in key):
            return key
    elif (kind is not int and kind in _ATOMS) or isinstance(key, (np.integer, np.floating, np.bool_)):
        return key
    raise NotDataError(f'it uses {shown(key)} as a key.')


def check_plain(value: Any) -> None:
    """See that everything in ``value`` is data; each container is looked at once, however often it is met.

    Raises:
        NotDataError: something isn't.
    """
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in _VALUES or isinstance(value, np.generic):
            continue
        if kind not in (dict, list, tuple):
            raise NotDataError(f'it holds {shown(value)}.')
        if id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if kind is dict else value)
