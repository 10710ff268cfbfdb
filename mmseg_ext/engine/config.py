"""Read a config: a path or the name of one that an installed package ships."""

from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config

import mmseg_ext


def load_config(path: str, cfg_options: dict | None = None, upgrade: bool = False) -> Config:
    """Load a config file.

    Args:
        path: a file, or ``package::name`` such as ``mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py``.
        cfg_options: values to replace, keys with dots.
        upgrade: use our classes in place of mmseg's of the same name; see :func:`mmseg_ext.upgrade`.

    Raises:
        FileNotFoundError: there is no such config.
    """
    if '::' in path:
        try:
            cfg = get_config(path)
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFoundError(f'config {path!r} is not among those that the package ships: {error}') from error
        cfg._filename = path.split('::', 1)[1]
    else:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"config {path!r} does not exist; give a .py file or a shipped name like 'mmseg::...'"
            )
        cfg = Config.fromfile(path)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    return mmseg_ext.upgrade(cfg) if upgrade else cfg
