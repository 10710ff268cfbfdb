"""Recognising and renaming keys, without networks; tests/checkpoints/test_layout_parity.py has the networks."""

import pytest
import torch

from mmseg_ext.checkpoints import convert, tensors_of

W = torch.ones(1)
STAGES = ['layer1.0.conv1.weight', 'layer1.0.downsample.0.weight', 'layer4.2.bn3.running_mean']


def state(*keys: str) -> dict[str, torch.Tensor]:
    return dict.fromkeys(keys, W)


@pytest.mark.parametrize(
    ('keys', 'name'),
    [
        (['conv1.weight', *STAGES, 'fc.weight'], 'torchvision, timm, mmpretrain or mmseg ResNet'),
        (['conv1.0.weight', 'bn1.weight', *STAGES], 'timm ResNet with deep stem'),
        (['conv1.0.weight', 'layer1.0.conv2.fc1.weight', *STAGES], 'official or timm ResNeSt'),
        (['stem.0.weight', 'layer1.0.conv2.fc1.weight', *STAGES], 'mmseg ResNeSt'),
        (['stem.0.weight', *STAGES], 'mmseg ResNet V1c or V1d'),
        (['stem.0.conv.weight', *STAGES], 'mmpretrain ResNet V1c, V1d or ResNeSt'),
        (['conv1.weight', 'conv2.weight', 'conv3.weight', *STAGES], 'hszhao/semseg ResNet'),
        (['features.0.weight', 'classifier.0.weight'], 'torchvision or timm VGG'),
        (['features.0.conv.weight'], 'mmpretrain VGG'),
        (['stem.0.conv.weight', 'blocks.0.stack.conv1.conv_dw.weight'], 'timm Xception'),
        (
            ['layer0.0.weight', *STAGES, 'ppm.features.0.1.weight', 'cls.4.weight'],
            'hszhao/semseg PSPNet, backbone: mmseg ResNet V1c or V1d',
        ),
        (
            ['layer0.0.weight', *STAGES, 'psa.conv5.0.weight', 'cls.4.weight'],
            'hszhao/semseg segmentor, backbone: mmseg ResNet V1c or V1d',
        ),
        (
            ['backbone.stem.0.weight', *(f'backbone.{key}' for key in STAGES), 'decode_head.conv_seg.weight'],
            'mmseg segmentor, backbone: mmseg ResNet V1c or V1d',
        ),
        (
            ['backbone.stem.0.conv.weight', *(f'backbone.{key}' for key in STAGES), 'head.fc.weight'],
            'mmpretrain classifier, backbone: mmpretrain ResNet V1c, V1d or ResNeSt',
        ),
        (
            ['backbone.conv1.weight', *(f'backbone.{key}' for key in STAGES), 'classifier.4.weight'],
            'torchvision segmentation model, backbone: torchvision, timm, mmpretrain or mmseg ResNet',
        ),
        (
            [
                'backbone.conv1.weight', *(f'backbone.{key}' for key in STAGES), 'aspp.aspp1.bn.weight',
                'decoder.last_conv.0.weight',
            ],
            "jfzhang95's DeepLab with ResNet, backbone: torchvision, timm, mmpretrain or mmseg ResNet",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize('parallel', ['', 'module.'])
def test_each_layout_is_recognised_also_behind_the_prefix_of_parallel_training(keys, name, parallel):
    checkpoint = dict(epoch=3, state_dict=state(*(parallel + key for key in keys)))
    assert convert(tensors_of(checkpoint)).layout == name


def test_an_unknown_layout_is_an_error_with_some_keys_and_the_known_layouts():
    with pytest.raises(ValueError, match=r'unknown key layout.*encoder\.0\.weight.*torchvision or timm VGG'):
        convert(state('encoder.0.weight'))


@pytest.mark.parametrize(
    ('key', 'name'),
    [
        ('backbone.block20.rep.1.conv1.weight', 'Xception'),
        ('backbone.layer5.0.conv1.weight', 'DRN'),
        ('backbone.features.0.0.weight', 'MobileNet'),
    ],
)
def test_jfzhang95s_other_backbones_are_refused_with_the_reason(key, name):
    with pytest.raises(ValueError, match=rf'DeepLab with {name} can not be converted: '):
        convert(state('backbone.conv1.weight', 'backbone.layer1.0.conv1.weight', key, 'aspp.aspp1.bn.weight'))


@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: dict(state_dict=x), lambda x: dict(model=x, optimizer={})])
def test_weights_are_found_at_the_top_in_state_dict_and_in_model(wrap):
    assert tensors_of(wrap(state('a.weight'))) == state('a.weight')


@pytest.mark.parametrize('checkpoint', [dict(epoch=1), [torch.ones(1)], torch.ones(1), dict(state_dict={})])
def test_a_file_without_named_weights_is_an_error(checkpoint):
    with pytest.raises(ValueError, match='file x holds no weights by name'):
        tensors_of(checkpoint, 'file x')


def test_all_semseg_keys_get_their_place_in_mmsegs_pspnet():
    names = {
        'layer0.0.weight': 'backbone.stem.0.weight',
        'layer0.7.running_var': 'backbone.stem.7.running_var',
        'layer1.0.conv1.weight': 'backbone.layer1.0.conv1.weight',
        'ppm.features.3.1.weight': 'decode_head.psp_modules.3.1.conv.weight',
        'ppm.features.0.2.bias': 'decode_head.psp_modules.0.1.bn.bias',
        'cls.0.weight': 'decode_head.bottleneck.conv.weight',
        'cls.1.weight': 'decode_head.bottleneck.bn.weight',
        'cls.4.bias': 'decode_head.conv_seg.bias',
        'aux.0.weight': 'auxiliary_head.convs.0.conv.weight',
        'aux.1.weight': 'auxiliary_head.convs.0.bn.weight',
        'aux.4.weight': 'auxiliary_head.conv_seg.weight',
    }
    converted = convert(state(*names))
    assert list(converted.state_dict) == list(names.values())
    assert converted.left_out == []
    assert 'stem_channels=128' in converted.note


def test_classifiers_and_foreign_heads_are_left_out():
    assert convert(state('conv1.weight', *STAGES, 'fc.weight', 'fc.bias')).left_out == ['fc.weight', 'fc.bias']
    keys = ['backbone.conv1.weight', *(f'backbone.{key}' for key in STAGES)]
    assert convert(state(*keys, 'head.fc.weight')).left_out == ['head.fc.weight']
    assert convert(state(*keys, 'decode_head.conv_seg.bias', 'auxiliary_head.0.conv_seg.bias')).left_out == []


def test_mmpretrains_vgg_gets_torchvisions_numbers():
    places = [0, 1, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16]
    plain = convert(state(*(f'features.{i}.conv.weight' for i in places)))
    expected = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(plain.state_dict) == [f'features.{i}.weight' for i in expected]
    normed = convert(state(*(f'features.{i}.{kind}.weight' for i in places[:4] for kind in ('conv', 'bn'))))
    assert list(normed.state_dict) == [f'features.{i}.weight' for i in (0, 1, 3, 4, 7, 8, 10, 11)]


def test_only_shortcuts_without_a_pool_move_in_mmpretrains_v1d():
    def block(i: int, j: int) -> list[str]:
        return [f'layer{i}.0.downsample.{j}.weight', f'layer{i}.0.downsample.{j + 1}.weight']

    stem = ['stem.0.conv.weight', 'layer1.0.conv1.weight']
    v1d = convert(state(*stem, *block(1, 0), *block(2, 1), *block(3, 0)))
    assert list(v1d.state_dict)[2:] == [*block(1, 1), *block(2, 1), *block(3, 1)]
    v1c = convert(state(*stem, *block(1, 0), *block(2, 0)))
    assert list(v1c.state_dict)[2:] == [*block(1, 0), *block(2, 0)]


def test_values_are_not_changed():
    weights = {'conv1.0.weight': torch.randn(2, 3), 'bn1.weight': torch.randn(2), 'layer1.0.conv1.weight': W}
    converted = convert(weights).state_dict
    assert converted['stem.0.weight'] is weights['conv1.0.weight']
    assert converted['stem.7.weight'] is weights['bn1.weight']
