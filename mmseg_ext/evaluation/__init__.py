"""The metric: mmseg's table from one confusion matrix, and Boundary IoU."""

from .boundary_iou import boundary_areas
from .confusion_matrix import count_confusion
from .iou_metric import IoUMetric

__all__ = ['IoUMetric', 'boundary_areas', 'count_confusion']
