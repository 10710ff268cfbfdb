"""Make mmengine load checkpoints through us.

mmengine's ``CheckpointLoader`` has one function for every kind of address. All of them end in ``torch.load`` without
``weights_only``, or with a fall-back to unpickling; we put ours in the place of each.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
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


def install_safe_loading() -> None:
    """Make mmengine load checkpoints through :func:`.download.load_checkpoint`, for the rest of the process.

    Our tools call it first; importing the package doesn't change mmengine.
    """
    for prefix in list(CheckpointLoader._schemes):
        CheckpointLoader.register_scheme(prefix, loader=_LOADERS.get(prefix, load_from_unknown), force=True)


@contextmanager
def safe_loading() -> Iterator[None]:
    """As :func:`install_safe_loading`, for the length of a ``with`` block."""
    before = OrderedDict(CheckpointLoader._schemes)
    install_safe_loading()
    try:
        yield
    finally:
        CheckpointLoader._schemes = before
