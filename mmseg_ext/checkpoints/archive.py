"""Read a checkpoint in one of the formats of torch."""

from typing import Any, BinaryIO

from .legacy_archive import read_legacy
from .plain import NotDataError
from .zip_archive import read_zip

# A view may have more elements than its storage, but not more than its file, or this.
_SMALL = 1 << 20


class NotTorchError(Exception):
    """A file is in none of torch's formats."""


def read_archive(file: BinaryIO, map_location: Any) -> Any:
    """Read a checkpoint that holds data only.

    Args:
        file: open at its beginning, and can be searched.
        map_location: as in :func:`.storages.place`.

    Raises:
        NotTorchError: it is another kind of file.
        NotDataError: it holds more than data.
        PlacementError: see :func:`.storages.place`.
        Exception: nearly any, if the file is damaged.
    """
    limit = max(file.seek(0, 2), _SMALL)
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if head.startswith(b'PK\3\4'):
        return read_zip(file, map_location, limit)
    if head.startswith(b'\x80'):
        return read_legacy(file, map_location, limit)
    if head[257:262] == b'ustar':
        raise NotDataError('it is in the legacy .tar format of 2016, which is unpacked by executing it.')
    raise NotTorchError
