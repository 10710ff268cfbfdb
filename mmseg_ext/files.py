"""Files that are there whole or not at all, whatever ends the process, or the machine, while they are written."""

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PART = re.compile(r'\..+\.[0-9a-f]{32}\.part(\.[^.]+)?')


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; what was written takes the place of ``path`` when the block ends.

    Both have the same suffix. It is synced to the disk first, so that a power loss leaves the old content or the new.
    If the block raises, nothing is left of it and ``path`` is as it was.

    Raises:
        OSError: the file can't be written, e.g. as the disk is full.
    """
    path = Path(path)
    part = path.with_name(f'.{path.stem}.{uuid.uuid4().hex}.part{path.suffix}')
    try:
        yield part
        with part.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    with suppress(OSError):  # file systems that can't sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_parts(folder: str | os.PathLike, age: float = 0) -> None:
    """Remove what processes that were killed inside :func:`written_whole` have left in a folder.

    Nothing else may be writing there, unless only parts are removed that are older than ``age`` in seconds.
    """
    for path in Path(folder).glob('.*.part*'):
        if _PART.fullmatch(path.name):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= age:
                    path.unlink()
