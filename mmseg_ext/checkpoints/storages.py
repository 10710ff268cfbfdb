"""Storages of a checkpoint: read once, straight into their memory, and put where the caller wants them."""

import ctypes
import sys
from typing import Any, BinaryIO

import torch
from torch.serialization import default_restore_location


class PlacementError(Exception):
    """What ``map_location`` raised, as the cause of this."""


def read_storage(file: BinaryIO, size: int) -> torch.UntypedStorage:
    """Read ``size`` bytes from where the file is; the caller knows that it has them.

    Raises:
        EOFError: it hasn't.
    """
    storage = torch.UntypedStorage(size, device='cpu')
    fill_storage(storage, file)
    return storage


def fill_storage(storage: torch.UntypedStorage, file: BinaryIO) -> None:
    """As :func:`read_storage`, into a storage on the CPU."""
    if storage.nbytes() == 0:
        return
    # Not by way of numpy, which forbids to resize the storage ever after.
    memory = memoryview((ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())).cast('B')
    while memory:
        count = file.readinto(memory)
        if not count:
            raise EOFError('it ends in the middle of a tensor')
        memory = memory[count:]


def to_native(storage: torch.UntypedStorage, dtype: torch.dtype, byte_order: str) -> None:
    """Change the bytes of a storage from the order of the file to that of this machine."""
    if byte_order != sys.byteorder:
        storage.byteswap(dtype)


def place(storage: torch.UntypedStorage, location: str, map_location: Any) -> torch.UntypedStorage:
    """Return a storage where ``map_location`` says, which is read as :func:`torch.load` reads it.

    None means where it was saved from, or the CPU if this machine has no such device.

    Raises:
        PlacementError: it can't be put there.
    """
    try:
        if map_location is None:
            return default_restore_location(storage, location) if _is_here(location) else storage
        if isinstance(map_location, (str, torch.device)):
            return default_restore_location(storage, str(map_location))
        if isinstance(map_location, dict):
            return default_restore_location(storage, map_location.get(location, location))
        placed = map_location(storage, location)
        return default_restore_location(storage, location) if placed is None else placed
    except Exception as error:
        raise PlacementError from error


def _is_here(location: str) -> bool:
    try:
        device = torch.device(location)
    except RuntimeError:
        return False
    backend = getattr(torch, device.type, None)
    return hasattr(backend, 'device_count') and (device.index or 0) < backend.device_count()
