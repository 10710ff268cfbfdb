import copy
import os
import sys

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn import functional as F

from mmseg_ext.models.postprocess import DenseCRF
from mmseg_ext.models.segmentors import EncoderDecoder, SegTTAModel

pytest.importorskip('pydensecrf', reason='the extra crf is not installed')

COLOURS = np.array([[200, 60, 40], [40, 180, 90], [60, 70, 210]])
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
SIZE = (60, 80)
SLIDE = dict(mode='slide', crop_size=(40, 48), stride=(24, 28))


class Pixels(nn.Module):
    """A backbone whose features are the pixels."""

    def forward(self, x):
        return [x]


class BlurredColours(BaseDecodeHead):
    """A head that knows the colour of each class, and sees the image blurred, at a quarter of its size."""

    def __init__(self, **kwargs):
        super().__init__(in_channels=3, channels=3, num_classes=3, **kwargs)
        colours = (torch.from_numpy(COLOURS) - torch.tensor(MEAN)) / torch.tensor(STD)
        self.register_buffer('colours', colours.float()[:, :, None, None])

    def forward(self, features):
        distances = (features[0][:, None] - self.colours).square().sum(2)
        return F.avg_pool2d(-0.3 * distances, 9, stride=4, padding=4, count_include_pad=False)


def segmentor(crf=None, padding=None, head=BlurredColours, **test_cfg):
    preprocessor = dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True, test_cfg=padding)
    config = dict(
        backbone=dict(type=Pixels),
        decode_head=dict(type=head),
        data_preprocessor=preprocessor,
        test_cfg=dict(dict(mode='whole', probability=True), crf=crf, **test_cfg),
    )
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        return EncoderDecoder(**ConfigDict(config)).eval()


def scene(seed=0):
    """Labels with corners, and their noisy picture in RGB."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SIZE, dtype=int)
    top, left = rng.integers(8, 20, 2)
    labels[top : top + 25, left : left + 30] = 1
    labels[:30, 60 + seed :] = 2
    image = (COLOURS[labels] + rng.normal(0, 8, (*SIZE, 3))).clip(0, 255).astype(np.uint8)
    return labels, image


def data_of(*images, **meta):
    """What a data loader gives for images in RGB: they are loaded as BGR."""
    meta = dict(ori_shape=SIZE, img_shape=images[0].shape[:2]) | meta
    inputs = [torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()) for image in images]
    return dict(inputs=inputs, data_samples=[SegDataSample(metainfo=dict(meta)) for _ in images])


@torch.no_grad()
def predict(model, data):
    return model.test_step(copy.deepcopy(data))


def unrefined(model, data):
    """mmseg's full-size probabilities of the first image."""
    plain = copy.deepcopy(model)
    plain.crf, plain.test_cfg.keep_logits = None, True
    return predict(plain, data)[0].seg_logits.data.softmax(0).numpy()


def assert_refined(sample, refined):
    """The sample's labels and probability are those of refined probabilities ``(C, H, W)``."""
    labels, probability = sample.pred_sem_seg.data, sample.pred_probability.data
    assert labels.dtype == torch.uint8
    assert labels.shape == probability.shape == (1, *refined.shape[1:])
    np.testing.assert_allclose(probability[0].numpy(), refined.max(0), atol=1e-3)
    np.testing.assert_array_equal(labels[0].numpy(), refined.argmax(0))


@pytest.mark.parametrize('mode', [dict(), SLIDE], ids=['whole', 'slide'])
def test_a_blurred_boundary_becomes_sharp_and_right(mode):
    labels, image = scene()
    wrong = []
    for crf in (None, {}):
        sample = predict(segmentor(crf, **mode), data_of(image))[0]
        wrong.append((sample.pred_sem_seg.data[0].numpy() != labels).sum())
    assert wrong[0] > 200
    assert wrong[1] < 10


