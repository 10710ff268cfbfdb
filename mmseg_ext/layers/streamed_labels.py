"""Labels at any size from low-resolution logits, tile by tile: the full-size logits never exist."""

import torch
from torch import Tensor

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
    result = LabelMap((batch, *resampling.out_size), classes, logits.device, threshold, probability)
    for part, tile in stream_tiles(logits, resampling):
        result.set(part, tile)
    return result.labels, result.probabilities


class LabelMap:
    """Labels, and their probabilities where asked for, that are filled tile by tile.

    Args:
        shape: ``(B, H, W)``.
        classes: channels of the logits.
        device: of the labels.
        threshold, probability: as in :func:`streamed_labels`.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, device: torch.device, threshold: float, probability: bool
    ):
        self.threshold = threshold
        self.labels = torch.empty(shape, dtype=torch.uint8 if classes <= 256 else torch.int16, device=device)
        self.probabilities = torch.empty(shape, dtype=torch.float32, device=device) if probability else None

    def set(self, part: tuple[int, slice, slice], logits: Tensor) -> None:
        """Fill image, rows and columns from logits ``(C, r, c)`` of their size."""
        if len(logits) == 1:
            positive = logits[0].sigmoid()
            self.labels[part] = positive > self.threshold
        else:
            best, self.labels[part] = logits.max(0)
        if self.probabilities is None:
            return
        if len(logits) == 1:
            self.probabilities[part] = torch.where(positive > self.threshold, positive, 1 - positive)
        else:
            self.probabilities[part] = (logits - best).exp_().sum(0).reciprocal_()
