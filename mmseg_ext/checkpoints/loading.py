"""Load checkpoint files without executing what they bring.

A ``.pth`` file is a pickle, and a pickle can run any program. torch's ``weights_only=True`` admits tensors and plain
containers only; we add what a training checkpoint of mmengine holds besides: its log history, and numpy's numbers.
onedl-mmengine falls back to full unpickling when that fails, mmengine 0.10.7 refuses its own training checkpoints on
torch >= 2.6: we do neither.
"""

import io
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from .stand_ins import safe_globals

# Set to 1 by a user who trusts where the files come from.
TRUST_VARIABLE = 'MMSEG_EXT_TRUST_CHECKPOINTS'


# What torch raises on damaged files: found by changing and cutting them at random.
_DAMAGE = (
    RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, ValueError, AssertionError, struct.error,
)  # fmt: skip


class UnsafeCheckpointError(ValueError):
    """A checkpoint holds objects beyond tensors, plain containers and mmengine's training history."""


def load_file(path: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Load a checkpoint file that holds data only: ``.pth`` in torch's new or old format, or ``.safetensors``.

    Args:
        path: a local file.
        map_location: as in :func:`torch.load`; a ``.safetensors`` file always goes to the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeCheckpointError: the file holds something that would have to be executed.
        ValueError: the file is not a checkpoint, or is damaged.
        ImportError: the file is a ``.safetensors`` and that package is not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    if path.suffix == '.safetensors':
        return _load_safetensors(path)
    return _load(path, str(path), map_location)


def load_bytes(content: bytes, name: str, map_location: Any = 'cpu') -> Any:
    """Load a checkpoint that is in memory; ``name`` is what errors call it. Raises as :func:`load_file` does."""
    return _load(io.BytesIO(content), name, map_location)


def _load(source: Path | io.BytesIO, name: str, map_location: Any) -> Any:
    if os.environ.get(TRUST_VARIABLE) == '1':
        return torch.load(source, map_location=map_location, weights_only=False)
    try:
        with torch.serialization.safe_globals(safe_globals()):
            return torch.load(source, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(source):
            raise ValueError(f'checkpoint {name} is not a torch file') from None
        raise _refusal(name, _what_torch_refused(str(error))) from None
    except _DAMAGE as error:
        reason = str(error).split(' In PyTorch 2.6')[0] or type(error).__name__
        # A TorchScript archive, or torch's tar format from before 2017.
        if 'weights_only=True' in reason:
            raise _refusal(name, reason) from None
        raise ValueError(f'checkpoint {name} could not be read, it may be damaged: {reason}') from error


def _refusal(name: str, reason: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f'checkpoint {name} was not loaded: it holds more than data, and loading that can execute code from the file. '
        f'The reason: {reason} If you trust its origin, set the environment variable {TRUST_VARIABLE}=1 and run again.'
    )


def _what_torch_refused(message: str) -> str:
    """The fact in torch's message, without its advice to set ``weights_only=False``."""
    found = re.search(r'GLOBAL (\S+)', message)
    if found:
        return f'it names {found.group(1)}.'
    reason = message.split('WeightsUnpickler error:')[-1].strip().splitlines()[0].strip()
    return reason.replace('Unsupported operand', 'it is damaged, or uses the pickle operation') + '.'


def _is_pickle(source: Path | io.BytesIO) -> bool:
    if zipfile.is_zipfile(source):
        return True
    if isinstance(source, Path):
        with source.open('rb') as file:
            return file.read(1) == b'\x80'
    return source.getvalue()[:1] == b'\x80'


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
