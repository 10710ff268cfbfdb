"""Every config in configs/ builds, trains a step and predicts, shrunken."""

from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_ext.datasets.config_check import config_heads
from mmseg_ext.engine.config import load_config
from mmseg_ext.registry import DATASETS

CONFIGS = Path(__file__).parents[1] / 'configs'
FLAT = sorted(path.name for path in CONFIGS.glob('*.py') if not path.name.startswith('cls_'))
SHRINK = 8
SIZE = (64, 64)


def shrunken(name: str):
    """A config with an eighth of the channels, small images and random weights."""
    cfg = load_config(str(CONFIGS / name))
    model = cfg.model
    model.backbone.update(base_channels=64 // SHRINK, stem_channels=64 // SHRINK, init_cfg=None)
    model.data_preprocessor.size = SIZE
    for head in (model.decode_head, model.get('auxiliary_head')):
        if head is not None:
            head.in_channels //= SHRINK
            head.channels //= SHRINK
    return cfg


def samples(num_classes: int) -> list[SegDataSample]:
    meta = dict(ori_shape=SIZE, img_shape=SIZE, pad_shape=SIZE)
    labels = torch.randint(0, num_classes, (2, 1, *SIZE))
    return [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta) for label in labels]


def test_there_are_configs():
    assert 'psp_r50v1c_cityscapes.py' in FLAT


@pytest.mark.parametrize('name', FLAT)
def test_config_trains_one_step_and_predicts(name):
    cfg = shrunken(name)
    num_classes = cfg.model.decode_head.num_classes
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    images = [torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in range(2)]
    before = [p.clone() for p in model.parameters()]
    model.train()
    losses = model.train_step(dict(inputs=images, data_samples=samples(num_classes)), optim_wrapper)
    assert all(torch.isfinite(value) for value in losses.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    model.eval()
    with torch.no_grad():
        result = model.test_step(dict(inputs=images[:1], data_samples=samples(num_classes)[:1]))
    assert result[0].pred_sem_seg.data.shape == (1, *SIZE)


@pytest.mark.parametrize('name', FLAT)
def test_heads_have_as_many_classes_as_the_dataset(name):
    cfg = load_config(str(CONFIGS / name))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        classes = DATASETS.get(cfg.train_dataloader.dataset.type).METAINFO['classes']
    assert {head.num_classes for head in config_heads(cfg.model)} == {len(classes)}


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [(f'psp_r{d}v1c_cityscapes.py', f'pspnet/pspnet_r{d}-d8_4xb2-80k_cityscapes-512x1024.py') for d in (18, 50, 101)],
)
def test_cityscapes_recipes_are_mmsegs(ours, theirs):
    a, b = load_config(str(CONFIGS / ours)), load_config(f'mmseg::{theirs}')
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_pipeline', 'test_pipeline', 'val_evaluator'):
        assert a[key] == b[key], key
    for loader in ('train_dataloader', 'val_dataloader'):
        assert a[loader].batch_size == b[loader].batch_size
    assert a.model.data_preprocessor == b.model.data_preprocessor
    for part in ('decode_head', 'auxiliary_head'):
        for key, value in a.model[part].items():
            if key != 'loss_decode':
                assert b.model[part][key] == value, (part, key)
    expected = dict(b.model.backbone)
    expected.pop('init_cfg', None)
    for key in ('type', 'depth', 'strides', 'dilations', 'contract_dilation', 'norm_cfg'):
        assert a.model.backbone[key] == expected[key], key
    assert a.model.backbone.init_cfg.checkpoint == b.model.pretrained
