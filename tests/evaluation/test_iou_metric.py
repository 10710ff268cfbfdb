import re

import mmengine.registry as root
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.evaluation import IoUMetric as MmsegIoUMetric
from PIL import Image

from mmseg_ext.evaluation import IoUMetric

from .samples import CLASSES, evaluate, make_sample


def table(text: str) -> list[str]:
    return re.findall(r'^[|+].*$', text, flags=re.MULTILINE)


@pytest.mark.parametrize('iou_metrics', ['mIoU', ['mIoU'], ['mDice'], ['mFscore'], ['mFscore', 'mIoU', 'mDice']])
@pytest.mark.parametrize(
    'options',
    [{}, dict(nan_to_num=-1), dict(beta=2), dict(ignore_index=2), dict(ignore_index=200, prefix='val')],
    ids=str,
)
def test_metrics_and_table_equal_mmsegs(samples, log, iou_metrics, options):
    results, tables = [], []
    for kind in (MmsegIoUMetric, IoUMetric):
        before = len(log.read_text())
        results.append(evaluate(kind(iou_metrics=iou_metrics, **options), samples))
        tables.append(table(log.read_text()[before:]))
    assert list(results[0]) == list(results[1])
    np.testing.assert_equal(results[1], results[0])
    assert {type(value) for value in results[1].values()} == {type(value) for value in results[0].values()}
    assert tables[0] == tables[1]
    assert len(tables[0]) == 4 + len(CLASSES)


@pytest.mark.parametrize(
    'dtypes', [(torch.uint8, torch.int64), (torch.uint8, torch.uint8), (torch.float32, torch.uint8)]
)
def test_results_equal_mmsegs_for_other_number_types(samples, dtypes):
    for sample in samples:
        for key, dtype in zip(('pred_sem_seg', 'gt_sem_seg'), dtypes, strict=True):
            sample[key]['data'] = sample[key]['data'].to(dtype)
    expected = evaluate(MmsegIoUMetric(iou_metrics=['mIoU', 'mFscore']), samples)
    np.testing.assert_equal(evaluate(IoUMetric(iou_metrics=['mIoU', 'mFscore']), samples), expected)


def test_a_second_evaluation_starts_from_nothing(samples):
    metric = IoUMetric()
    evaluate(metric, samples[:1])
    np.testing.assert_equal(evaluate(metric, samples[1:]), evaluate(IoUMetric(), samples[1:]))


@pytest.mark.parametrize('shift', [False, True])
def test_predictions_are_written_as_mmseg_writes_them(samples, tmp_path, shift):
    pictures = []
    for kind in (MmsegIoUMetric, IoUMetric):
        folder = tmp_path / kind.__module__
        for sample in samples:
            sample['reduce_zero_label'] = shift
            sample['pred_sem_seg']['data'].clamp_(max=len(CLASSES) - 1)
        evaluate(kind(output_dir=str(folder)), samples)
        pictures.append({path.name: np.asarray(Image.open(path)) for path in folder.iterdir()})
    assert set(pictures[1]) == {'image0.png', 'image1.png', 'image2.png'}
    np.testing.assert_equal(pictures[1], pictures[0])
    np.testing.assert_array_equal(pictures[1]['image1.png'], samples[1]['pred_sem_seg']['data'][0] + shift)


def test_format_only_writes_predictions_without_a_truth(samples, tmp_path, log):
    for sample in samples:
        del sample['gt_sem_seg']
    assert evaluate(IoUMetric(output_dir=str(tmp_path / 'out'), format_only=True), samples) == {}
    assert len(list((tmp_path / 'out').iterdir())) == 3
    assert not log.with_name('confusion_matrix.png').exists()


def test_the_confusion_matrix_is_drawn_beside_the_log(samples, log):
    evaluate(IoUMetric(), samples)
    assert min(Image.open(log.with_name('confusion_matrix.png')).size) > 300


def test_the_confusion_matrix_is_drawn_where_the_user_wants_it(samples, tmp_path, log):
    evaluate(IoUMetric(confusion_matrix=str(tmp_path / 'matrix.png')), samples)
    assert (tmp_path / 'matrix.png').exists()
    assert not log.with_name('confusion_matrix.png').exists()


@pytest.mark.parametrize('scope', ['mmseg', 'mmseg_ext'])
def test_the_metric_is_built_by_prefix_and_in_our_scope_by_its_name(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert type(root.METRICS.build(dict(type='mmseg_ext.IoUMetric'))) is IoUMetric
        expected = IoUMetric if scope == 'mmseg_ext' else MmsegIoUMetric
        assert type(root.METRICS.build(dict(type='IoUMetric', iou_metrics=['mIoU'], keep_results=True))) is expected


def test_an_unknown_metric_is_refused_by_name():
    with pytest.raises(ValueError, match=r"iou_metrics=\['mIoU', 'IoU'\]: \['IoU'\] must be among \['mIoU'"):
        IoUMetric(iou_metrics=['mIoU', 'IoU'])


def test_an_unknown_argument_is_refused_by_name():
    with pytest.raises(TypeError, match='ignore_idx'):
        IoUMetric(ignore_idx=0)


def test_a_prediction_of_another_size_is_refused_with_both_sizes():
    sample = make_sample('street', torch.zeros(4, 6), torch.zeros(6, 4))
    with pytest.raises(ValueError, match=r'images/street\.jpg: the prediction has size \(4, 6\), its label \(6, 4\)'):
        evaluate(IoUMetric(), [sample])


def test_more_images_than_the_data_set_has_are_refused(samples):
    with pytest.raises(ValueError, match=r"has counted 3 images, but 1 of the data set's 1 are its share"):
        evaluate(IoUMetric(), samples, size=1)
