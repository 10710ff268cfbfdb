"""Test-time augmentation against mmseg's."""

import mmseg.models.segmentors as mmseg_segmentors
import pytest
import torch

from mmseg_ext.engine.measure import peak_memory
from mmseg_ext.models.segmentors import SegTTAModel
from tests.models.segmentor_parity import augmented, head, ours_only, pair, tta_labels

SLIDE = dict(test_cfg=dict(mode='slide', crop_size=(32, 48), stride=(20, 30)))
BINARY = dict(decode_head=head(num_classes=2, out_channels=1, threshold=0.5))
MODELS = {'whole': {}, 'slide': SLIDE, 'one channel': BINARY, 'one channel, slide': dict(BINARY, **SLIDE)}


def mean_labels(model, data):
    """Labels by the mean of the probabilities of mmseg's full-size logits; it has a second sigmoid of one channel."""
    total = 0
    for inputs, samples in zip(data['inputs'], data['data_samples'], strict=True):
        results = model.test_step(dict(inputs=inputs, data_samples=samples))
        logits = torch.stack([sample.seg_logits.data for sample in results])
        total = total + (logits.softmax(1) if logits.shape[1] > 1 else logits)
    mean = total / len(data['inputs'])
    return mean.argmax(1, keepdim=True) if mean.shape[1] > 1 else mean > 0.5


@pytest.mark.parametrize('name', MODELS)
def test_labels_are_those_of_the_mean_probability(name):
    ours, theirs = pair(**MODELS[name])
    data = augmented(2)
    labels = tta_labels(SegTTAModel, ours, data)
    tta_labels(SegTTAModel, theirs, data)  # for its preprocessor
    with torch.no_grad():
        expected = mean_labels(theirs, data)
    for a, b in zip(labels, expected, strict=True):
        assert a.dtype == torch.uint8
        assert a.shape == b.shape == (1, 70, 90)
        assert (a != b).double().mean() < 1e-3
        assert len(a.unique()) > 1
    assert not ours.test_cfg.get('keep_logits')


@pytest.mark.parametrize('name', MODELS)
def test_a_segmentor_of_mmsegs_is_averaged_as_ours(name):
    ours, theirs = pair(**MODELS[name])
    data = augmented(2)
    for a, b in zip(tta_labels(SegTTAModel, ours, data), tta_labels(SegTTAModel, theirs, data), strict=True):
        assert a.dtype == b.dtype
        assert (a != b).double().mean() < 1e-3


@pytest.mark.parametrize('name', ['whole', 'slide'])
def test_labels_equal_mmsegs(name):
    ours, theirs = pair(**MODELS[name])
    data = augmented()
    (a,), (b,) = tta_labels(SegTTAModel, ours, data), tta_labels(mmseg_segmentors.SegTTAModel, theirs, data)
    assert a.shape == b.shape
    assert (a != b).double().mean() < 1e-3


def test_a_probability_that_is_asked_for_is_the_mean():
    ours, theirs = pair(test_cfg=dict(mode='whole', probability=True))
    data = augmented()
    tta_labels(SegTTAModel, ours, data)
    sample = SegTTAModel(module=ours).test_step(data)[0]
    tta_labels(SegTTAModel, theirs, data)
    with torch.no_grad():
        runs = zip(data['inputs'], data['data_samples'], strict=True)
        maps = [theirs.test_step(dict(inputs=x, data_samples=y))[0].seg_logits.data.softmax(0) for x, y in runs]
    mean = (sum(maps) / 3).amax(0, keepdim=True)
    torch.testing.assert_close(sample.pred_probability.data, mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'mode', [dict(mode='whole'), dict(mode='slide', crop_size=(64, 96), stride=(64, 96))], ids=['whole', 'slide']
)
def test_augmentations_of_a_batch_hold_one_full_size_map_at_most(mode):
    classes, scale = 50, 4
    model = ours_only(decode_head=head(num_classes=classes), test_cfg=mode).eval()
    data = augmented(2)
    for samples in data['data_samples']:
        for sample in samples:
            sample.set_metainfo(dict(ori_shape=(70 * scale, 90 * scale)))
    tta_labels(SegTTAModel, model, data)
    tta = SegTTAModel(module=model)
    memory = peak_memory(lambda: tta.test_step(data), torch.device('cpu'))
    # Low-resolution logits and a few tiles; of windows, the sum of the probabilities of one image as well.
    assert memory < (0.7 if mode['mode'] == 'whole' else 1.5) * classes * 70 * 90 * scale**2 * 4
