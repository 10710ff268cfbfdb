"""Tensors in a checkpoint: views of storages, checked against them.

All of them are exact ``torch.Tensor``, also where a ``Parameter`` was saved, and none requires a gradient. Sparse,
quantised and nested tensors and those of other subclasses are refused by name.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from .plain import Name, NotDataError, shown
from .unpickling import Unpickler

_QUANTISED = {torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4}
# As a pickle names them.
DTYPES = {
    f'torch.{name}': dtype
    for name, dtype in vars(torch).items()
    if isinstance(dtype, torch.dtype) and dtype not in _QUANTISED
}
STORAGE_DTYPES = {
    'torch.DoubleStorage': torch.float64,
    'torch.FloatStorage': torch.float32,
    'torch.HalfStorage': torch.float16,
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.LongStorage': torch.int64,
    'torch.IntStorage': torch.int32,
    'torch.ShortStorage': torch.int16,
    'torch.CharStorage': torch.int8,
    'torch.ByteStorage': torch.uint8,
    'torch.BoolStorage': torch.bool,
    'torch.ComplexDoubleStorage': torch.complex128,
    'torch.ComplexFloatStorage': torch.complex64,
    'torch.UntypedStorage': torch.uint8,
    'torch.storage.UntypedStorage': torch.uint8,
}
_MOST_DIMENSIONS = 64
_LARGEST_EMPTY = 2**40


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage that a pickle refers to, or a part of it: ``count`` elements of ``dtype`` from element ``first`` on."""

    data: torch.UntypedStorage
    dtype: torch.dtype
    first: int
    count: int

    def as_dtype(self, dtype: torch.dtype) -> 'Storage':
        """The whole of an untyped storage, as elements of another dtype."""
        if self.dtype is not torch.uint8 or self.first or type(dtype) is not torch.dtype:
            raise TypeError('a tensor has another dtype than its storage')
        return Storage(self.data, dtype, 0, self.count // dtype.itemsize)


def read_reference(reference: Any, length: int) -> tuple:
    """Check what torch writes into a pickle for a storage, and return (dtype, key, location, number of elements, ...).

    Raises:
        TypeError, ValueError: it is damaged.
    """
    if type(reference) is not tuple or len(reference) != length or reference[0] != 'storage':
        raise TypeError('a storage has no proper reference')
    _, kind, key, location, count, *rest = reference
    if type(kind) is not Name or kind.text not in STORAGE_DTYPES:
        raise TypeError(f'a storage is of the type {shown(kind)}')
    if type(key) is not str or type(location) is not str or type(count) is not int or count < 0:
        raise TypeError('a storage has no proper reference')
    return STORAGE_DTYPES[kind.text], key, location, count, *rest


def _tensor(machine: Unpickler, storage: Storage, offset: int, size: tuple, stride: tuple) -> torch.Tensor:
    if type(storage) is not Storage:
        raise TypeError(f'a tensor has {shown(storage)} as its storage')
    if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= _MOST_DIMENSIONS:
        raise ValueError('a tensor has no proper size and stride')
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError('a tensor has no proper size and stride')
    count = math.prod(size)
    if count == 0:
        if max(offset, *size, *stride) > _LARGEST_EMPTY:
            raise ValueError('a tensor has no proper size and stride')
    elif offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= storage.count:
        raise ValueError('a tensor reaches beyond its storage')
    if count * storage.dtype.itemsize > machine.limit:
        raise ValueError(f'a tensor has {count} elements, more than the file can hold')
    machine.spend(objects=500)
    tensor = torch.empty(0, dtype=storage.dtype, device=storage.data.device)
    return tensor.set_(storage.data, storage.first + offset, size, stride)


def _rebuild_v2(
    machine: Unpickler,
    storage: Storage,
    offset: int,
    size: tuple,
    stride: tuple,
    requires_grad: Any,
    hooks: Any,
    bits: dict | None = None,
) -> torch.Tensor:
    tensor = _tensor(machine, storage, offset, size, stride)
    if not bits:
        return tensor
    if type(bits) is not dict or not bits.keys() <= {'conj', 'neg'} or (bits.get('conj') and not tensor.is_complex()):
        raise TypeError('a tensor has unknown properties')
    tensor = tensor.conj() if bits.get('conj') else tensor
    return torch._neg_view(tensor) if bits.get('neg') else tensor


def _rebuild_v3(
    machine: Unpickler,
    storage: Storage,
    offset: int,
    size: tuple,
    stride: tuple,
    requires_grad: Any,
    hooks: Any,
    dtype: torch.dtype,
    bits: dict | None = None,
) -> torch.Tensor:
    """For the dtypes that have no storage of their own."""
    if type(storage) is not Storage:
        raise TypeError(f'a tensor has {shown(storage)} as its storage')
    return _rebuild_v2(machine, storage.as_dtype(dtype), offset, size, stride, requires_grad, hooks, bits)


def _parameter(machine: Unpickler, tensor: torch.Tensor, *rest: Any) -> torch.Tensor:
    if type(tensor) is not torch.Tensor:
        raise TypeError(f'a parameter has {shown(tensor)} as its tensor')
    return tensor


def _early_parameter(machine: Unpickler, tensor: torch.Tensor) -> torch.Tensor:
    """A parameter as torch wrote it before 0.4, with what it was for as its state; this is dropped."""
    return machine.expect_state(_parameter(machine, tensor), lambda state: None)


def _with_attributes(machine: Unpickler, function: Name, kind: Name, arguments: tuple, state: Any) -> torch.Tensor:
    """A tensor that had attributes; they are dropped."""
    if type(kind) is not Name or kind.text not in NAMES:
        raise NotDataError(f'it holds a tensor of the class {shown(kind)}.')
    if type(function) is not Name or function.text not in _REBUILD or type(arguments) is not tuple:
        raise NotDataError(f'it makes a tensor by {shown(function)}.')
    return _REBUILD[function.text](machine, *arguments)


_REBUILD = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_v2,
    'torch._utils._rebuild_tensor_v3': _rebuild_v3,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
}
CALLS = {
    **_REBUILD,
    'torch._tensor._rebuild_from_type_v2': _with_attributes,
    'torch.nn.parameter.Parameter': _early_parameter,
}
NAMES = {'torch.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer', *STORAGE_DTYPES}
