"""The confusion matrix of one image, counted in one pass."""

import torch
from torch import Tensor

# Pixels that are looked at together: what is made of them stays in a CPU's cache.
_CHUNK = 2**18


def count_confusion(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Count the pixels of each class that were predicted as each class.

    Args:
        prediction: classes, of any shape and number type.
        label: the truth, same shape and device.
        num_classes: number of classes, C.
        ignore_index: pixels with this label don't count; it may be a class.

    Returns:
        ``(C + 1, C + 1)`` int64, on the same device: row = truth, column = prediction. The last row and column take the
        labels and predictions that are no class.
    """
    # Codes: 0 below all classes, 1 to C a class, C + 1 above all classes, C + 2 (labels only) ignored.
    above, ignored = num_classes + 1, num_classes + 2
    counts = torch.zeros((ignored + 1) * (above + 1), dtype=torch.int64, device=label.device)
    for predicted, truth in zip(prediction.flatten().split(_CHUNK), label.flatten().split(_CHUNK), strict=True):
        truth = truth.to(torch.int32)
        is_ignored = truth == ignore_index
        rows = truth.clamp(-1, num_classes).add_(1).masked_fill_(is_ignored, ignored)
        columns = predicted.to(torch.int32).clamp(-1, num_classes).add_(1)
        counts += torch.bincount(rows.mul_(above + 1).add_(columns), minlength=len(counts))
    counts = counts.view(ignored + 1, above + 1)[:-1]
    counts[above] += counts[0]
    counts[:, above] += counts[:, 0]
    return counts[1:, 1:]
