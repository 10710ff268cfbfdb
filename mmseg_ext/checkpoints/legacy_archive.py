"""The files that ``torch.save`` wrote before torch 1.6, and writes with ``_use_new_zipfile_serialization=False``.

A row of pickles (a magic number, a version, the writing system, the content, the keys of the storages), and then the
storages, each as its number of elements and their bytes, least significant first.
"""

import struct
from typing import Any, BinaryIO

import torch
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from .rebuilding import unpickle
from .storages import fill_storage, place, to_native
from .tensors import Storage, read_reference
from .unpickling import Stream


def read_legacy(file: BinaryIO, map_location: Any, limit: int) -> Any:
    """Read a checkpoint in torch's old format.

    Args and errors are those of :func:`.zip_archive.read_zip`.
    """
    stream = Stream(file)
    if unpickle(stream, _no_storage, limit) != MAGIC_NUMBER:
        raise ValueError('it is a pickle, but torch.save did not write it')
    if unpickle(stream, _no_storage, limit) != PROTOCOL_VERSION:
        raise ValueError('its version is unknown')
    unpickle(stream, _no_storage, limit)
    # By key: what the pickle refers to, the memory to read into, and where the caller wants it.
    roots: dict[str, tuple[Storage, torch.UntypedStorage]] = {}
    left = stream.left()

    def load_storage(reference: tuple) -> Storage:
        nonlocal left
        dtype, key, location, count, view = read_reference(reference, 6)
        if key not in roots:
            left -= count * dtype.itemsize
            if left < 0:
                raise EOFError('it ends before its tensors')
            memory = torch.UntypedStorage(count * dtype.itemsize, device='cpu')
            roots[key] = Storage(place(memory, location, map_location), dtype, 0, count), memory
        root = roots[key][0]
        if (root.dtype, root.count) != (dtype, count):
            raise ValueError('a storage has two types or sizes')
        if view is None:
            return root
        _, first, count = view
        if not (type(first) is type(count) is int and 0 <= first <= first + count <= root.count):
            raise ValueError('a part of a storage reaches beyond it')
        return Storage(root.data, dtype, first, count)

    content = unpickle(stream, load_storage, limit)
    keys = unpickle(stream, _no_storage, limit)
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(roots):
        raise ValueError('its storages are not those that it refers to')
    for key in keys:
        root, memory = roots[key]
        if struct.unpack('<q', stream.read(8)) != (root.count,):
            raise ValueError('a storage has another size than where it is referred to')
        fill_storage(memory, file)
        to_native(memory, root.dtype, 'little')
        if root.data is not memory:
            root.data.copy_(memory)
    return content


def _no_storage(reference: Any) -> None:
    raise ValueError('it refers to a storage in its head')
