"""What a backbone does with weights: the account, the errors, other numbers of channels, every scope and process."""

import logging
import os
import re
import subprocess
import sys

import mmpretrain.registry as mmpretrain_registry
import mmseg.registry as mmseg_registry
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS, DefaultScope
from timm.models._manipulate import adapt_input_conv
from torch import nn

from mmseg_ext.checkpoints import PretrainedMixin, UnsafeCheckpointError, load_pretrained
from mmseg_ext.checkpoints.input_channels import adapt_input_channels
from mmseg_ext.models.backbones import ResNet, ResNetV1c
from tests.reference.malicious import save_malicious
from tests.reference.weights import randomise

SMALL = dict(depth=18, base_channels=4, stem_channels=4)
THREE_STAGES = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2), **SMALL)


@pytest.fixture
def weights(tmp_path) -> str:
    """Weights of a small ResNetV1c with a classifier behind it."""
    state_dict = dict(randomise(ResNetV1c(**SMALL)).state_dict(), **{'fc.weight': torch.ones(2, 2)})
    torch.save(state_dict, tmp_path / 'weights.pth')
    return str(tmp_path / 'weights.pth')


def pretrained(checkpoint: str, **options) -> dict:
    return dict(type='Pretrained', checkpoint=checkpoint, **options)


def equal(module: nn.Module, checkpoint: str) -> bool:
    expected = torch.load(checkpoint, weights_only=True)
    return all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


def test_the_account_names_every_key(weights):
    backbone = ResNetV1c(**THREE_STAGES)
    coverage = load_pretrained(backbone, weights)
    assert coverage.loaded == list(backbone.state_dict())
    assert coverage.missing == []
    assert coverage.mismatched == {}
    assert coverage.left_out == ['fc.weight']
    assert {key.split('.')[0] for key in coverage.unexpected} == {'layer4'}
    report = str(coverage)
    assert f'{len(coverage.loaded)} loaded, 0 missing, {len(coverage.unexpected)} unexpected (layer4.0.conv1' in report
    assert '1 left out (fc.weight)' in report


def test_the_account_is_logged_as_a_warning_if_keys_are_left_over(weights):
    records = []
    logger = MMLogger.get_current_instance()
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        load_pretrained(ResNetV1c(**SMALL), weights)
        load_pretrained(ResNetV1c(**THREE_STAGES), weights)
    finally:
        logger.removeHandler(handler)
    ours = [record for record in records if 'weights of ResNetV1c' in record.getMessage()]
    assert [record.levelno for record in ours] == [logging.INFO, logging.WARNING]


def test_missing_weights_are_an_error_with_keys_layout_and_remedy_and_change_nothing(tmp_path):
    source = ResNet(**SMALL)
    torch.save(source.state_dict(), tmp_path / 'w.pth')
    backbone = ResNetV1c(**SMALL)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    message = (
        r'w\.pth does not fit ResNetV1c: 15 missing \(stem\.0\.weight, stem\.1\.weight, '
        r"stem\.1\.bias, \.\.\.\), \d+ fit\. Its layout: torchvision.*allow_missing=\['stem\.'\]"
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(backbone, tmp_path / 'w.pth')
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    coverage = load_pretrained(backbone, tmp_path / 'w.pth', allow_missing=['stem.'])
    assert len(coverage.missing) == 15
    assert coverage.unexpected == [key for key in source.state_dict() if key.startswith(('conv1', 'bn1'))]
    assert torch.equal(backbone.layer1[0].conv1.weight, source.layer1[0].conv1.weight)


def test_another_shape_is_an_error_with_both_shapes_unless_it_may_be_missing(weights):
    backbone = ResNetV1c(depth=18, base_channels=4, stem_channels=8)
    with pytest.raises(ValueError, match=r'stem\.0\.weight: \(2, 3, 3, 3\) in the file, \(4, 3, 3, 3\) in the model'):
        load_pretrained(backbone, weights)
    coverage = load_pretrained(backbone, weights, allow_missing=['stem.', 'layer1.0.'])
    assert coverage.mismatched['stem.0.weight'] == ((2, 3, 3, 3), (4, 3, 3, 3))


def test_old_weights_without_batch_counts_are_complete(tmp_path, weights):
    state_dict = torch.load(weights, weights_only=True)
    torch.save({k: v for k, v in state_dict.items() if 'num_batches' not in k}, tmp_path / 'old.pth')
    assert load_pretrained(ResNetV1c(**SMALL), tmp_path / 'old.pth').missing == []


def test_allow_missing_as_a_string_is_an_error(weights):
    with pytest.raises(TypeError, match=r"allow_missing='stem\.' must be a list"):
        load_pretrained(ResNetV1c(**SMALL), weights, allow_missing='stem.')


def test_a_prefix_takes_part_of_the_keys(tmp_path, weights):
    state_dict = torch.load(weights, weights_only=True)
    student = {f'student.{key}': value for key, value in state_dict.items()}
    torch.save(dict(state_dict=dict(student, **{'teacher.conv1.weight': torch.ones(1)})), tmp_path / 'w.pth')
    for prefix in ('student.', 'student'):
        backbone = ResNetV1c(**SMALL)
        load_pretrained(backbone, tmp_path / 'w.pth', prefix=prefix)
        assert equal(backbone, weights)
    with pytest.raises(ValueError, match=r"no keys with prefix='backbone\.'.*\['student\.', 'teacher\.'\]"):
        load_pretrained(backbone, tmp_path / 'w.pth', prefix='backbone.')


def test_a_bare_backbone_fits_the_backbone_of_a_segmentor(weights):
    model = nn.Module()
    model.backbone = ResNetV1c(**SMALL)
    model.decode_head = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match=r"2 missing.*allow_missing=\['decode_head\.'\]"):
        load_pretrained(model, weights)
    load_pretrained(model, weights, allow_missing=['decode_head.'])
    assert equal(model.backbone, weights)