FORMS = {
    'as it is': (dict(), dict()),
    'padded': (dict(padding=dict(size_divisor=64)), dict()),
    'flipped': (dict(), dict(flip=True, flip_direction='horizontal')),
    'padded, flipped vertically': (dict(padding=dict(size=(70, 99))), dict(flip=True, flip_direction='vertical')),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('mode', [dict(), SLIDE], ids=['whole', 'slide'])
def test_the_result_is_that_of_the_crf_on_the_original_image(form, mode):
    kwargs, meta = FORMS[form]
    crf = dict(iterations=3, bilateral_rgb=8)
    model = segmentor(crf, **kwargs, **mode)
    image = scene()[1]
    axis = {'horizontal': 1, 'vertical': 0}.get(meta.get('flip_direction'))
    data = data_of(image if axis is None else np.flip(image, axis), **meta)
    assert_refined(predict(model, data)[0], DenseCRF(**crf)(image, unrefined(model, data)))


@pytest.mark.parametrize('size', [(90, 120), (45, 60)], ids=str)
def test_an_image_without_a_file_is_resized_back(size):
    image = scene()[1]
    data = data_of(mmcv.imresize(image, size[::-1]))
    model = segmentor({})
    sample = predict(model, data)[0]
    pixels = data['inputs'][0][[2, 1, 0]].float()[None]
    back = F.interpolate(pixels, size=SIZE, mode='bilinear')[0].round().byte().permute(1, 2, 0).numpy()
    refined = DenseCRF()(back, unrefined(model, data))
    # A rounding apart, the images are the same.
    assert np.abs(sample.pred_probability.data[0].numpy() - refined.max(0)).mean() < 1e-3
    assert (sample.pred_sem_seg.data[0].numpy() != refined.argmax(0)).sum() <= 2


@pytest.mark.parametrize('size', [(90, 120), (45, 60)], ids=str)
def test_the_file_of_a_resized_image_is_read(size, tmp_path):
    image = scene()[1]
    mmcv.imwrite(image[..., ::-1], str(tmp_path / 'image.png'))
    data = data_of(mmcv.imresize(image, size[::-1]), img_path=str(tmp_path / 'image.png'))
    model = segmentor({})
    assert_refined(predict(model, data)[0], DenseCRF()(image, unrefined(model, data)))


@pytest.mark.parametrize('cores', [1, 2])
@pytest.mark.parametrize('mode', [dict(), SLIDE], ids=['whole', 'slide'])
def test_a_batch_gives_what_its_images_give(cores, mode, monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: cores)
    model = segmentor({}, **mode)
    images = [scene(seed)[1] for seed in range(3)]
    together = predict(model, data_of(*images))
    for sample, image in zip(together, images, strict=True):
        alone = predict(model, data_of(image))[0]
        torch.testing.assert_close(sample.pred_probability.data, alone.pred_probability.data, rtol=0, atol=1e-3)
        assert torch.equal(sample.pred_sem_seg.data, alone.pred_sem_seg.data)
    assert not torch.equal(together[0].pred_sem_seg.data, together[1].pred_sem_seg.data)


def test_logits_that_are_kept_are_the_networks():
    data = data_of(scene()[1])
    model = segmentor({}, keep_logits=True)
    sample = predict(model, data)[0]
    np.testing.assert_allclose(sample.seg_logits.data.softmax(0).numpy(), unrefined(model, data), atol=1e-6)
    assert_refined(sample, DenseCRF()(scene()[1], unrefined(model, data)))


def test_images_without_samples_are_refined():
    data = data_of(scene()[1])
    model = segmentor({})
    inputs = model.data_preprocessor(copy.deepcopy(data), False)['inputs']
    assert_refined(model.predict(inputs)[0], DenseCRF()(scene()[1], unrefined(model, data)))


@pytest.mark.parametrize('mode', [dict(), SLIDE], ids=['whole', 'slide'])
def test_the_average_of_augmentations_is_refined_on_the_image_of_the_original_size(mode):
    crf = dict(iterations=3)
    model = segmentor(crf, **mode)
    images = [scene(seed)[1] for seed in range(2)]
    augmentations = [
        data_of(*[mmcv.imresize(image, (120, 90)) for image in images]),
        data_of(*[np.flip(image, 1) for image in images], flip=True, flip_direction='horizontal'),
        data_of(*[mmcv.imresize(image, (60, 45)) for image in images]),
    ]
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        tta = SegTTAModel(module=model)
    results = tta.test_step({key: [copy.deepcopy(data[key]) for data in augmentations] for key in augmentations[0]})
    for i, (sample, image) in enumerate(zip(results, images, strict=True)):
        alone = [{key: values[i : i + 1] for key, values in data.items()} for data in augmentations]
        mean = sum(unrefined(model, data) for data in alone) / 3
        labels = DenseCRF(**crf)(image, mean).argmax(0)
        assert (labels != mean.argmax(0)).any()
        assert sample.pred_sem_seg.data.dtype == torch.uint8
        np.testing.assert_array_equal(sample.pred_sem_seg.data[0].numpy(), labels)


class Halved(EncoderDecoder):
    def encode_decode(self, inputs, batch_img_metas):
        return super().encode_decode(inputs, batch_img_metas) / 2


def test_a_subclass_of_other_logits_has_them_averaged_and_refined_once(monkeypatch):
    model, image = segmentor({}), scene()[1]
    data = data_of(image)
    halved = copy.deepcopy(model)
    halved.__class__ = Halved
    probabilities = unrefined(model, data) ** 0.5
    probabilities /= probabilities.sum(0)
    expected = DenseCRF()(image, probabilities)
    assert_refined(predict(halved, data)[0], expected)
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        tta = SegTTAModel(module=halved)
    twice = {key: [copy.deepcopy(value) for _ in range(2)] for key, value in data.items()}
    calls, refine = [], DenseCRF.__call__
    monkeypatch.setattr(DenseCRF, '__call__', lambda *args: calls.append(args) or refine(*args))
    assert_refined(tta.test_step(twice)[0], expected)
    assert len(calls) == 1
    assert halved.crf is not None


@pytest.mark.parametrize('mode', [dict(), SLIDE], ids=['whole', 'slide'])
def test_probabilities_are_float32_whatever_the_default_dtype(mode, monkeypatch):
    model, data = segmentor({}, **mode), data_of(scene()[1])
    probabilities = []
    refine_all = DenseCRF.refine_all
    monkeypatch.setattr(
        DenseCRF,
        'refine_all',
        lambda self, pairs, workers: refine_all(self, (probabilities.append(p[1]) or p for p in pairs), workers),
    )
    expected = predict(model, data)[0]
    torch.set_default_dtype(torch.float64)
    try:
        sample = predict(model, data)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert [p.dtype for p in probabilities] == [np.float32] * 2
    assert sample.pred_probability.data.dtype == torch.float32
    assert torch.equal(sample.pred_sem_seg.data, expected.pred_sem_seg.data)


class OneChannel(BlurredColours):
    def __init__(self):
        BaseDecodeHead.__init__(self, in_channels=3, channels=3, num_classes=2, out_channels=1, threshold=0.5)


class OwnPrediction(BlurredColours):
    def predict(self, inputs, batch_img_metas, test_cfg):
        return self.forward(inputs)


@pytest.mark.parametrize(
    ('crf', 'head', 'error', 'message'),
    [
        (True, BlurredColours, TypeError, r'test_cfg\.crf=True must be a dict of parameters; dict\(\) has'),
        (dict(sigma=3), BlurredColours, ValueError, r"test_cfg\.crf has no parameter 'sigma'; it takes iterations, bi"),
        (dict(iterations=0), BlurredColours, ValueError, r'test_cfg\.crf: iterations=0 must be positive'),
        ({}, OneChannel, ValueError, r'test_cfg\.crf needs the probability of every class; give .* out_channels=2'),
        ({}, OwnPrediction, ValueError, r'test_cfg\.crf: OwnPrediction does not predict by a softmax'),
    ],
    ids=['no dict', 'unknown', 'not positive', 'one channel', 'a prediction of its own'],
)
def test_a_crf_that_cannot_be_is_refused_when_the_model_is_built(crf, head, error, message):
    with pytest.raises(error, match=message):
        segmentor(crf, head=head)


def test_without_the_library_the_model_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pydensecrf', None)
    monkeypatch.delitem(sys.modules, 'pydensecrf.densecrf', raising=False)
    with pytest.raises(ImportError, match=r'test_cfg\.crf: DenseCRF needs pydensecrf2 .*pip install pydensecrf2'):
        segmentor({})
    assert segmentor(None).crf is None
