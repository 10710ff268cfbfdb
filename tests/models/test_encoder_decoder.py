import copy
import random

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch.nn import functional as F

from mmseg_ext.engine.measure import peak_memory
from mmseg_ext.models.segmentors import EncoderDecoder
from tests.models.segmentor_parity import (
    BACKBONE,
    assert_same_labels,
    config,
    head,
    ours_only,
    pair,
    predict,
    samples,
)
from tests.reference.weights import randomise, relative_error


def ohem(**kwargs):
    return head(sampler=dict(type='OHEMPixelSampler', min_kept=300, **kwargs))


WEIGHTS = [0.1, 9.0, 1.0, 4.0, 0.2]
CROSS_ENTROPY = dict(type='CrossEntropyLoss', loss_name='loss_ce')
LOSSES = {
    'plain': dict(),
    'auxiliary heads': dict(auxiliary_head=[head(in_channels=32, in_index=2), head(in_channels=16, in_index=1)]),
    'one auxiliary head': dict(
        auxiliary_head=head(in_channels=32, in_index=2, loss_decode=dict(CROSS_ENTROPY, loss_weight=0.4))
    ),
    'average of the labelled': dict(decode_head=head(loss_decode=dict(CROSS_ENTROPY, avg_non_ignore=True))),
    'two losses of one name': dict(decode_head=head(loss_decode=[CROSS_ENTROPY, dict(CROSS_ENTROPY, loss_weight=2.0)])),
    'a sum': dict(decode_head=head(loss_decode=dict(CROSS_ENTROPY, reduction='sum'))),
    'two losses of two names': dict(
        decode_head=head(loss_decode=[CROSS_ENTROPY, dict(CROSS_ENTROPY, loss_name='loss_b')])
    ),
    'hard pixels by loss': dict(decode_head=ohem()),
    'hard pixels by two losses of two weights': dict(
        decode_head=head(
            sampler=dict(type='OHEMPixelSampler', min_kept=300),
            loss_decode=[
                dict(CROSS_ENTROPY, loss_weight=20.0),
                dict(CROSS_ENTROPY, type='mmseg_ext.CrossEntropyLoss', loss_name='loss_b', class_weight=WEIGHTS),
            ],
        )
    ),
    'hard pixels by probability': dict(decode_head=ohem(thresh=0.3)),
    'aligned corners': dict(decode_head=head(align_corners=True)),
    'another loss': dict(decode_head=head(loss_decode=dict(type='DiceLoss'))),
    'sigmoid': dict(
        decode_head=head(num_classes=2, out_channels=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    ),
}


@pytest.mark.parametrize('name', LOSSES)
def test_losses_and_gradients_equal_mmsegs(name):
    ours, theirs = pair(**LOSSES[name])
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    truth = samples((64, 96))
    if name == 'sigmoid':
        for sample in truth:
            sample.gt_sem_seg.data = torch.where(sample.gt_sem_seg.data == 255, 255, sample.gt_sem_seg.data % 2)
    results = []
    for model in (ours, theirs):
        model.train()
        losses = model.loss(images, copy.deepcopy(truth))
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        results.append((losses, [p.grad for p in model.parameters()]))
    assert list(results[0][0]) == list(results[1][0])
    for key, value in results[0][0].items():
        torch.testing.assert_close(value.double(), results[1][0][key].double(), rtol=1e-6, atol=1e-9, msg=key)
    for a, b in zip(*(result[1] for result in results), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


def test_a_head_that_ignores_no_label_fails_as_in_mmseg():
    for model in pair(decode_head=head(ignore_index=None)):
        with pytest.raises(TypeError, match='ignore_index'):
            model.loss(torch.randn(2, 3, 64, 96, dtype=torch.float64), samples((64, 96)))


def test_class_weights_meet_ignored_labels():
    weights = [0.5, 1.0, 2.0, 1.5, 0.1]
    model = ours_only(decode_head=head(loss_decode=dict(CROSS_ENTROPY, class_weight=weights, label_smoothing=0.1)))
    images, truth = torch.randn(2, 3, 64, 64), samples((64, 64))
    loss = model.loss(images, truth)['decode.loss_ce']
    logits = F.interpolate(model.decode_head(model.extract_feat(images)), size=(64, 64), mode='bilinear')
    target = torch.stack([sample.gt_sem_seg.data[0] for sample in truth])
    weight = torch.tensor(weights)
    expected = F.cross_entropy(logits, target, weight, ignore_index=255, reduction='sum', label_smoothing=0.1)
    expected = expected / weight[target[target != 255]].sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    unstreamed = model.decode_head.loss_decode(logits, target, ignore_index=255)
    assert unstreamed.item() == pytest.approx(expected.item(), rel=1e-5)


METAS = {
    'as it is': {},
    'resized': dict(ori_shape=(50, 131)),
    'padded': dict(img_shape=(60, 90), img_padding_size=(2, 4, 1, 3), ori_shape=(57, 91)),
    'flipped': dict(flip=True, flip_direction='horizontal', ori_shape=(50, 131)),
    'flipped vertically, padded': dict(
        flip=True, flip_direction='vertical', padding_size=[0, 5, 0, 7], ori_shape=(150, 31)
    ),
}
SLIDES = {
    'whole': dict(mode='whole'),
    'slide': dict(mode='slide', crop_size=(32, 48), stride=(20, 30)),
    'slide in batches': dict(mode='slide', crop_size=(32, 48), stride=(20, 30), batch=3),
    'slide without overlap': dict(mode='slide', crop_size=(32, 32), stride=(32, 32)),
    'slide with a window larger than the image': dict(mode='slide', crop_size=(128, 64), stride=(85, 43), batch=2),
}


@pytest.mark.parametrize('mode', SLIDES)
@pytest.mark.parametrize('meta', METAS)
@pytest.mark.parametrize('align_corners', [False, True])
def test_labels_equal_mmsegs(mode, meta, align_corners):
    ours, theirs = pair(decode_head=head(align_corners=align_corners), test_cfg=SLIDES[mode])
    images, truth = torch.randn(2, 3, 64, 96, dtype=torch.float64), samples((64, 96), **METAS[meta])
    results = [predict(model, images, truth) for model in (ours, theirs)]
    assert_same_labels(*results)
    assert 'seg_logits' not in results[0][0]


@pytest.mark.parametrize('mode', SLIDES)
def test_images_of_a_batch_have_sizes_paddings_and_flips_of_their_own(mode):
    ours, theirs = pair(test_cfg=SLIDES[mode])
    images, truth = torch.randn(len(METAS), 3, 64, 96, dtype=torch.float64), samples((64, 96), len(METAS))
    for sample, meta in zip(truth, METAS.values(), strict=True):
        sample.set_metainfo(dict(meta))
    assert_same_labels(*(predict(model, images, truth) for model in (ours, theirs)))


def test_labels_of_a_bfloat16_model_are_those_of_its_logits_resized_in_float32():
    model = ours_only().bfloat16()
    images = torch.randn(1, 3, 64, 96, dtype=torch.bfloat16)
    labels = predict(model, images, None)[0].pred_sem_seg.data
    with torch.no_grad():
        full = F.interpolate(model.logits(images).float(), size=(64, 96), mode='bilinear')
    assert torch.equal(labels[0].long(), full.argmax(1)[0])


@pytest.mark.parametrize('mode', SLIDES)
def test_probability_is_that_of_the_softmax(mode):
    ours, theirs = pair(test_cfg=dict(SLIDES[mode], probability=True))
    images, truth = torch.randn(1, 3, 64, 96, dtype=torch.float64), samples((64, 96), 1, ori_shape=(80, 100))
    result, expected = predict(ours, images, truth)[0], predict(theirs, images, truth)[0]
    best = expected.seg_logits.data.softmax(0).amax(0, keepdim=True)
    torch.testing.assert_close(result.pred_probability.data, best.float(), rtol=0, atol=1e-5)


def test_images_without_samples_get_labels_of_their_size():
    ours, theirs = pair()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    assert_same_labels(predict(ours, images, None), predict(theirs, images, None))


def test_logits_are_kept_where_asked_for():
    ours, theirs = pair(test_cfg=dict(mode='whole', keep_logits=True))
    images, truth = torch.randn(1, 3, 64, 96, dtype=torch.float64), samples((64, 96), 1, ori_shape=(80, 100))
    results = [predict(model, images, truth)[0] for model in (ours, theirs)]
    assert relative_error(results[0].seg_logits.data, results[1].seg_logits.data) <= 1e-9


def test_binary_labels_equal_mmsegs():
    ours, theirs = pair(decode_head=head(num_classes=2, out_channels=1, threshold=0.5))
    images, truth = torch.randn(1, 3, 64, 96, dtype=torch.float64), samples((64, 96), 1, ori_shape=(80, 100))
    assert_same_labels(*(predict(model, images, truth) for model in (ours, theirs)))


def test_prediction_holds_no_full_size_logits():
    model = ours_only(decode_head=head(num_classes=150)).eval()
    images = torch.randn(1, 3, 128, 128)
    truth = samples((128, 128), 1, ori_shape=(1024, 1024))
    with torch.no_grad():
        memory = peak_memory(lambda: model.predict(images, truth), torch.device('cpu'))
    assert memory < 0.05 * 150 * 1024 * 1024 * 4


def test_a_window_row_is_all_that_slide_mode_holds():
    test_cfg = dict(mode='slide', crop_size=(32, 64), stride=(32, 64))
    model = ours_only(decode_head=head(num_classes=150), test_cfg=test_cfg).eval()
    with torch.no_grad():
        memory = peak_memory(lambda: model.predict(torch.randn(1, 3, 512, 64)), torch.device('cpu'))
    assert memory < 0.4 * 150 * 512 * 64 * 4


def test_heads_learn_their_channels_from_the_backbone():
    decode_head = head('UPerHead', in_index=[0, 1, 2, 3])
    auxiliary_head = head('DepthwiseSeparableASPPHead', in_index=3, c1_channels=4)
    for cfg in (decode_head, auxiliary_head):
        del cfg['in_channels']
    model = ours_only(decode_head=decode_head, auxiliary_head=auxiliary_head)
    assert model.decode_head.in_channels == [8, 16, 32, 64]
    assert model.auxiliary_head.in_channels == 64
    assert model.auxiliary_head.c1_bottleneck.conv.in_channels == 8
    assert not any('in_channels' in cfg for cfg in (decode_head, auxiliary_head))


def test_heads_learn_their_channels_from_the_neck():
    neck = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=12, num_outs=4)
    decode_head = head(in_index=1)
    del decode_head['in_channels']
    assert ours_only(decode_head=decode_head, neck=neck).decode_head.in_channels == 12


def test_an_index_that_the_backbone_lacks_is_named():
    decode_head = head(in_index=4)
    del decode_head['in_channels']
    with pytest.raises(ValueError, match='FCNHead: in_index=4, but there are 4 features'):
        ours_only(decode_head=decode_head)


def atrous_model(output_stride=16):
    backbone = dict(BACKBONE, output_stride=output_stride)
    auxiliary = head(in_channels=32, in_index=2, dilation=2)
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        decode_head = head('ASPPHead', in_channels=64, in_index=3, dilations=(1, 6, 12, 18))
        cfg = config(decode_head, auxiliary) | dict(backbone=backbone)
        return randomise(EncoderDecoder(**ConfigDict(cfg))).eval()


def rates(model):
    return [branch.conv.dilation[0] for branch in model.decode_head.aspp_modules]


def test_output_stride_of_backbone_and_heads_changes_together_and_the_way_back_is_exact():
    model = atrous_model()
    state = copy.deepcopy(model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        model.set_output_stride(8)
        assert model.backbone.output_stride == 8
        assert rates(model) == [1, 12, 24, 36]
        assert model.auxiliary_head.convs[0].conv.dilation == (4, 4)
        assert model(images).shape[2:] == (8, 8)
        assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
        model.set_output_stride(16)
        assert rates(model) == [1, 6, 12, 18]
        assert torch.equal(model(images), before)


def test_a_rate_that_is_no_integer_is_refused_and_nothing_changes():
    model = atrous_model(8)
    for branch in list(model.decode_head.aspp_modules)[1:]:
        branch.conv.dilation = branch.conv.padding = (7, 7)
    with pytest.raises(ValueError, match=r'aspp_modules\.1\.conv.* would need dilation 7/2'):
        model.set_output_stride(16)
    assert model.backbone.output_stride == 8
    assert rates(model) == [1, 7, 7, 7]


def test_a_backbone_without_the_switch_is_named():
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        cfg = config(head(in_channels=16)) | dict(backbone=dict(type='MobileNetV2'))
        model = EncoderDecoder(**ConfigDict(cfg))
    with pytest.raises(ValueError, match='output_stride=8: MobileNetV2 cannot change it'):
        model.set_output_stride(8)


def windows(crop_size=(32, 48), stride=(20, 30), **test_cfg):
    return dict(mode='slide', crop_size=crop_size, stride=stride, **test_cfg)


WRONG = [
    (dict(mode='tiles'), "test_cfg.mode='tiles' must be 'whole' or 'slide'"),
    (dict(mode='slide', crop_size=(8, 8)), "test_cfg.mode='slide' needs stride"),
    (dict(mode='whole', batch=0), 'test_cfg.batch=0 must be a positive number'),
    (windows(stride=(20, 49)), r'test_cfg.stride=\(20, 49\) is larger than crop_size=\(32, 48\): no window'),
    (windows(stride=[33, 30]), r'test_cfg.stride=\(33, 30\) is larger than crop_size=\(32, 48\): no window'),
    (windows(crop_size=32), r'test_cfg.crop_size=32 must be two .*height and the width, such as \(32, 32\)'),
    (windows(stride=20), r'test_cfg.stride=20 must be two positive integers'),
    (windows(crop_size=(32, 48, 3)), 'test_cfg.crop_size=.* must be two positive integers'),
    (windows(crop_size=(32.0, 48)), 'test_cfg.crop_size=.* must be two positive integers'),
    (windows(crop_size='32'), 'test_cfg.crop_size=.* must be two positive integers'),
    (windows(stride=(0, 30)), 'test_cfg.stride=.* must be two positive integers'),
    (windows(stride=(True, 30)), 'test_cfg.stride=.* must be two positive integers'),
    (windows(stride=None), "test_cfg.mode='slide' needs stride"),
]


@pytest.mark.parametrize(('test_cfg', 'message'), WRONG)
def test_wrong_test_cfg_is_named_when_the_model_is_built(test_cfg, message):
    with pytest.raises(ValueError, match=message):
        ours_only(test_cfg=test_cfg)


@pytest.mark.parametrize('keep_logits', [False, True])
def test_a_test_cfg_that_was_changed_to_a_wrong_one_is_named_by_the_prediction(keep_logits):
    model = ours_only(test_cfg=dict(mode='whole', keep_logits=keep_logits))
    for test_cfg, message in WRONG:
        model.test_cfg = ConfigDict(test_cfg, keep_logits=keep_logits)
        with pytest.raises(ValueError, match=message):
            model.predict(torch.randn(1, 3, 64, 96))


def test_windows_of_a_whole_image_are_not_asked_for():
    assert ours_only(test_cfg=dict(mode='whole', crop_size=512)).test_cfg.crop_size == 512


def test_windows_go_through_the_network_in_batches_whatever_their_row():
    model, sizes = ours_only(test_cfg=windows(batch=4)), []
    model.backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    predict(model, torch.randn(1, 3, 64, 96), None)
    assert sizes == [(4, 3, 32, 48), (4, 3, 32, 48), (1, 3, 32, 48)]


@pytest.mark.parametrize('seed', range(6))
def test_labels_of_any_windows_equal_mmsegs(seed):
    rng = random.Random(seed)
    crop = [rng.randint(17, 70) for _ in range(2)]
    stride = [rng.randint(max(4, length // 3), length) for length in crop]
    size = tuple(rng.randint(33, 90) for _ in range(2))
    ours, theirs = pair(test_cfg=windows(crop, stride, batch=rng.randint(1, 5)))
    images, truth = torch.randn(1, 3, *size, dtype=torch.float64), samples(size, 1, ori_shape=(61, 47))
    assert_same_labels(*(predict(model, images, truth) for model in (ours, theirs)))
