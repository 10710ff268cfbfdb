"""Make mmengine load checkpoints through us.

mmengine's ``CheckpointLoader`` has one function for every kind of address. All of them end in ``torch.load`` without
``weights_only``, or with a fall-back to unpickling; where it chooses the function, we give it one of ours.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mmengine.fileio import get_file_backend
from mmengine.runner.checkpoint import CheckpointLoader, _process_mmcls_checkpoint

from .download import load_checkpoint
from .loading import load_bytes


# mmengine logs what follows "load_from_" in these names.
def load_from_file_or_url(source: str, map_location: Any = None) -> Any:
    return load_checkpoint(source, map_location)


def load_from_mmcls(source: str, map_location: Any = None) -> dict:
    return _process_mmcls_checkpoint(load_checkpoint(source, map_location))


def load_from_ceph(source: str, map_location: Any = None) -> Any:
    backend = get_file_backend(source, backend_args={'backend': 'petrel'})
    return load_bytes(backend.get(source), source, map_location)


def load_from_unknown(source: str, map_location: Any = None) -> Any:
    scheme = source.split('://')[0]
    raise ValueError(f'checkpoint {source!r}: {scheme}:// has no safe loader; download the file and give its path')


_LOADERS = {
    '': load_from_file_or_url,
    'http://': load_from_file_or_url,
    'https://': load_from_file_or_url,
    'torchvision://': load_from_file_or_url,
    'modelzoo://': load_from_file_or_url,
    'open-mmlab://': load_from_file_or_url,
    'openmmlab://': load_from_file_or_url,
    'mmcls://': load_from_mmcls,
    r'(\S+\:)?s3://': load_from_ceph,
    r'(\S+\:)?petrel://': load_from_ceph,
}


_METHOD = '_get_checkpoint_loader'
_lock = threading.Lock()
_blocks = 0
_inside: ContextVar[bool] = ContextVar('inside safe_loading', default=False)
_theirs = CheckpointLoader.__dict__[_METHOD]


@contextmanager
def safe_loading() -> Iterator[None]:
    """Make mmengine load checkpoints through :func:`.download.load_checkpoint`, for the length of a ``with`` block.

    What runs in other threads or tasks meanwhile loads as mmengine does. Blocks may be nested and overlap, and nothing
    of them is left behind the last.
    """
    global _blocks, _theirs
    with _lock:
        if _blocks == 0 and CheckpointLoader.__dict__[_METHOD] is not _ours:
            _theirs = CheckpointLoader.__dict__[_METHOD]
            setattr(CheckpointLoader, _METHOD, _ours)
        _blocks += 1
    token = _inside.set(True)
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                setattr(CheckpointLoader, _METHOD, _theirs)
        _inside.reset(token)


@classmethod
def _ours(cls: type[CheckpointLoader], path: str) -> Callable:
    if not _inside.get():
        return _theirs.__get__(None, cls)(path)
    # As mmengine looks for it, with loaders that users have registered; those execute what they like.
    prefix = next(prefix for prefix in cls._schemes if re.match(prefix, path))
    return _LOADERS.get(prefix, load_from_unknown)