def test_a_network_without_a_known_layout_loads_its_own_weights(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    torch.save(network.state_dict(), tmp_path / 'own.pth')
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    load_pretrained(other, tmp_path / 'own.pth')
    assert torch.equal(other[0].weight, network[0].weight)
    with pytest.raises(ValueError, match='unknown key layout'):
        load_pretrained(ResNet(**SMALL), tmp_path / 'own.pth')


@pytest.mark.parametrize('channels', [1, 2, 4, 6, 7])
def test_the_first_convolution_adapts_as_timms_does(channels, weights):
    weight = torch.randn(5, 3, 3, 3)
    assert torch.equal(adapt_input_channels(weight, channels), adapt_input_conv(channels, weight))
    backbone = ResNetV1c(in_channels=channels, **SMALL)
    load_pretrained(backbone, weights)
    source = torch.load(weights, weights_only=True)
    assert torch.equal(backbone.stem[0].weight, adapt_input_conv(channels, source['stem.0.weight']))
    assert torch.equal(backbone.layer1[0].conv1.weight, source['layer1.0.conv1.weight'])


def test_a_grey_image_gives_what_its_rgb_copy_gave(weights):
    grey, colour = ResNetV1c(in_channels=1, **SMALL).eval(), ResNetV1c(**SMALL).eval()
    for backbone in (grey, colour):
        load_pretrained(backbone, weights)
    image = torch.randn(1, 1, 33, 33)
    torch.testing.assert_close(grey(image)[-1], colour(image.expand(-1, 3, -1, -1))[-1], rtol=1e-4, atol=1e-5)


def test_three_channels_stay_as_they_are_and_other_sources_do_not_adapt(weights, tmp_path):
    backbone = ResNetV1c(**SMALL)
    load_pretrained(backbone, weights)
    assert equal(backbone, weights)
    torch.save(ResNetV1c(in_channels=4, **SMALL).state_dict(), tmp_path / 'four.pth')
    with pytest.raises(ValueError, match=r'stem\.0\.weight: \(2, 4, 3, 3\) in the file, \(2, 3, 3, 3\)'):
        load_pretrained(backbone, tmp_path / 'four.pth')


REGISTRIES = dict(root=MODELS, mmseg=mmseg_registry.MODELS, mmpretrain=mmpretrain_registry.MODELS)


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain', 'mmengine', 'mmseg_ext', None])
@pytest.mark.parametrize('registry', REGISTRIES)
def test_pretrained_is_ours_in_every_scope_and_from_every_registry(weights, tmp_path, scope, registry):
    malicious = save_malicious(tmp_path / 'malicious.pth', tmp_path / 'trace')
    with DefaultScope.overwrite_default_scope(scope):
        build = REGISTRIES[registry].build
        backbone = build(dict(type='mmseg_ext.ResNetV1c', init_cfg=pretrained(weights), **SMALL))
        backbone.init_weights()
        assert equal(backbone, weights)
        backbone = build(dict(type='mmseg_ext.ResNetV1c', init_cfg=pretrained(str(malicious)), **SMALL))
        with pytest.raises(UnsafeCheckpointError):
            backbone.init_weights()
    assert not (tmp_path / 'trace').exists()


def test_pretrained_is_safe_in_a_process_that_only_knows_mmseg(tmp_path):
    malicious = save_malicious(tmp_path / 'malicious.pth', tmp_path / 'trace')
    config = dict(type='mmseg_ext.ResNetV1c', init_cfg=pretrained(str(malicious)), **SMALL)
    code = (
        'import mmseg_ext; from mmseg.registry import MODELS; from mmseg.utils import register_all_modules;'
        f'register_all_modules(); MODELS.build({config!r}).init_weights()'
    )
    env = dict(os.environ, PYTHONWARNINGS='ignore')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    assert 'UnsafeCheckpointError' in result.stderr
    assert not (tmp_path / 'trace').exists()


def segmentor(backbone: dict, **kwargs) -> nn.Module:
    head = dict(type='FCNHead', in_channels=32, channels=32, num_convs=0, in_index=3, num_classes=2, concat_input=False)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(dict(type='EncoderDecoder', backbone=backbone, decode_head=head, **kwargs))


def test_the_backbone_in_mmsegs_segmentor_is_initialised_by_us(weights):
    model = segmentor(dict(type='mmseg_ext.ResNetV1c', init_cfg=pretrained(weights), **SMALL))
    model.init_weights()
    assert equal(model.backbone, weights)
    model = segmentor(dict(type='mmseg_ext.ResNet', init_cfg=pretrained(weights), **SMALL))
    with pytest.raises(ValueError, match='not fit ResNet: 5 missing'):
        model.init_weights()


def test_mmsegs_deprecated_pretrained_ends_in_the_same_code(weights):
    from mmengine.config import ConfigDict

    model = segmentor(ConfigDict(type='mmseg_ext.ResNetV1c', **SMALL), pretrained=weights)
    model.init_weights()
    assert equal(model.backbone, weights)


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
def test_pretrained_comes_after_other_initialisers_and_options_are_passed_on(weights, kind):
    init_cfg = [
        dict(type=kind, checkpoint=weights, allow_missing=['extra.']),
        dict(type='Constant', layer='Conv2d', val=7.0),
    ]

    class Backbone(ResNetV1c):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.extra = nn.Conv2d(1, 1, 1)

    backbone = Backbone(init_cfg=init_cfg, **SMALL)
    backbone.init_weights()
    assert backbone.extra.weight.item() == 7.0
    assert torch.equal(backbone.stem[0].weight, torch.load(weights, weights_only=True)['stem.0.weight'])
    assert backbone.init_cfg == init_cfg


def test_a_second_call_of_init_weights_loads_nothing(weights):
    backbone = ResNetV1c(init_cfg=pretrained(weights), **SMALL)
    backbone.init_weights()
    nn.init.zeros_(backbone.stem[0].weight)
    backbone.init_weights()
    assert backbone.stem[0].weight.abs().sum() == 0


def test_the_mixin_serves_any_base_module(tmp_path):
    class Network(PretrainedMixin, BaseModule):
        def __init__(self, init_cfg=None):
            super().__init__(init_cfg)
            self.conv = nn.Conv2d(3, 2, 1)

    source = Network()
    torch.save(source.state_dict(), tmp_path / 'w.pth')
    network = Network(pretrained(str(tmp_path / 'w.pth')))
    network.init_weights()
    assert torch.equal(network.conv.weight, source.conv.weight)


def test_an_unknown_option_of_pretrained_is_an_error(weights):
    backbone = ResNetV1c(init_cfg=pretrained(weights, allow_mising=['stem.']), **SMALL)
    with pytest.raises(TypeError, match='allow_mising'):
        backbone.init_weights()


def test_every_backbone_of_ours_reads_pretrained_this_way():
    from mmseg_ext.models import backbones

    found = [getattr(backbones, name) for name in backbones.__all__]
    assert len(found) >= 3
    for kind in found:
        assert re.search('PretrainedMixin', str(kind.__mro__)), kind
        assert kind.init_weights is PretrainedMixin.init_weights
