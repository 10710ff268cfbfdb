"""The folder of a training: writable, of one run at a time, and without what killed runs have left half-written."""

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmseg_ext.files import remove_parts

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LOCK = '.training'
_held: dict[Path, int] = {}  # folder -> the thread that trains there
_files: set[int] = set()  # of the locks
_guard = threading.Lock()


def _forget_in_child() -> None:
    """A forked process, such as a data worker, holds nothing: it may outlive a killed parent for seconds."""
    for file in _files:
        os.close(file)
    _files.clear()
    _held.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_in_child)


class BusyError(OSError):
    """Another training writes to the folder."""


@contextmanager
def held(work_dir: str | os.PathLike) -> Iterator[None]:
    """Keep other trainings out of a folder for the length of a ``with`` block; the system ends it with the process.

    A thread that has the folder may enter again.

    Raises:
        BusyError: another training, in this or another process, has the folder.
        OSError: the folder can't be made or written to.
    """
    folder = Path(work_dir).absolute()
    check_writable(folder)
    folder, thread = folder.resolve(), threading.get_ident()
    with _guard:
        owner = _held.get(folder)
        if owner is None:
            _held[folder] = thread
    if owner == thread:
        yield
        return
    if owner is not None:
        raise BusyError(_busy(folder, 'another training in this process'))
    lock = None
    try:
        lock = _lock(folder)
        remove_parts(folder)
        yield
    finally:
        if lock in _files:
            with suppress(OSError):
                (folder / _LOCK).unlink()
            _files.discard(lock)
            os.close(lock)
        with _guard:
            _held.pop(folder, None)


def check_writable(folder: str | os.PathLike) -> None:
    """Make a folder and write to it, as a test.

    Raises:
        OSError: that isn't possible; the message says what to do.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        record = Path(folder, 'last_checkpoint')
        last = f'. Its last checkpoint is {record.read_text().strip()}' if os.path.isfile(record) else ''
        raise type(error)(
            error.errno,
            f'{error.strerror}: the work directory {folder} cannot be written to; choose another --work-dir{last}',
        ) from None


def _lock(folder: Path) -> int | None:
    """Lock a file there, until it is closed or the process ends."""
    if fcntl is None:
        return None
    while True:
        file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.read(file, 200).decode(errors='replace').strip()
            os.close(file)
            raise BusyError(_busy(folder, owner or 'another training')) from None
        except OSError:  # a file system without locks
            os.close(file)
            return None
        # Its owner may have removed the file between our opening and locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(folder / _LOCK)):
                break
        os.close(file)
    _files.add(file)
    os.ftruncate(file, 0)
    os.write(
        file, f'process {os.getpid()} on {socket.gethostname()}, since {time.strftime("%Y-%m-%d %H:%M:%S")}'.encode()
    )
    return file


def _busy(folder: Path, owner: str) -> str:
    return f'{folder} is in use by {owner}; wait for its end, or choose another --work-dir'
