"""Our backbones in mmpretrain's classifier."""

from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample

from mmseg_ext.engine.config import load_config

CONFIG = Path(__file__).parents[2] / 'configs/cls_s50_imagenet.py'


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='mmseg_ext.ResNeSt', depth=14, base_channels=8, stem_channels=8), 256),
        (dict(type='mmseg_ext.ResNetV1d', depth=18, base_channels=8, stem_channels=8), 64),
        (dict(type='mmseg_ext.VGG16', norm_cfg=dict(type='BN')), 512),
        (dict(type='mmseg_ext.AlignedXception', depth=41), 2048),
    ],
)
def test_the_imagenet_config_trains_one_step_and_predicts_top_k(backbone, channels):
    cfg = load_config(str(CONFIG))
    cfg.model.backbone = dict(backbone, out_indices=(4,) if 'ResNe' not in backbone['type'] else (3,))
    cfg.model.head.in_channels = channels
    cfg.model.data_preprocessor = dict(cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    before = next(model.backbone.parameters()).clone()
    model.train()
    losses = model.train_step(dict(inputs=images, data_samples=samples), optim_wrapper)
    assert torch.isfinite(losses['loss'])
    assert not torch.equal(before, next(model.backbone.parameters()))
    model.eval()
    with torch.no_grad():
        (prediction,) = model.test_step(dict(inputs=images[:1], data_samples=samples[:1]))
    assert len(prediction.pred_score.topk(5).indices.unique()) == 5
    assert prediction.pred_score.sum().item() == pytest.approx(1.0, rel=1e-4)
