"""Turn an mmseg config into the same config in our scope."""

import copy

from mmengine.config import Config

from .registry import MODELS


def upgrade(cfg: Config) -> Config:
    """Return a copy of an mmseg config in which our classes replace mmseg's of the same name.

    For a config without a ``_base_`` in mmseg's package, ``default_scope = 'mmseg_ext'`` alone does that. But
    ``_base_ = 'mmseg::...'`` stamps ``_scope_ = 'mmseg'`` on every inherited dict, and such a dict is built from
    mmseg's registry whatever the default scope is. This removes those stamps (and no other scope's) and sets the
    default scope. An explicit ``mmseg.`` prefix in a ``type`` keeps its meaning.
    """
    cfg = copy.deepcopy(cfg)
    _remove_stamps(cfg._cfg_dict)
    cfg.default_scope = MODELS.scope
    return cfg


def _remove_stamps(node) -> None:
    if isinstance(node, dict):
        if node.get('_scope_') == 'mmseg':
            del node['_scope_']
        for value in node.values():
            _remove_stamps(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _remove_stamps(value)
