"""Every config in configs/ builds, trains a step and predicts, shrunken; those of published recipes equal mmseg's."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.checkpoints.urls import resolve
from mmseg_ext.datasets.config_check import config_heads
from mmseg_ext.engine.config import load_config
from mmseg_ext.registry import DATASETS
from tests.reference.weights import randomise, relative_error

CONFIGS = Path(__file__).parents[1] / 'configs'
FLAT = sorted(path.name for path in CONFIGS.glob('*.py') if not path.name.startswith('cls_'))
ATROUS = [name for name in FLAT if name.startswith('deeplabv3') and not name.endswith('r18v1c_cityscapes.py')]
SHRINK = 8
SIZE = (64, 64)

# Ours -> mmseg's.
PUBLISHED = {
    **{
        f'{ours}_r{depth}v1c_cityscapes.py': f'{theirs}/{theirs}_r{depth}-d8_4xb2-80k_cityscapes-512x1024.py'
        for ours, theirs in (('psp', 'pspnet'), ('deeplabv3', 'deeplabv3'), ('deeplabv3plus', 'deeplabv3plus'))
        for depth in (18, 50, 101)
    },
    **{
        f'{name}_r101v1c_os16_cityscapes.py': f'{name}/{name}_r101-d16-mg124_4xb2-80k_cityscapes-512x1024.py'
        for name in ('deeplabv3', 'deeplabv3plus')
    },
    'psp_s101_cityscapes.py': 'resnest/resnest_s101-d8_pspnet_4xb2-80k_cityscapes512x1024.py',
    'deeplabv3_s101_cityscapes.py': 'resnest/resnest_s101-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py',
    'deeplabv3plus_s101_cityscapes.py': 'resnest/resnest_s101-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024.py',
    'upernet_r50_cityscapes.py': 'upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py',
}
# Ours learn them from the backbone.
LEARNT = ('in_channels', 'c1_in_channels')


def published(name: str) -> tuple[Config, Config]:
    return load_config(str(CONFIGS / name)), load_config(f'mmseg::{PUBLISHED[name]}')


def heads(cfg: Config) -> list[dict]:
    return [cfg.model[part] for part in ('decode_head', 'auxiliary_head') if cfg.model.get(part)]


def shrunken(cfg: Config) -> Config:
    """Give a config an eighth of the channels, small images and random weights."""
    backbone = cfg.model.backbone
    backbone.init_cfg = cfg.model.pretrained = None
    if backbone.type == 'AlignedXception':  # its widths are fixed
        backbone.depth = 41
    elif backbone.type != 'VGG16':  # so are its
        backbone.update(base_channels=64 // SHRINK, stem_channels=backbone.get('stem_channels', 64) // SHRINK)
    cfg.model.data_preprocessor.size = SIZE
    for head in heads(cfg):
        for key in {'channels', 'hidden_channels', *LEARNT} & head.keys():
            width = head[key]
            head[key] = [c // SHRINK for c in width] if isinstance(width, list) else width // SHRINK
    return cfg


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def samples(num_classes: int) -> list[SegDataSample]:
    meta = dict(ori_shape=SIZE, img_shape=SIZE, pad_shape=SIZE)
    labels = torch.randint(0, num_classes, (2, 1, *SIZE))
    return [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta) for label in labels]


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    # Large enough for the last features to have room for every dilation of the backbones.
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    return model.eval()(x)


def test_there_are_configs():
    assert 'psp_r50v1c_cityscapes.py' in FLAT


@pytest.mark.parametrize('name', FLAT)
def test_config_trains_one_step_and_predicts(name):
    cfg = shrunken(load_config(str(CONFIGS / name)))
    num_classes = cfg.model.decode_head.num_classes
    model = build(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
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


@pytest.mark.parametrize('name', FLAT)
def test_weights_of_the_backbone_are_published_or_none_are_named(name):
    init_cfg = load_config(str(CONFIGS / name)).model.backbone.init_cfg
    if name.endswith('_camvid.py'):
        assert init_cfg is None
    else:
        assert resolve(init_cfg.checkpoint).startswith('https://')


@pytest.mark.parametrize('name', PUBLISHED)
def test_cityscapes_recipes_are_mmsegs(name):
    ours, theirs = published(name)
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_pipeline', 'test_pipeline', 'val_evaluator'):
        assert ours[key] == theirs[key], key
    for loader in ('train_dataloader', 'val_dataloader'):
        assert ours[loader].batch_size == theirs[loader].batch_size
    assert ours.model.data_preprocessor == theirs.model.data_preprocessor
    for head, expected in zip(heads(ours), heads(theirs), strict=True):
        expected = {key: value for key, value in expected.items() if key not in LEARNT}
        assert expected.pop('loss_decode') == dict(head.pop('loss_decode'), use_sigmoid=False)
        assert head == expected
    for key in ('type', 'depth', 'norm_cfg'):
        assert ours.model.backbone[key] == theirs.model.backbone[key], key
    assert ours.model.backbone.init_cfg.checkpoint == theirs.model.pretrained


@pytest.mark.parametrize('name', PUBLISHED)
def test_networks_of_published_recipes_have_mmsegs_keys_and_logits(name):
    ours, theirs = (build(shrunken(cfg)) for cfg in published(name))
    randomise(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    expected = logits(theirs)
    assert expected.std() > 1e-3
    assert relative_error(logits(ours), expected) <= 1e-5


@pytest.mark.parametrize('name', ATROUS)
def test_output_stride_of_a_deeplab_can_be_changed_and_changed_back(name):
    model = randomise(build(shrunken(load_config(str(CONFIGS / name)))))
    before = logits(model)
    native = model.backbone.output_stride
    for output_stride in (24 - native, native):
        model.set_output_stride(output_stride)
        features = model.extract_feat(torch.randn(1, 3, *SIZE))
        assert features[-1].shape[2:] == (SIZE[0] // output_stride, SIZE[1] // output_stride)
        convs = [m for m in model.decode_head.aspp_modules.modules() if isinstance(m, nn.Conv2d)]
        # On CamVid's small crops half the papers' field of view.
        reach = 48 if name.endswith('camvid.py') else 96
        assert {conv.dilation[0] for conv in convs} == {1, *(k * reach // output_stride for k in (1, 2, 3))}
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize('name', ['deeplabv3_r18v1c_cityscapes.py', 'deeplabv3plus_r18v1c_cityscapes.py'])
def test_output_stride_of_mmsegs_resnet18_cannot_be_changed(name):
    model = build(shrunken(load_config(str(CONFIGS / name))))
    # mmseg dilates only the first convolution of its blocks.
    with pytest.raises(ValueError, match='built denser without dilating this layer'):
        model.set_output_stride(16)
