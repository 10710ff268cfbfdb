"""The zip archives that ``torch.save`` writes: ``NAME/data.pkl`` and one record for each storage, not compressed.

The checksums are not looked at, as torch doesn't: it can be told to write none. What tells damage is that every record
lies where it should, between its neighbours, under its name and with its size. That, and that nothing is compressed,
also bounds what a file can make to its own size.
"""

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from .plain import NotDataError, short
from .rebuilding import unpickle
from .storages import place, read_storage, to_native
from .tensors import Storage, read_reference
from .unpickling import Stream

_HEADER = struct.Struct('<4s22xHH')


@dataclass(frozen=True, slots=True)
class _Record:
    start: int
    size: int


def read_zip(file: BinaryIO, map_location: Any, limit: int) -> Any:
    """Read a checkpoint in torch's zip format.

    Args:
        file: at its beginning.
        map_location: as in :func:`.storages.place`.
        limit: bytes that a tensor may have.

    Raises:
        NotDataError: it holds more than data.
        PlacementError: see :func:`.storages.place`.
        Exception: nearly any, if the file is damaged.
    """
    records = _find_records(file)
    if 'constants.pkl' in records:
        raise NotDataError('it is a TorchScript archive, which is a program.')
    if 'data.pkl' not in records:
        raise ValueError('it has no data.pkl')
    byte_order = _read(file, records['byteorder']).decode() if 'byteorder' in records else 'little'
    if byte_order not in ('little', 'big'):
        raise ValueError(f'its byte order is {byte_order[:20]!r}')
    storages: dict[str, torch.UntypedStorage] = {}

    def load_storage(reference: tuple) -> Storage:
        dtype, key, location, count = read_reference(reference, 5)
        size = count * dtype.itemsize
        record = records.get(f'data/{key}')
        if record is None:
            raise ValueError(f'it has no storage {short(key)}')
        if record.size != size:
            raise ValueError(f'a storage has {record.size} bytes instead of {size}')
        if key not in storages:
            file.seek(record.start)
            storage = read_storage(file, size)
            to_native(storage, dtype, byte_order)
            storages[key] = place(storage, location, map_location)
        return Storage(storages[key], dtype, 0, count)

    pickled = io.BytesIO(_read(file, records['data.pkl']))
    return unpickle(Stream(pickled), load_storage, limit)


def _find_records(file: BinaryIO) -> dict[str, _Record]:
    """Return the records of an archive by their names below its folder; they don't overlap."""
    with zipfile.ZipFile(file) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        end_of_records = archive.start_dir
    records: dict[str, _Record] = {}
    for info, following in zip(infos, [*(info.header_offset for info in infos[1:]), end_of_records], strict=True):
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError('it is compressed or encrypted, which torch.save does not do')
        name = info.orig_filename.encode('utf-8' if info.flag_bits & 0x800 else 'cp437')
        file.seek(info.header_offset)
        signature, name_size, extra_size = _HEADER.unpack(file.read(_HEADER.size))
        if signature != b'PK\3\4' or file.read(name_size) != name:
            raise ValueError('its table of contents is not that of its records')
        start = info.header_offset + _HEADER.size + name_size + extra_size
        if start + info.file_size > following:
            raise ValueError('its records overlap')
        inner = info.orig_filename.partition('/')[2]
        if inner in records:
            raise ValueError('two of its records have one name')
        records[inner] = _Record(start, info.file_size)
    return records


def _read(file: BinaryIO, record: _Record) -> bytes:
    file.seek(record.start)
    return file.read(record.size)
