"""How names resolve, in every scope that a user may be in."""

import mmengine.registry as root
import mmpretrain.registry as mmpretrain_registry
import mmseg.registry as mmseg_registry
import pytest
from mmengine.registry import DefaultScope, Registry

import mmseg_ext.registry as ours
from mmseg_ext.engine.hooks import CheckpointHook
from mmseg_ext.engine.optim_wrapper import AmpOptimWrapper
from mmseg_ext.models.backbones import ResNetV1c
from mmseg_ext.models.decode_heads import PSPHead

NORM = dict(type='BN')
BACKBONE = dict(depth=18, base_channels=8, stem_channels=8, norm_cfg=NORM)
HEAD = dict(type='PSPHead', in_channels=64, channels=8, num_classes=3, norm_cfg=NORM)


def kinds(module) -> set[str]:
    return {name for name, value in vars(module).items() if name.isupper() and isinstance(value, Registry)}


def test_every_registry_of_mmseg_has_a_child_of_the_root_with_our_scope():
    mmseg_kinds = {name for name in mmseg_registry.__all__ if isinstance(getattr(mmseg_registry, name), Registry)}
    assert mmseg_kinds == kinds(ours)
    for name in mmseg_kinds:
        registry = getattr(ours, name)
        assert registry.scope == 'mmseg_ext'
        assert registry.parent is getattr(mmseg_registry, name).parent
        assert registry.parent.children['mmseg_ext'] is registry


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain', 'mmengine', 'mmseg_ext', None])
@pytest.mark.parametrize('registry', [root.MODELS, mmseg_registry.MODELS, mmpretrain_registry.MODELS, ours.MODELS])
def test_the_prefix_builds_our_class_from_every_scope_and_registry(scope, registry):
    with DefaultScope.overwrite_default_scope(scope):
        model = registry.build(dict(type='mmseg_ext.ResNetV1c', **BACKBONE))
    assert type(model) is ResNetV1c


@pytest.mark.parametrize(
    ('registry', 'name', 'module'),
    [
        ('MODELS', 'PSPHead', 'mmseg_ext.'),
        ('MODELS', 'NLHead', 'mmseg.'),
        ('MODELS', 'EncoderDecoder', 'mmseg'),
        ('DATASETS', 'CamVidDataset', 'mmseg_ext.'),
        ('DATASETS', 'CityscapesDataset', 'mmseg.'),
        ('TRANSFORMS', 'LoadAnnotations', 'mmseg.'),
        ('TRANSFORMS', 'PackSegInputs', 'mmseg.'),
        ('TRANSFORMS', 'LoadImageFromFile', 'mmcv.'),
        ('METRICS', 'IoUMetric', 'mmseg_ext.'),
        ('VISUALIZERS', 'SegLocalVisualizer', 'mmseg.'),
        ('VISBACKENDS', 'LocalVisBackend', 'mmengine.'),
        ('HOOKS', 'CheckpointHook', 'mmseg_ext.'),
        ('HOOKS', 'SegVisualizationHook', 'mmseg.'),
        ('HOOKS', 'LoggerHook', 'mmengine.'),
        ('OPTIM_WRAPPERS', 'AmpOptimWrapper', 'mmseg_ext.'),
        ('OPTIM_WRAPPERS', 'OptimWrapper', 'mmengine.'),
        ('OPTIM_WRAPPER_CONSTRUCTORS', 'LayerDecayOptimizerConstructor', 'mmseg.'),
        ('RUNNERS', 'Runner', 'mmseg_ext.'),
        ('LOOPS', 'IterBasedTrainLoop', 'mmengine.'),
    ],
)
def test_in_our_scope_a_name_is_ours_then_mmsegs_then_the_roots(registry, name, module):
    parent = getattr(ours, registry).parent
    with parent.switch_scope_and_registry('mmseg_ext') as found:
        assert found.get(name).__module__.startswith(module)


def test_an_unknown_name_is_the_usual_key_error():
    with pytest.raises(KeyError, match='NoSuchHead'):
        ours.MODELS.build(dict(type='NoSuchHead'))


def test_in_mmsegs_scope_unprefixed_names_stay_mmsegs():
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert root.MODELS.build(dict(HEAD, type='PSPHead')).__module__.startswith('mmseg.')


def test_our_backbone_and_head_nest_in_mmsegs_encoder_decoder_by_prefix():
    model = dict(
        type='EncoderDecoder',
        backbone=dict(type='mmseg_ext.ResNetV1c', **BACKBONE),
        decode_head=dict(HEAD, type='mmseg_ext.PSPHead'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = root.MODELS.build(model)
    assert type(built.backbone) is ResNetV1c
    assert type(built.decode_head) is PSPHead


def test_our_scope_replaces_the_classes_inside_mmsegs_encoder_decoder():
    model = dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', **BACKBONE), decode_head=HEAD)
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        built = root.MODELS.build(model)
    assert type(built.backbone) is ResNetV1c
    assert type(built.decode_head) is PSPHead


def test_our_backbone_trains_in_mmpretrains_classifier():
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='mmseg_ext.ResNetV1c', out_indices=(3,), **BACKBONE),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = root.MODELS.build(model)
    assert type(built.backbone) is ResNetV1c


def test_hooks_and_optimizer_wrappers_resolve_by_prefix_from_mmsegs_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert root.HOOKS.get('mmseg_ext.CheckpointHook') is CheckpointHook
        assert root.OPTIM_WRAPPERS.get('mmseg_ext.AmpOptimWrapper') is AmpOptimWrapper
