"""Load checkpoint files without executing what they bring.

A ``.pth`` file is a pickle, and a pickle can run any program. torch's ``weights_only=True`` admits less, but what it
admits is decided for the whole process, by anyone; onedl-mmengine falls back to full unpickling when that fails, and
mmengine 0.10.7 refuses its own training checkpoints on torch >= 2.6. So files are read here from their bytes up:
:mod:`.archive` finds the parts, :mod:`.unpickling` is a pickle machine without means to act, :mod:`.rebuilding` makes
values. No setting of torch and no other thread changes what is admitted.
"""

import io
import os
import pickle
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .archive import NotTorchError, read_archive
from .plain import NotDataError
from .storages import PlacementError

# Set to 1 by a user who trusts where the files come from.
TRUST_VARIABLE = 'MMSEG_EXT_TRUST_CHECKPOINTS'

# What damaged files bring about: found by changing and cutting them at random.
_DAMAGE = (
    RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError,
    AssertionError, struct.error, pickle.PickleError, zipfile.BadZipFile,
)  # fmt: skip


class UnsafeCheckpointError(ValueError):
    """A checkpoint holds objects beyond tensors, plain containers and mmengine's training history."""


def load_file(path: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Load a checkpoint file that holds data only: ``.pth`` in torch's new or old format, or ``.safetensors``.

    Containers come as exact dicts, lists, tuples and sets, tensors and parameters as plain tensors without gradient.

    Args:
        path: a local file.
        map_location: as in :func:`torch.load`, but None means the CPU for what was saved from a device that is not
            here; a ``.safetensors`` file always goes to the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        UnsafeCheckpointError: the file holds something that would have to be executed.
        ValueError: the file is not a checkpoint, or is damaged; or ``map_location`` is not here.
        ImportError: the file is a ``.safetensors`` and that package is not installed.
    """
    path = Path(os.path.expanduser(path))
    _check_readable(path)
    if path.suffix == '.safetensors':
        return _load_safetensors(path)
    with path.open('rb') as file:
        return _load(file, str(path), map_location)


def load_bytes(content: bytes, name: str, map_location: Any = 'cpu') -> Any:
    """Load a checkpoint that is in memory; ``name`` is what errors call it. Raises as :func:`load_file` does."""
    if not content:
        raise ValueError(f'checkpoint {name} is empty')
    return _load(io.BytesIO(content), name, map_location)


def _check_readable(path: Path) -> None:
    try:
        status = path.stat()
    except PermissionError:
        raise PermissionError(f'checkpoint {path} is in a folder that you may not read: see its permissions') from None
    except (OSError, ValueError):
        raise FileNotFoundError(f'checkpoint {path} does not exist') from None
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f'checkpoint {path} is a folder; give the path of a file in it')
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f'checkpoint {path} is a device or pipe; save it to a file and give its path')
    if not os.access(path, os.R_OK):
        raise PermissionError(f'checkpoint {path} may not be read by you: see its permissions')
    if status.st_size == 0:
        raise ValueError(f'checkpoint {path} is empty: copy or download it again')


def _load(file: BinaryIO, name: str, map_location: Any) -> Any:
    if os.environ.get(TRUST_VARIABLE) == '1':
        return torch.load(file, map_location=map_location, weights_only=False)
    try:
        return read_archive(file, map_location)
    except NotTorchError:
        raise ValueError(f'checkpoint {name} is not a torch file') from None
    except NotDataError as error:
        raise UnsafeCheckpointError(
            f'checkpoint {name} was not loaded: it holds more than data, and loading that can execute code from the '
            f'file. The reason: {error} If you trust its origin, set the environment variable {TRUST_VARIABLE}=1 and '
            'run again.'
        ) from None
    except PlacementError as error:
        if isinstance(map_location, (str, torch.device, dict)):
            message = f'checkpoint {name} can not be put where map_location={map_location!r} says: {error.__cause__}'
            raise ValueError(message) from error.__cause__
        raise error.__cause__ from None
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f'checkpoint {name} could not be read, it may be damaged: {reason}') from error


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file as load_safetensors
    except ImportError:
        raise ImportError(f'checkpoint {path} needs the package safetensors: pip install safetensors') from None
    try:
        return load_safetensors(path)
    except SafetensorError as error:
        raise ValueError(f'checkpoint {path} could not be read, it may be damaged: {error}') from error
