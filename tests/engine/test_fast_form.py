import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.models.segmentors import EncoderDecoder as MMSegEncoderDecoder
from torch import nn
from torch._dynamo.utils import counters

from mmseg_ext.engine.fast_form import fast_form, fold_batch_norm
from mmseg_ext.models.segmentors import EncoderDecoder
from tests.reference.weights import randomise, relative_error

BACKBONES = {
    'ResNetV1c': dict(type='ResNetV1c', depth=50, base_channels=8, stem_channels=8),
    'ResNetV1d': dict(type='ResNetV1d', depth=18, base_channels=8, stem_channels=8),
    'ResNeSt': dict(type='ResNeSt', depth=14, base_channels=8, stem_channels=8),
    'VGG16': dict(type='VGG16', norm_cfg=dict(type='BN'), out_indices=(3, 4)),
    'AlignedXception': dict(type='AlignedXception', depth=41),
    "mmseg's MobileNetV2": dict(type='MobileNetV2', widen_factor=0.25),
}
HEADS = {
    'PSPHead': dict(),
    'DepthwiseSeparableASPPHead': dict(c1_channels=4, dilations=(1, 3)),
    'FCNHead': dict(num_convs=1),
}


@torch.no_grad()
def segmentor(backbone='ResNetV1c', head='PSPHead', **kwargs):
    cfg = dict(
        backbone=dict(BACKBONES[backbone], **kwargs),
        decode_head=dict(type=head, channels=8, num_classes=5, norm_cfg=dict(type='BN'), **HEADS[head]),
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        model = randomise(EncoderDecoder(**ConfigDict(cfg))).eval()
    # Classes that differ in more than a bias.
    model.decode_head.conv_seg.weight.normal_()
    images = torch.randn(1, kwargs.get('in_channels', 3), 64, 64)
    model.decode_head.conv_seg.bias -= model(images).mean((0, 2, 3))
    return model


def labels(model, images):
    with torch.no_grad():
        return torch.stack([sample.pred_sem_seg.data for sample in model.predict(images)])


def agreement(a, b):
    return (a == b).float().mean().item()


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('head', HEADS)
def test_folding_keeps_the_logits_and_leaves_no_normalisation_behind_a_convolution(backbone, head):
    model = segmentor(backbone, head)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)
        fold_batch_norm(model)
        assert relative_error(model(images), expected) <= 1e-4
    assert not [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]


def test_folding_works_for_images_of_other_channels():
    model = segmentor(in_channels=4)
    images = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        expected = model(images)
        fold_batch_norm(model)
        assert relative_error(model(images), expected) <= 1e-4
    assert not [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]


def test_normalisation_behind_rectified_convolutions_stays_and_that_of_the_head_is_folded():
    model = segmentor('ResNeSt', rectified_conv=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        fold_batch_norm(model)
        assert relative_error(model(images), expected) <= 1e-4
    left = {name.split('.')[0] for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert left == {'backbone'}


def test_folding_is_refused_where_the_logits_are_not_numbers():
    model = segmentor()
    model.backbone.layer1[0].bn1.running_var.fill_(torch.nan)
    with pytest.raises(ValueError, match='fold_bn: the logits changed by nan'):
        fold_batch_norm(model)


def test_a_normalisation_that_two_convolutions_share_stays():
    model = segmentor(head='FCNHead')
    conv, norm = model.backbone.layer1[0].conv1, model.backbone.layer1[0].bn1
    twice = nn.Sequential(conv, norm, nn.Conv2d(8, 8, 1), norm)
    model.backbone.layer1[0].extra = twice
    forward = model.backbone.forward
    model.backbone.forward = lambda x: (twice(torch.zeros(1, 8, 4, 4)), forward(x))[1]
    fold_batch_norm(model)
    assert isinstance(norm, nn.BatchNorm2d)
    assert model.backbone.layer1[0].bn1 is norm


def test_a_convolution_whose_output_is_used_twice_is_refused():
    model = segmentor(head='FCNHead')

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64)
            self.norm.running_mean.fill_(3.0)

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + x

    model.backbone.layer4.append(nn.Sequential(nn.Conv2d(256, 64, 1), Twice(), nn.Conv2d(64, 256, 1)))
    model.eval()
    with pytest.raises(ValueError, match='fold_bn: the logits changed'):
        fold_batch_norm(model)


@pytest.mark.parametrize(
    ('form', 'least'),
    [
        (dict(channels_last=True), 0.9999),
        (dict(fold_bn=True), 0.9999),
        (dict(precision='bf16'), 0.98),
        (dict(precision='bf16', channels_last=True, fold_bn=True), 0.98),
    ],
)
def test_fast_form_predicts_the_labels_of_the_plain_one(form, least):
    model = segmentor(head='DepthwiseSeparableASPPHead')
    images = torch.randn(2, 3, 64, 96)
    expected = labels(model, images)
    assert len(expected.unique()) > 1
    fast = fast_form(copy.deepcopy(model), **form)
    assert agreement(labels(fast, images), expected) >= least
    assert not any(p.requires_grad for p in fast.parameters())


def test_half_precision_keeps_stem_statistics_and_classifier_in_float32():
    plain = segmentor()
    model = fast_form(copy.deepcopy(plain), precision='bf16')
    assert model.backbone.layer1[0].conv1.weight.dtype == torch.bfloat16
    assert torch.equal(model.backbone.stem[0].weight, plain.backbone.stem[0].weight)
    assert model.backbone.layer1[0].bn1.running_var.dtype == torch.float32
    assert model.decode_head.conv_seg.weight.dtype == torch.float32
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64)).dtype == torch.float32


def test_a_pyramid_as_classifier_stays_in_float32():
    cfg = dict(
        backbone=BACKBONES['ResNetV1c'],
        decode_head=dict(type='DeepLabV2Head', in_channels=256, in_index=3, num_classes=5),
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        model = fast_form(EncoderDecoder(**ConfigDict(cfg)), precision='bf16')
    assert {p.dtype for p in model.decode_head.conv_seg.parameters()} == {torch.float32}
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64)).dtype == torch.float32


@pytest.mark.parametrize('kind', [EncoderDecoder, MMSegEncoderDecoder])
def test_backbone_and_head_run_compiled_with_the_same_labels(kind):
    model = segmentor('ResNetV1d', 'FCNHead')
    model.__class__ = kind
    images = torch.randn(1, 3, 64, 64)
    expected = labels(model, images)
    torch._dynamo.reset()
    model = fast_form(model, compile=True)
    counters.clear()
    assert agreement(labels(model, images), expected) >= 0.9999
    assert counters['stats']['unique_graphs'] == 2


def test_compiling_without_a_compiler_is_refused_with_the_remedy(monkeypatch, tmp_path):
    torch._dynamo.reset()
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))  # where nothing is compiled yet
    monkeypatch.setattr(torch._inductor.config.cpp, 'cxx', (None, '/nowhere/g++'))
    with pytest.raises(
        ValueError, match=r'cannot compile for cpu here \(.*C\+\+ compiler.*\); install a C\+\+ compiler'
    ):
        fast_form(segmentor(), compile=True)


@pytest.mark.parametrize(
    ('form', 'message'),
    [(dict(precision='int8'), "precision='int8' must be one of"), (dict(precision='fp16'), "on a CPU; use 'bf16'")],
)
def test_forms_that_do_not_exist_are_named(form, message):
    with pytest.raises(ValueError, match=message):
        fast_form(segmentor(), **form)
