import pytest
import torch
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from mmseg_ext.engine.measure import peak_memory
from mmseg_ext.layers import resampling
from mmseg_ext.layers.resampling import Resampling
from mmseg_ext.layers.streamed_labels import streamed_labels

BACKBONE = dict(type='MobileNetV2', widen_factor=0.25, out_indices=(0,))
# Padding as the data preprocessor writes it: left, right, top, bottom.
METAS = [
    dict(ori_shape=(100, 130), img_shape=(96, 128), pad_shape=(96, 128)),
    dict(ori_shape=(50, 71), img_shape=(90, 120), pad_shape=(96, 128), padding_size=[3, 5, 0, 6]),
    dict(ori_shape=(200, 111), img_shape=(96, 128), pad_shape=(96, 128), flip=True, flip_direction='horizontal'),
    dict(
        ori_shape=(33, 44),
        img_shape=(90, 120),
        pad_shape=(96, 128),
        img_padding_size=[0, 8, 0, 6],
        flip=True,
        flip_direction='vertical',
    ),
]


def segmentor(classes: int, align_corners: bool, threshold: float | None = None) -> EncoderDecoder:
    head = dict(
        type='FCNHead',
        in_channels=8,
        channels=8,
        num_convs=0,
        concat_input=False,
        num_classes=max(classes, 2),
        out_channels=classes,
        threshold=threshold,
        align_corners=align_corners,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=classes == 1, avg_non_ignore=True),
    )
    return EncoderDecoder(BACKBONE, head, test_cfg=dict(mode='whole'))


def smooth_logits(*shape: int) -> Tensor:
    coarse = torch.randn(*shape[:2], 3, 4)
    return 5 * F.interpolate(coarse, size=shape[2:], mode='bicubic') + torch.randn(shape)


def steps(size: tuple[int, int], meta: dict, align_corners: bool) -> Resampling:
    """What mmseg does with the logits of an image, as one chain."""
    left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
    chain = Resampling(size).resize(meta['pad_shape'], align_corners).crop(top, bottom, left, right)
    direction = meta.get('flip_direction')
    return chain.flip(direction == 'horizontal', direction == 'vertical').resize(meta['ori_shape'], align_corners)


@pytest.fixture
def _small_tiles(monkeypatch):
    monkeypatch.setattr(resampling, '_TILE_COLUMNS', 32)
    monkeypatch.setattr(resampling, '_CPU_TILE_BYTES', 2**14)


@pytest.mark.usefixtures('_small_tiles')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('classes', [2, 19, 300])
def test_labels_and_probabilities_are_mmsegs_outside_of_near_ties(classes, align_corners, dtype):
    model = segmentor(classes, align_corners)
    logits = smooth_logits(len(METAS), classes, 12, 16).to(dtype)
    # mmseg interpolates in the dtype of the logits; in float32 it shows what these logits mean.
    full = model.decode_head.predict_by_feat(logits.float(), METAS)
    samples = model.postprocess_result(full, [SegDataSample(metainfo=meta) for meta in METAS])
    others = pixels = 0
    for image, (meta, sample) in enumerate(zip(METAS, samples, strict=True)):
        labels, probability = streamed_labels(
            logits[image : image + 1], steps((12, 16), meta, align_corners), probability=True
        )
        assert labels.dtype == (torch.uint8 if classes <= 256 else torch.int16)
        assert labels.shape == probability.shape == (1, *meta['ori_shape'])
        expected = sample.seg_logits.data
        best = expected.topk(2, dim=0).values
        tied = best[0] - best[1] <= 1e-4 * (logits.max() - logits.min())
        other = labels[0] != sample.pred_sem_seg.data[0]
        assert not other[~tied].any()
        torch.testing.assert_close(probability[0], expected.softmax(0).amax(0), rtol=0, atol=1e-5)
        others += int(other.sum())
        pixels += other.numel()
    assert others <= 1e-4 * pixels


@pytest.mark.usefixtures('_small_tiles')
@pytest.mark.parametrize('threshold', [0.3, 0.6])
def test_one_channel_is_a_probability_above_the_threshold(threshold):
    model = segmentor(1, False, threshold)
    logits = smooth_logits(len(METAS), 1, 12, 16)
    full = model.decode_head.predict_by_feat(logits, METAS)
    samples = model.postprocess_result(full, [SegDataSample(metainfo=meta) for meta in METAS])
    for image, (meta, sample) in enumerate(zip(METAS, samples, strict=True)):
        labels, probability = streamed_labels(
            logits[image : image + 1], steps((12, 16), meta, False), threshold=threshold, probability=True
        )
        positive, expected = sample.seg_logits.data, sample.pred_sem_seg.data
        tied = (positive - threshold).abs() < 1e-5
        assert (labels == expected)[~tied].all()
        assert 0 < expected.mean() < 1
        torch.testing.assert_close(probability[~tied], positive.where(expected > 0, 1 - positive)[~tied])


def test_autocast_and_memory_format_change_no_label():
    logits = smooth_logits(2, 19, 12, 16)
    chain = Resampling((12, 16)).resize((96, 128), False)
    labels, probability = streamed_labels(logits, chain, probability=True)
    with torch.autocast('cpu', torch.bfloat16):
        result = streamed_labels(logits, chain, probability=True)
        assert torch.equal(result[0], labels)
        assert torch.equal(result[1], probability)
    assert torch.equal(streamed_labels(logits.to(memory_format=torch.channels_last), chain)[0], labels)
    assert streamed_labels(logits, chain)[1] is None


def test_memory_is_below_a_tenth_of_the_full_size_logits():
    logits = smooth_logits(1, 150, 32, 64)
    chain = Resampling((32, 64)).resize((256, 512), False)
    peak = peak_memory(lambda: streamed_labels(logits, chain), logits.device)
    assert 256 * 512 < peak < 150 * 256 * 512 * 4 / 10


def test_a_resampling_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'from \(4, 5\) does not fit logits of \(5, 4\)'):
        streamed_labels(torch.zeros(1, 2, 5, 4), Resampling((4, 5)))
