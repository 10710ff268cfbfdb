"""Our segmentor and mmseg's, with the same weights, and what both get."""

import copy

import mmseg.models.segmentors as mmseg_segmentors
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_ext.models.segmentors import EncoderDecoder
from tests.reference.weights import randomise

CLASSES = 5
BACKBONE = dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8)
NORM = dict(type='BN')


def head(kind='FCNHead', **kwargs):
    """A head on the finest features, if nothing else is asked for."""
    sizes = dict(in_channels=8, in_index=0, channels=8, num_classes=CLASSES, dropout_ratio=0, norm_cfg=NORM)
    return {'type': kind, **sizes, **(dict(num_convs=1) if kind == 'FCNHead' else {}), **kwargs}


def config(decode_head=None, auxiliary_head=None, test_cfg=None, **kwargs):
    return dict(
        backbone=dict(BACKBONE),
        decode_head=decode_head or head(),
        auxiliary_head=auxiliary_head,
        train_cfg=dict(),
        test_cfg=test_cfg or dict(mode='whole'),
        **kwargs,
    )


def pair(**kwargs):
    """Our segmentor and mmseg's, with the same random weights that predict several classes, in float64."""
    ours = ours_only(**kwargs).double()
    with DefaultScope.overwrite_default_scope('mmseg'):
        theirs = mmseg_segmentors.EncoderDecoder(**ConfigDict(config(**kwargs))).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    return ours, theirs


@torch.no_grad()
def ours_only(**kwargs):
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        model = randomise(EncoderDecoder(**ConfigDict(config(**kwargs))))
    classifier = model.decode_head.conv_seg
    classifier.weight.data.normal_()
    model.eval()
    classifier.bias.data -= model(torch.randn(1, 3, 64, 96)).mean((0, 2, 3))
    return model


def samples(size, batch=2, **meta):
    labels = torch.randint(0, CLASSES, (batch, 1, *size))
    labels[:, :, : size[0] // 4] = 255
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size) | meta
    return [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(meta)) for label in labels]


def predict(model, images, truth):
    with torch.no_grad():
        return model.eval().predict(images, copy.deepcopy(truth))


def assert_same_labels(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.pred_sem_seg.data.dtype == torch.uint8
        assert a.pred_sem_seg.data.shape == b.pred_sem_seg.data.shape
        assert (a.pred_sem_seg.data != b.pred_sem_seg.data).float().mean() == 0
        assert len(b.pred_sem_seg.data.unique()) > 1


def augmented(batch=1):
    """What a data loader gives for test-time augmentation: as it is, flipped, and larger."""
    data = dict(inputs=[], data_samples=[])
    for size, flip in (((64, 96), False), ((64, 96), True), ((96, 128), False)):
        meta = dict(ori_shape=(70, 90), img_shape=size, pad_shape=size, img_path='x.png', flip=flip)
        meta['flip_direction'] = 'horizontal' if flip else None
        data['inputs'].append([torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(batch)])
        data['data_samples'].append([SegDataSample(metainfo=dict(meta)) for _ in range(batch)])
    return data


@torch.no_grad()
def tta_labels(kind, model, data):
    """The labels of a batch by a class of test-time augmentation, ours or mmseg's, around a segmentor."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        model.data_preprocessor = MODELS.build(dict(type='SegDataPreProcessor', mean=[120.0] * 3, std=[50.0] * 3))
    tta = kind(module=model.float().eval())
    return [sample.pred_sem_seg.data for sample in tta.test_step(copy.deepcopy(data))]
