"""Labels at any size from low-resolution logits, tile by tile: the full-size logits never exist."""

import torch
from torch import Tensor

from .precision import full_precision
from .resampling import Resampling, stream_tiles


@torch.no_grad()
def streamed_labels(
    logits: Tensor, resampling: Resampling, *, threshold: float = 0.3, probability: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the best class of every pixel of the resampled logits.

    Computed in float32 whatever the dtype of the logits and autocast (float64 logits: in float64).

    Args:
        logits: ``(B, C, h, w)``; with one channel, of the class 1 in a sigmoid.
        resampling: from ``h x w`` to the size of the labels.
        threshold: with one channel, class 1 is where its probability is above (mmseg's default).
        probability: whether to compute the probability of the class as well.

    Returns:
        Labels ``(B, H, W)``, uint8 or, above 256 classes, int16; and the probability of the label in a softmax (one
        channel: sigmoid) of the resampled logits, ``(B, H, W)`` in float32, or None.

    Raises:
        ValueError: the resampling starts with another size.
    """
    batch, classes, *size = logits.shape
    if tuple(size) != resampling.in_size:
        raise ValueError(f'resampling from {resampling.in_size} does not fit logits of {tuple(size)}; use their size')
    labels = logits.new_empty(batch, *resampling.out_size, dtype=torch.uint8 if classes <= 256 else torch.int16)
    probabilities = logits.new_empty(labels.shape, dtype=torch.float32) if probability else None
    with full_precision(logits.device):
        for part, tile in stream_tiles(logits, resampling):
            if classes == 1:
                positive = tile[0].sigmoid()
                labels[part] = positive > threshold
            else:
                best, labels[part] = tile.max(0)
            if probability and classes == 1:
                probabilities[part] = torch.where(positive > threshold, positive, 1 - positive)
            elif probability:
                probabilities[part] = (tile - best).exp_().sum(0).reciprocal_()
    return labels, probabilities
