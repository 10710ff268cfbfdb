"""Read a config: a path or the name of one that an installed package ships."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config

import mmseg_ext


@contextmanager
def shipped_configs() -> Iterator[None]:
    """Make names like ``mmseg::...`` work on the onedl stack, also in ``_base_``.

    onedl-mmengine looks for the distribution ``mmsegmentation``; its own is called ``onedl-mmsegmentation``.
    """
    original = dict(MODULE2PACKAGE)
    MODULE2PACKAGE.update(
        {
            module: f'onedl-{package}'
            for module, package in original.items()
            if not _is_installed(package) and _is_installed(f'onedl-{package}')
        }
    )
    try:
        yield
    finally:
        MODULE2PACKAGE.update(original)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def load_config(path: str, cfg_options: dict | None = None, upgrade: bool = False) -> Config:
    """Load a config file.

    Args:
        path: a file, or ``package::name`` such as ``mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py``.
        cfg_options: values to replace, keys with dots.
        upgrade: use our classes in place of mmseg's of the same name; see :func:`mmseg_ext.upgrade`.

    Raises:
        FileNotFoundError: there is no such config.
    """
    with shipped_configs():
        if '::' in path:
            package = path.split('::')[0]
            if importlib.util.find_spec(package) is None:  # mmengine would pip install it
                raise FileNotFoundError(f'config {path!r}: the package {package!r} is not installed')
            try:
                cfg = get_config(path)
            except (FileNotFoundError, ValueError) as error:
                raise FileNotFoundError(f'config {path!r} is not among those the package ships: {error}') from error
        elif not Path(path).is_file():
            raise FileNotFoundError(
                f"config {path!r} does not exist; give a .py file or a shipped name like 'mmseg::...'"
            )
        else:
            cfg = Config.fromfile(path)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    return mmseg_ext.upgrade(cfg) if upgrade else cfg
