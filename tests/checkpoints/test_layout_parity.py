"""Every layout, by what its networks compute: convert random weights, load them into ours, compare features."""

from collections import OrderedDict

import mmpretrain.models.backbones as mmpretrain_backbones
import pytest
import timm
import torch
import torchvision
from mmengine.registry import MODELS, DefaultScope
from resnest.torch.resnet import Bottleneck as OfficialBottleneck
from resnest.torch.resnet import ResNet as OfficialResNeSt
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from mmseg_ext.checkpoints import convert, load_pretrained
from mmseg_ext.models.backbones import VGG16, AlignedXception, ResNeSt, ResNet, ResNetV1c, ResNetV1d
from tests.reference.foreign_networks import DeepLab, SemsegPSPNet, SemsegResNet
from tests.reference.weights import randomise, relative_error

IMAGE = (1, 3, 33, 33)
SMALL = dict(base_channels=8, stem_channels=16)


def save(network: nn.Module, path, wrap=lambda x: x) -> str:
    randomise(network).eval()
    torch.save(wrap(network.state_dict()), path)
    return str(path)


@torch.no_grad()
def agree(ours: nn.Module, theirs, image_shape=IMAGE) -> bool:
    image = torch.randn(image_shape)
    return relative_error(ours.eval()(image)[-1], theirs(image)) < 1e-5


def torchvision_features(network: nn.Module):
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    return nn.Sequential(stem, network.layer1, network.layer2, network.layer3, network.layer4)


def timm_network(name: str, **kwargs) -> nn.Module:
    return timm.create_model(name, num_classes=5, **kwargs)


@pytest.mark.parametrize('depth', [18, 50])
def test_torchvisions_resnets(tmp_path, depth):
    theirs = getattr(torchvision.models, f'resnet{depth}')()
    ours = ResNet(depth)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (len(coverage.loaded), coverage.missing, coverage.unexpected) == (len(ours.state_dict()), [], [])
    assert coverage.left_out == ['fc.bias', 'fc.weight']
    assert agree(ours, torchvision_features(theirs))


@pytest.mark.parametrize(
    ('name', 'ours'),
    [('resnet18', ResNet), ('resnet50c', ResNetV1c), ('resnet50d', ResNetV1d)],
)
def test_timms_resnets(tmp_path, name, ours):
    theirs = timm_network(name)
    ours = ours(depth=int(name[6:8]))
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth', lambda x: dict(state_dict=x)))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert agree(ours, theirs.forward_features)


@pytest.mark.parametrize('name', ['ResNet', 'ResNetV1c', 'ResNetV1d'])
def test_mmpretrains_resnets_as_backbone_and_in_a_classifier(tmp_path, name):
    theirs = getattr(mmpretrain_backbones, name)(depth=50, **SMALL)
    ours = dict(ResNet=ResNet, ResNetV1c=ResNetV1c, ResNetV1d=ResNetV1d)[name]

    def in_classifier(weights):
        backbone = {f'backbone.{key}': value for key, value in weights.items()}
        return dict(state_dict=backbone | {'head.fc.bias': torch.ones(5)})

    for wrap in (lambda x: x, in_classifier):
        network = ours(depth=50, **SMALL)
        coverage = load_pretrained(network, save(theirs, tmp_path / 'w.pth', wrap))
        assert (coverage.missing, coverage.unexpected) == ([], [])
        assert agree(network, lambda image: theirs(image)[-1])


def check_resnest(tmp_path, theirs: nn.Module, features, **kwargs) -> None:
    ours = ResNeSt(depth=14, stem_channels=64, **kwargs)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (coverage.layout, coverage.missing, coverage.unexpected) == ('official or timm ResNeSt', [], [])
    assert agree(ours, features)


@pytest.mark.parametrize(('groups', 'width'), [(1, 64), (2, 40)])
def test_the_official_resnest_with_one_and_two_cardinal_groups(tmp_path, groups, width):
    theirs = OfficialResNeSt(
        OfficialBottleneck, [1, 1, 1, 1], radix=2, groups=groups, bottleneck_width=width, deep_stem=True,
        stem_width=32, avg_down=True, avd=True, avd_first=False, num_classes=5,
    )  # fmt: skip
    check_resnest(tmp_path, theirs, torchvision_features(theirs), groups=groups, base_width=width)


def test_timms_resnest(tmp_path):
    theirs = timm_network('resnest14d')
    check_resnest(tmp_path, theirs, theirs.forward_features)


