import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg_ext.evaluation import IoUMetric, boundary_areas

from .samples import CLASSES, evaluate, make_sample


def boundary(mask: Tensor, distance: int) -> Tensor:
    """Boundary of one mask, by the definition: what an erosion takes away, with nothing beyond the image's border."""
    outside = F.pad(1 - mask[None].float(), (distance,) * 4, value=1.0)
    return mask & (F.max_pool2d(outside, 2 * distance + 1, stride=1)[0] == 0).logical_not()


def shifted_squares() -> tuple[Tensor, Tensor]:
    """A square of 20 pixels in an image of 100, whose boundary is 3 pixels wide, and the same 2 pixels to the right."""
    label, prediction = torch.zeros(2, 100, 100, dtype=torch.int64)
    label[40:60, 40:60] = 1
    prediction[40:60, 42:62] = 1
    return prediction, label


def test_the_areas_of_a_shifted_square_are_those_worked_out_by_hand():
    areas = boundary_areas(*shifted_squares(), num_classes=2, ignore_index=255, ratio=0.02)
    # The square: each ring 20 * 20 - 14 * 14 = 204; in both 18 * 20 - 16 * 14 = 136; so an IoU of a half.
    # Around it: each 100 * 100 - 94 * 94 + 26 * 26 - 20 * 20 = 1440; in both 1164 + 24 * 26 - 22 * 20 = 1348.
    assert areas.tolist() == [[1348, 136], [1532, 272]]


@pytest.mark.parametrize(('num_classes', 'dtype'), [(4, torch.uint8), (300, torch.int64)])
@pytest.mark.parametrize('ratio', [0.02, 0.06])
def test_all_classes_at_once_equal_one_erosion_for_each_mask(num_classes, dtype, ratio):
    def blobs() -> Tensor:
        small = torch.randint(num_classes - 4, num_classes + 1, (7, 9)).to(dtype)
        return small.repeat_interleave(8, 0).repeat_interleave(8, 1)[:50, :70]

    label = blobs()
    prediction = torch.where(torch.rand(label.shape) < 0.02, blobs(), label.roll(2, 0))
    label[10:14, 20:40] = 255
    distance = round(ratio * (50**2 + 70**2) ** 0.5)
    expected = torch.zeros(2, num_classes, dtype=torch.int64)
    for c in range(num_classes):
        true = boundary((label == c), distance)
        predicted = boundary((prediction == c) & (label != 255), distance)
        expected[:, c] = torch.stack([(true & predicted).sum(), (true | predicted).sum()])
    areas = boundary_areas(prediction, label, num_classes, 255, ratio)
    if num_classes > 255:  # label 255 is a class as well here
        expected[:, 255] = 0
    assert areas.tolist() == expected.tolist()
    assert (areas[0] < areas[1]).any()


def test_a_boundary_is_at_least_a_pixel_wide():
    label = torch.zeros(5, 5, dtype=torch.int64)
    assert boundary_areas(label, label, 1, 255, ratio=0.02).tolist() == [[16], [16]]


def test_what_is_predicted_on_ignored_pixels_changes_nothing():
    prediction, label = torch.zeros(2, 60, 60, dtype=torch.int64)
    label[20:40] = 255
    prediction[20:40] = 1
    intersection, union = boundary_areas(prediction, label, 2, 255, ratio=0.02)
    assert intersection.tolist() == union.tolist()
    assert union[1] == 0


def test_the_metric_adds_a_column_and_a_mean_over_the_classes_that_occur(log):
    metrics = evaluate(IoUMetric(iou_metrics=['mIoU', 'mBoundaryIoU']), [make_sample('a', *shifted_squares())])
    assert list(metrics) == ['aAcc', 'mIoU', 'mAcc', 'mBoundaryIoU']
    assert metrics['mBoundaryIoU'] == pytest.approx(50 * (1348 / 1532 + 1 / 2), abs=0.005)
    text = log.read_text()
    assert '|  Class  |  IoU  |  Acc  | BoundaryIoU |' in text
    assert '|   sky   | 81.82 |  90.0 |     50.0    |' in text
    assert '| unicorn |  nan  |  nan  |     nan     |' in text


def test_boundary_iou_sums_the_areas_of_the_images_alone_or_with_nan_replaced():
    prediction, label = shifted_squares()
    samples = [make_sample('a', prediction, label), make_sample('b', label, label)]
    metrics = evaluate(IoUMetric(iou_metrics='mBoundaryIoU', nan_to_num=0), samples)
    assert list(metrics) == ['aAcc', 'mBoundaryIoU']
    classes = (1348 + 1440) / (1532 + 1440), (136 + 204) / (272 + 204)
    assert metrics['mBoundaryIoU'] == pytest.approx(100 * sum(classes) / len(CLASSES), abs=0.005)


def test_the_ratio_sets_the_width_of_the_boundaries():
    wide = evaluate(IoUMetric(iou_metrics='mBoundaryIoU', boundary_ratio=1), [make_sample('a', *shifted_squares())])
    assert wide['mBoundaryIoU'] == pytest.approx(50 * (9560 / 9640 + 360 / 440), abs=0.005)  # all of each mask
