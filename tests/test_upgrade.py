from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmseg_ext
from mmseg_ext.engine.config import load_config

SHIPPED = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
SMALL = {
    'model.pretrained': None,
    'model.backbone.base_channels': 8,
    'model.decode_head.in_channels': 64,
    'model.auxiliary_head.in_channels': 32,
}


def inherit(tmp_path) -> Config:
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = {SHIPPED!r}\n')
    return load_config(str(path))


def stamps(node) -> set[str]:
    if isinstance(node, dict):
        own = {node['_scope_']} if '_scope_' in node else set()
        return own.union(*(stamps(value) for value in node.values()))
    if isinstance(node, (list, tuple)):
        return set().union(*(stamps(value) for value in node))
    return set()


def module_of(cfg: Config, part: str) -> str:
    cfg.merge_from_dict(SMALL)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    return type(getattr(model, part)).__module__


def test_upgrade_removes_the_stamps_that_inheritance_from_mmseg_leaves(tmp_path):
    cfg = inherit(tmp_path)
    assert stamps(cfg._cfg_dict) == {'mmseg'}
    assert stamps(mmseg_ext.upgrade(cfg)._cfg_dict) == set()


def test_without_upgrade_the_stamps_keep_mmsegs_classes(tmp_path):
    cfg = inherit(tmp_path)
    cfg.default_scope = 'mmseg_ext'
    assert module_of(cfg, 'decode_head').startswith('mmseg.')


def test_upgraded_config_builds_our_classes_where_we_have_them(tmp_path):
    cfg = mmseg_ext.upgrade(inherit(tmp_path))
    assert module_of(cfg, 'backbone').startswith('mmseg_ext.')
    assert module_of(cfg, 'decode_head').startswith('mmseg_ext.')


def test_upgrade_leaves_the_given_config_and_other_scopes_alone():
    cfg = Config(dict(default_scope='mmseg', a=[dict(type='X', _scope_='mmpretrain'), dict(type='Y', _scope_='mmseg')]))
    upgraded = mmseg_ext.upgrade(cfg)
    assert cfg.default_scope == 'mmseg'
    assert cfg.a[1]._scope_ == 'mmseg'
    assert stamps(upgraded._cfg_dict) == {'mmpretrain'}


def test_shipped_name_loads_with_options_and_upgrade():
    cfg = load_config(SHIPPED, {'model.decode_head.channels': 16}, upgrade=True)
    assert cfg.default_scope == 'mmseg_ext'
    assert cfg.model.decode_head.channels == 16
    assert module_of(cfg, 'decode_head').startswith('mmseg_ext.')
