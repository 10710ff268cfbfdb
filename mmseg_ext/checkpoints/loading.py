"""Load checkpoint files without executing what they bring.

A ``.pth`` file is a pickle, and a pickle can run any program. torch's ``weights_only=True`` admits tensors and plain
containers only; we add the few data classes that a training checkpoint of mmengine holds. onedl-mmengine falls back to
full unpickling when that fails, mmengine 0.10.7 refuses its own training checkpoints on torch >= 2.6: we do neither.
"""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

# Set to 1 by a user who trusts where the files come from.
TRUST_VARIABLE = 'MMSEG_EXT_TRUST_CHECKPOINTS'


class UnsafeCheckpointError(ValueError):
    """A checkpoint holds objects beyond tensors, plain containers and mmengine's training history."""


def _safe_classes() -> list:
    """Constructors of plain data: numpy arrays and scalars, and mmengine's log history."""
    core = np._core if hasattr(np, '_core') else np.core
    dtypes = [
        type(np.dtype(kind)) for kind in ('bool', 'u1', 'u2', 'u4', 'u8', 'i1', 'i2', 'i4', 'i8', 'f2', 'f4', 'f8')
    ]
    functions = [core.multiarray._reconstruct, core.multiarray.scalar]
    # Files written by numpy 1 name numpy.core, those by numpy 2 numpy._core.
    named = [(f, f'numpy.{package}.multiarray.{f.__name__}') for f in functions for package in ('core', '_core')]
    return [*named, np.ndarray, np.dtype, *dtypes, HistoryBuffer]


def load_file(path: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Load a checkpoint file that holds data only.

    Args:
        path: a local file.
        map_location: as in :func:`torch.load`.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeCheckpointError: the file holds something that would have to be executed.
        ValueError: the file is not a checkpoint, or is damaged.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    if os.environ.get(TRUST_VARIABLE) == '1':
        return torch.load(path, map_location=map_location, weights_only=False)
    try:
        with torch.serialization.safe_globals(_safe_classes()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's advice to set weights_only=False is what the reader should not follow blindly.
        reason = str(error).split('Please file an issue')[0]
        if 'Unsupported' in reason or 'GLOBAL' in reason or 'class' in reason:
            reason = next((line.strip() for line in reason.splitlines() if 'GLOBAL' in line), reason.strip())
            raise UnsafeCheckpointError(
                f'checkpoint {path} was not loaded: it holds more than data, and unpickling that would execute code '
                f'from the file. {reason} If you trust its origin, set {TRUST_VARIABLE}=1 and run again.'
            ) from None
        raise ValueError(f'checkpoint {path} is not a readable torch file: {reason}') from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f'checkpoint {path} is damaged or not a torch file: {error}') from error


def install_safe_loading() -> None:
    """Make mmengine load local checkpoint files through :func:`load_file`, for the rest of the process.

    Our tools call it first; importing the package doesn't change mmengine.
    """
    _replace_loader('', lambda filename, map_location=None: load_file(filename, map_location))


def _replace_loader(prefix: str, loader: Callable) -> None:
    CheckpointLoader.register_scheme(prefix, loader=loader, force=True)
