"""The hardest pixels of a batch, as mmseg's ``OHEMPixelSampler`` chooses them, from one number a pixel."""

import torch
from torch import Tensor


@torch.no_grad()
def hard_pixel_weight(
    losses: Tensor, target: Tensor, *, min_kept: int, thresh: float | None = None, ignore_index: int = 255
) -> Tensor:
    """Weigh hard pixels 1 and all others 0.

    Args:
        losses: of each pixel, ``(B, H, W)``: what ``streamed_pixel_losses`` returns or a sum of several of them. With
            ``thresh``: without class weights and smoothing, so that it tells the probability of the label.
        target: labels ``(B, H, W)``.
        min_kept: hard pixels an image, on average over the batch.
        thresh: None: the pixels of the largest losses are hard. A number: those whose label has a lower probability,
            and if these are fewer than ``min_kept``, those of the lowest probabilities.
        ignore_index: the label of pixels that are never hard.

    Returns:
        ``(B, H, W)`` like ``losses``.

    Raises:
        ValueError: ``min_kept`` is below 2, which mmseg refuses as well.
    """
    if min_kept < 2:
        raise ValueError(f'min_kept={min_kept} must be 2 or more')
    valid = target != ignore_index
    kept = min_kept * len(target)
    weight = torch.zeros_like(losses)
    candidates = losses[valid]
    if thresh is None:
        hard = torch.zeros_like(candidates)
        hard[candidates.sort(descending=True).indices[:kept]] = 1
    else:
        probability = (-candidates).exp_()
        if len(candidates):
            lowest = probability.sort().values[min(kept, len(candidates) - 1)]
            thresh = lowest.clamp(min=thresh)
        hard = (probability < thresh).to(weight)
    weight[valid] = hard
    return weight
