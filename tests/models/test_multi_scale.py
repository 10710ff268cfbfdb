"""Multi-scale input against a plain form of it, in float64."""

import math

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from mmseg_ext.models.decode_heads import DeepLabV2Head
from mmseg_ext.models.postprocess import DenseCRF
from mmseg_ext.models.segmentors import MultiScaleEncoderDecoder, SegTTAModel
from tests.reference.weights import randomise

SIZE = (33, 47)
SCALES = (0.5, 0.75, 1.0)
CLASSES = 5
MODES = [dict(mode='whole'), dict(mode='slide', crop_size=(33, 33), stride=(8, 8))]


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
@pytest.mark.parametrize('test_cfg', MODES)
def test_labels_are_those_of_the_full_size_logits(test_cfg):
    model, x = build(test_cfg=test_cfg).eval(), images()
    meta = dict(flip=True, flip_direction='horizontal', ori_shape=(40, 50), img_padding_size=[0, 3, 0, 1])
    results = []
    for keep_logits in (False, True):
        model.test_cfg['keep_logits'] = keep_logits
        results.append([sample.pred_sem_seg.data.long() for sample in model.predict(x, samples(**meta))])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@torch.no_grad()
@pytest.mark.parametrize('test_cfg', MODES)
def test_probability_is_that_of_the_fused_logits(test_cfg):
    model = build(test_cfg=dict(test_cfg, probability=True, keep_logits=True)).eval()
    expected, model.test_cfg['keep_logits'] = model.predict(images(1), samples(1))[0].seg_logits.data, False
    probability = model.predict(images(1), samples(1))[0].pred_probability.data
    torch.testing.assert_close(probability, expected.softmax(0).amax(0, keepdim=True).float(), rtol=0, atol=1e-6)


@torch.no_grad()
def test_augmentations_are_averages_of_the_fused_logits():
    model = build().eval()
    x, meta = torch.randint(0, 256, (3, *SIZE)).double(), samples(1)[0].metainfo
    flips = [dict(meta, flip=flip, flip_direction='horizontal' if flip else None) for flip in (False, True)]
    data = dict(inputs=[[x], [x.flip(2)]], data_samples=[[SegDataSample(metainfo=one)] for one in flips])
    maps = []
    for one in (x, x.flip(2)):
        logits, _ = plain_logits(model, (one[None] - 9) / 2)
        maps.append(F.interpolate(logits, SIZE, mode='bilinear', align_corners=False).softmax(1))
    expected = (maps[0] + maps[1].flip(3)).argmax(1)
    assert len(expected.unique()) > 1
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        tta = SegTTAModel(module=model)
    assert torch.equal(tta.test_step(data)[0].pred_sem_seg.data.long(), expected)


@torch.no_grad()
@pytest.mark.parametrize('test_cfg', MODES)
def test_the_crf_refines_the_fused_probabilities(test_cfg):
    pytest.importorskip('pydensecrf', reason='the extra crf is not installed')
    model = build(test_cfg=dict(test_cfg, crf=dict(), probability=True)).eval()
    x = images(1)
    refined = model.predict(x, samples(1))[0].pred_probability.data
    logits = model.inference(x, [sample.metainfo for sample in samples(1)])[0]
    image = (x[0] * 2 + 9).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    expected = DenseCRF()(image, logits.float().softmax(0).numpy())
    np.testing.assert_allclose(refined[0].numpy(), expected.max(0), atol=1e-3)


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


def test_the_order_of_the_scales_does_not_matter():
    model, x = build(), images()
    turned = build(scales=SCALES[::-1])
    turned.load_state_dict(model.state_dict(), strict=True)
    for name, value in model.train().loss(x, samples()).items():
        assert torch.equal(turned.train().loss(x, samples())[name], value), name


@pytest.mark.parametrize('scales', [(), 0.5, (0.5, 0), (-1,), ('1',), '1', (math.inf,), (0.5, 1, 1.0)])
def test_scales_that_are_none_are_refused(scales):
    with pytest.raises(ValueError, match='must be different positive numbers'):
        build(scales=scales)


def test_a_head_with_another_loss_is_refused():
    head = dict(type='DeepLabV2Head', in_index=3, dilations=(1, 2), loss_decode=dict(type='DiceLoss'))
    with pytest.raises(ValueError, match='DeepLabV2Head has another loss than a cross-entropy'):
        build(head=head)


class OwnPredictions(DeepLabV2Head):
    def predict_by_feat(self, seg_logits, batch_img_metas):
        return seg_logits.sigmoid()


def test_a_head_with_predictions_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r'OwnPredictions has .* predictions of its own; use EncoderDecoder'):
        build(head=dict(type=OwnPredictions, in_index=3, dilations=(1, 2)))


def test_a_head_that_got_another_loss_or_prediction_is_refused_when_it_is_used():
    for name, use in (
        ('predict', lambda model: model.predict(images(), samples())),
        ('predict_by_feat', lambda model: model.predict(images(), samples())),
        ('loss', lambda model: model.loss(images(), samples())),
    ):
        model = build().eval()
        setattr(model.decode_head, name, lambda *_: pytest.fail('it would have been left out'))
        with pytest.raises(ValueError, match=r'DeepLabV2Head has .*; use EncoderDecoder'):
            use(model)


class Negative(MultiScaleEncoderDecoder):
    def encode_decode(self, inputs, batch_img_metas):
        return -super().encode_decode(inputs, batch_img_metas)


@torch.no_grad()
@pytest.mark.parametrize('test_cfg', MODES)
def test_a_subclass_of_other_logits_predicts_by_them(test_cfg):
    model = build(test_cfg=test_cfg).eval()
    model.test_cfg.keep_logits = True
    logits = torch.stack([sample.seg_logits.data for sample in model.predict(images(), samples())])
    model.test_cfg.keep_logits = False
    model.__class__ = Negative
    labels = torch.stack([sample.pred_sem_seg.data[0] for sample in model.predict(images(), samples())])
    assert torch.equal(labels.long(), logits.argmin(1))
