"""Multi-scale input against a plain form of it, in float64."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from tests.reference.weights import randomise

SIZE = (33, 47)
SCALES = (0.5, 0.75, 1.0)
CLASSES = 5


def build(kind='MultiScaleEncoderDecoder', head=None, test_cfg=None, **kwargs):
    norm_cfg = dict(type='BN')
    aux = dict(type='FCNHead', in_index=2, channels=4, num_convs=1, concat_input=False, norm_cfg=norm_cfg)
    common = dict(num_classes=CLASSES, align_corners=False, dropout_ratio=0)
    cfg = dict(
        type=kind,
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[9.0] * 3, std=[2.0] * 3, size=SIZE),
        backbone=dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8, output_stride=8, norm_cfg=norm_cfg),
        decode_head=dict(common, **(head or dict(type='DeepLabV2Head', in_index=3, dilations=(1, 2)))),
        auxiliary_head=dict(common, **aux),
        test_cfg=ConfigDict(test_cfg or dict(mode='whole')),
        **kwargs,
    )
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        return randomise(MODELS.build(cfg)).double()


def plain_logits(model, x):
    """Fuse at the size of the largest logits, by mmseg's segmentor's parts."""
    maps = []
    for scale in SCALES:
        size = [round(scale * length) for length in x.shape[2:]]
        resized = F.interpolate(x, size, mode='bilinear', align_corners=False)
        maps.append(model.decode_head(model.backbone(resized)))
    maps = [F.interpolate(one, maps[-1].shape[2:], mode='bilinear', align_corners=False) for one in maps]
    return torch.stack(maps).max(0).values, maps


def images(count=2):
    return torch.randn(count, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def samples(count=2, **meta):
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, CLASSES, (count, 1, *SIZE), generator=generator)
    labels[:, :, :3] = 255
    meta = dict(dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE), **meta)
    return [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta) for label in labels]


@torch.no_grad()
def test_logits_are_the_maximum_over_the_scales():
    model, x = build().eval(), images()
    expected, maps = plain_logits(model, x)
    assert not torch.equal(expected, maps[-1])
    assert torch.equal(model(x), expected)
    full = F.interpolate(expected, SIZE, mode='bilinear', align_corners=False)
    torch.testing.assert_close(model.encode_decode(x, [samples(1)[0].metainfo] * 2), full)
    labels = torch.stack([sample.pred_sem_seg.data[0] for sample in model.predict(x)])
    assert torch.equal(labels.long(), full.argmax(1))


@torch.no_grad()
@pytest.mark.parametrize('test_cfg', [dict(mode='whole'), dict(mode='slide', crop_size=(33, 33), stride=(8, 8))])
def test_labels_are_those_of_the_full_size_logits(test_cfg):
    model, x = build(test_cfg=test_cfg).eval(), images()
    meta = dict(flip=True, flip_direction='horizontal', ori_shape=(40, 50), img_padding_size=[0, 3, 0, 1])
    results = []
    for keep_logits in (False, True):
        model.test_cfg['keep_logits'] = keep_logits
        results.append([sample.pred_sem_seg.data.long() for sample in model.predict(x, samples(**meta))])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_losses_and_gradients_are_those_of_each_scale_and_of_the_fused_logits():
    model, x = build().train(), images()
    losses = model.loss(x, samples())
    target = torch.stack([sample.gt_sem_seg.data[0] for sample in samples()])
    gradient = torch.autograd.grad(
        sum(v for k, v in losses.items() if 'loss' in k), model.backbone.layer1[0].conv1.weight
    )

    def loss(logits):
        return (
            F.cross_entropy(
                F.interpolate(logits, SIZE, mode='bilinear', align_corners=False),
                target,
                ignore_index=255,
                reduction='sum',
            )
            / target.numel()
        )

    features = [
        model.backbone(F.interpolate(x, [round(s * n) for n in SIZE], mode='bilinear', align_corners=False))
        for s in SCALES
    ]
    maps = [model.decode_head(feature) for feature in features]
    same = [F.interpolate(one, maps[-1].shape[2:], mode='bilinear', align_corners=False) for one in maps]
    expected = {f'scale_{scale:g}.loss_ce': loss(one) for scale, one in zip(SCALES, maps, strict=True)}
    expected['decode.loss_ce'] = loss(torch.stack(same).max(0).values)
    expected['aux.loss_ce'] = loss(model.auxiliary_head(features[-1]))
    assert {name for name in losses if 'loss' in name} == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    plain_gradient = torch.autograd.grad(sum(expected.values()), model.backbone.layer1[0].conv1.weight)
    torch.testing.assert_close(gradient, plain_gradient)


def test_one_scale_is_the_plain_segmentor():
    one, plain = build(scales=(1.0,)), build('EncoderDecoder')
    assert list(one.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(one.state_dict(), strict=True)
    x = images()
    ours, theirs = (model.train().loss(x, samples()) for model in (one, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        assert torch.equal(one.eval()(x), plain.eval()(x))


def test_the_output_stride_of_all_scales_changes_and_changes_back():
    model = build(head=dict(type='DeepLabV2Head', in_index=3, dilations=(2, 4))).eval()
    x = images()
    with torch.no_grad():
        before = model(x)
        model.set_output_stride(16)
        assert model(x).shape[2:] == (3, 3)
        model.set_output_stride(8)
        assert torch.equal(model(x), before)


@pytest.mark.parametrize('scales', [(), (0.5, 0), (-1,), ('1',)])
def test_scales_that_are_none_are_refused(scales):
    with pytest.raises(ValueError, match='must be a list of positive numbers'):
        build(scales=scales)


def test_a_head_with_predictions_of_its_own_is_refused():
    head = dict(
        type='EncHead', in_channels=(32, 64), in_index=(2, 3), channels=8, num_codes=4, norm_cfg=dict(type='BN')
    )
    with pytest.raises(ValueError, match='EncHead has a loss or predictions of its own; use EncoderDecoder'):
        build(head=head)