def test_mmpretrains_resnest(tmp_path):
    theirs = mmpretrain_backbones.ResNeSt(depth=50, base_channels=16, stem_channels=16)
    ours = ResNeSt(depth=50, base_channels=16, stem_channels=16)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert agree(ours, lambda image: theirs(image)[-1])


@pytest.mark.parametrize('name', ['vgg16', 'vgg16_bn'])
def test_torchvisions_and_mmpretrains_vgg(tmp_path, name):
    norm_cfg = dict(type='BN') if name.endswith('bn') else None
    # Without its classifier of 500 MB.
    features = make_layers(cfgs['D'], batch_norm=norm_cfg is not None)
    theirs = nn.Sequential(OrderedDict(features=features, classifier=nn.Linear(2, 2)))
    ours = VGG16(norm_cfg=norm_cfg)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert agree(ours, theirs.features, (1, 3, 64, 64))

    theirs = mmpretrain_backbones.VGG(16, norm_cfg=norm_cfg)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert agree(ours, lambda image: theirs(image)[-1], (1, 3, 64, 64))


def test_timms_xception(tmp_path):
    theirs = timm_network('xception41')
    ours = AlignedXception(41)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert agree(ours, theirs.forward_features)


def parallel(weights):
    return dict(epoch=1, state_dict={f'module.{key}': value for key, value in weights.items()}, optimizer={})


def test_semsegs_resnet(tmp_path):
    theirs = SemsegResNet()
    ours = ResNetV1c(depth=50, **SMALL)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert agree(ours, theirs.features)


def test_semsegs_pspnet_whole(tmp_path):
    theirs = SemsegPSPNet()
    norm_cfg = dict(type='BN')
    backbone = dict(
        type='ResNetV1c', depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), norm_cfg=norm_cfg, **SMALL
    )
    head = dict(num_classes=5, norm_cfg=norm_cfg, align_corners=True)
    psp = dict(type='PSPHead', in_channels=256, in_index=3, channels=64, pool_scales=(1, 2, 3, 6), **head)
    aux = dict(type='FCNHead', in_channels=128, in_index=2, channels=12, num_convs=1, concat_input=False, **head)
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        ours = MODELS.build(dict(type='EncoderDecoder', backbone=backbone, decode_head=psp, auxiliary_head=aux))
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth', parallel))
    assert (coverage.missing, coverage.unexpected, coverage.left_out) == ([], [], [])
    ours.eval()
    image = torch.randn(1, 3, 73, 73)
    with torch.no_grad():
        features = ours.extract_feat(image)
        logits, auxiliary = theirs(image)
        assert relative_error(ours.decode_head(features), logits) < 1e-5
        assert relative_error(ours.auxiliary_head(features), auxiliary) < 1e-5


def test_semsegs_pspnet_gives_its_backbone_to_a_backbone(tmp_path):
    theirs = SemsegPSPNet()
    ours = ResNetV1c(depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **SMALL)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth', parallel))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert {key.split('.')[0] for key in coverage.left_out} == {'decode_head', 'auxiliary_head'}
    assert agree(ours, nn.Sequential(theirs.layer0, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4))


def test_jfzhang95s_deeplab_gives_its_backbone(tmp_path):
    theirs = DeepLab()
    ours = ResNet(50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(2, 4, 8), **SMALL)
    checkpoint = save(theirs, tmp_path / 'w.pth.tar', lambda x: dict(epoch=1, state_dict=x, best_pred=0.5))
    coverage = load_pretrained(ours, checkpoint)
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert {key.split('.')[0] for key in coverage.left_out} == {'aspp', 'decoder'}
    assert agree(ours, theirs.backbone)
    assert 'multi_grid=(2, 4, 8)' in convert(theirs.state_dict()).note


def test_mmsegs_segmentor_gives_its_backbone(tmp_path):
    theirs = nn.Module()
    theirs.backbone = ResNetV1c(depth=50, **SMALL)
    theirs.decode_head = nn.Conv2d(1, 1, 1)
    ours = ResNetV1c(depth=50, **SMALL)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth', lambda x: dict(meta={}, state_dict=x)))
    assert coverage.left_out == ['decode_head.bias', 'decode_head.weight']
    assert agree(ours, lambda image: theirs.backbone(image)[-1])


def test_torchvisions_segmentation_model_gives_its_backbone(tmp_path):
    theirs = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    ours = ResNet(50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    coverage = load_pretrained(ours, save(theirs, tmp_path / 'w.pth'))
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert {key.split('.')[0] for key in coverage.left_out} == {'classifier', 'aux_classifier'}
    assert agree(ours, lambda image: theirs.backbone(image)['out'])
