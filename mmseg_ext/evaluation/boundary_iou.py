"""Boundary IoU (Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
arXiv:2103.16562), for the classes of a semantic segmentation.

The boundary of a mask is what an erosion by ``d`` pixels takes away from it; the image's border is an edge of every
mask. A class's Boundary IoU is the IoU of the boundaries of its true and of its predicted mask; over a data set, the
areas are summed first. The authors' code erodes each mask. Ours finds the boundaries of all classes at once: a pixel
lies inside of its mask when the least and the greatest label within ``d`` pixels are the same.
"""

import cv2
import numpy as np
from torch import Tensor


def boundary_areas(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int, ratio: float) -> np.ndarray:
    """Measure the boundaries of all classes of one image.

    Ignored pixels are cut out of both label maps first, so their outline is an edge of the truth and of the prediction.

    Args:
        prediction: ``(H, W)`` classes.
        label: ``(H, W)``, the truth.
        num_classes: number of classes, C.
        ignore_index: pixels with this label don't count.
        ratio: ``d`` over the length of the image's diagonal; ``d`` is rounded, and 1 at least. The paper has 0.02, and
            0.005 for Cityscapes.

    Returns:
        ``(2, C)`` int64: pixels in the intersection and in the union of the two boundaries of each class.
    """
    label, prediction = label.cpu().numpy(), prediction.cpu().numpy()
    is_ignored = label == ignore_index
    truth, predicted = (_class_map(labels, num_classes, is_ignored) for labels in (label, prediction))
    distance = max(1, round(ratio * float(np.hypot(*truth.shape))))
    truth_boundary, predicted_boundary = _boundaries(truth, distance), _boundaries(predicted, distance)
    both = truth_boundary & predicted_boundary & (truth == predicted)
    areas = [
        np.bincount(classes[where], minlength=num_classes)[:num_classes]
        for classes, where in ((truth, both), (truth, truth_boundary), (predicted, predicted_boundary))
    ]
    return np.stack([areas[0], areas[1] + areas[2] - areas[0]])


def _class_map(labels: np.ndarray, num_classes: int, is_ignored: np.ndarray) -> np.ndarray:
    """Give each pixel a small code: its class, C for what is no class, C + 1 where ignored."""
    classes = np.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    classes[is_ignored] = num_classes + 1
    return classes.astype(np.uint8 if num_classes + 1 < 256 else np.uint16)


def _boundaries(classes: np.ndarray, distance: int) -> np.ndarray:
    """Mark the pixels within ``distance`` pixels, along each axis, of another class or of the image's border."""
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    # Beyond the border lie the least value for the erosion and the greatest for the dilation: no class is both.
    least = cv2.erode(classes, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    greatest = cv2.dilate(classes, window, borderType=cv2.BORDER_CONSTANT, borderValue=int(np.iinfo(classes.dtype).max))
    return least != greatest
