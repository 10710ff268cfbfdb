"""What a test changes about a trained model."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.switches import set_output_stride, use_tta
from tests.tools.conftest import ROOT

CONFIG = str(ROOT / 'configs/deeplabv3plus_r18v1c_camvid.py')


def rates(head: nn.Module) -> set[int]:
    return {m.dilation[0] for m in head.aspp_modules.modules() if isinstance(m, nn.Conv2d)}


@pytest.mark.parametrize(('keep_rates', 'expected'), [(False, {1, 6, 12, 18}), (True, {1, 3, 6, 9})])
def test_rates_follow_the_output_stride_unless_they_are_kept(keep_rates, expected):
    cfg = load_config(CONFIG)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
    set_output_stride(model, 8, keep_rates)
    assert rates(model.decode_head) == expected
    assert model.extract_feat(torch.zeros(1, 3, 64, 64))[-1].shape[2:] == (8, 8)


@pytest.mark.parametrize(
    ('keep_rates', 'remedy'),
    [
        (False, r"EncoderDecoder cannot change it; use --upgrade, or type='mmseg_ext\.EncoderDecoder' in the config"),
        (True, r'ResNet cannot change it; use --upgrade, or a backbone of mmseg_ext in the config'),
    ],
)
def test_a_network_of_mmsegs_is_refused_with_the_remedy(keep_rates, remedy):
    backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
    head = dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_classes=5)
    cfg = dict(type='EncoderDecoder', backbone=backbone, decode_head=head)
    with DefaultScope.overwrite_default_scope('mmseg'), MODELS.switch_scope_and_registry(None) as registry:
        model = registry.build(cfg)
    with pytest.raises(ValueError, match=rf'--output-stride 8: mmseg\..*{remedy}'):
        set_output_stride(model, 8, keep_rates)


def test_our_test_time_augmentation_does_not_keep_logits_and_mmsegs_does():
    ours, theirs = load_config(CONFIG), load_config(CONFIG, {'tta_model.type': 'mmseg.SegTTAModel'})
    for cfg in (ours, theirs):
        use_tta(cfg)
    assert 'keep_logits' not in ours.model.module.test_cfg
    assert theirs.model.module.test_cfg.keep_logits
