"""mmseg's losses and predictions of a head without its full-size logits (``layers/streamed_*.py``).

A head is covered where its methods are those of mmseg's base class and its losses are plain cross-entropies. mmseg's
own way is kept for every other head.
"""

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss as MMSegCrossEntropyLoss
from mmseg.structures import OHEMPixelSampler
from torch import Tensor, nn

from mmseg_ext.layers import Resampling, hard_pixel_weight, streamed_cross_entropy, streamed_pixel_losses
from mmseg_ext.models.losses import CrossEntropyLoss


def streams_loss(head: nn.Module) -> bool:
    """Whether :func:`streamed_loss` gives what the head's own ``loss`` gives."""
    return (
        _inherits(head, 'loss', 'loss_by_feat')
        and head.ignore_index is not None
        and all(
            type(loss) in (MMSegCrossEntropyLoss, CrossEntropyLoss)
            and not (loss.use_sigmoid or loss.use_mask)
            and loss.reduction == 'mean'
            for loss in _losses(head)
        )
        and (head.sampler is None or type(head.sampler) is OHEMPixelSampler)
    )


def streams_prediction(head: nn.Module) -> bool:
    """Whether labels follow from the head's logits by resizing alone."""
    return _inherits(head, 'predict', 'predict_by_feat')


def _inherits(head: nn.Module, *names: str) -> bool:
    return isinstance(head, BaseDecodeHead) and all(
        getattr(type(head), name) is getattr(BaseDecodeHead, name) for name in names
    )


def _losses(head: BaseDecodeHead) -> Sequence[nn.Module]:
    return head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def streamed_loss(head: BaseDecodeHead, logits: Tensor, data_samples: list) -> dict[str, Tensor]:
    """Return the losses by name, and ``acc_seg``, of a head's logits and their truth, as its ``loss_by_feat`` does."""
    target = head._stack_batch_gt(data_samples).squeeze(1)
    shared = dict(align_corners=head.align_corners, ignore_index=head.ignore_index)
    weight = None if head.sampler is None else _hard_pixels(head, logits, target, shared)
    result = {}
    for loss in _losses(head):
        value, accuracy = streamed_cross_entropy(
            logits,
            target,
            **shared,
            **_form(loss),
            pixel_weight=weight,
            avg_non_ignore=loss.avg_non_ignore,
            loss_weight=loss.loss_weight,
        )
        result[loss.loss_name] = result.get(loss.loss_name, 0) + value
    return {**result, 'acc_seg': accuracy.view(1)}


def _form(loss: nn.Module) -> dict:
    return dict(class_weight=loss.class_weight, label_smoothing=getattr(loss, 'label_smoothing', 0.0))


def _hard_pixels(head: BaseDecodeHead, logits: Tensor, target: Tensor, shared: dict) -> Tensor:
    sampler = head.sampler
    if sampler.thresh is not None:
        losses = streamed_pixel_losses(logits, target, **shared)
    else:
        losses = sum(
            loss.loss_weight * streamed_pixel_losses(logits, target, **shared, **_form(loss)) for loss in _losses(head)
        )
    return hard_pixel_weight(
        losses, target, min_kept=sampler.min_kept, thresh=sampler.thresh, ignore_index=head.ignore_index
    )


def input_size(meta: dict) -> tuple[int, int]:
    """Size that ``BaseDecodeHead.predict_by_feat`` resizes the logits to."""
    is_window = isinstance(meta['img_shape'], torch.Size)
    return tuple((meta['img_shape'] if is_window or 'pad_shape' not in meta else meta['pad_shape'])[:2])


def to_original(resampling: Resampling, meta: dict, align_corners: bool) -> Resampling:
    """Go on from the network's input to the original image, as ``BaseSegmentor.postprocess_result`` does.

    Raises:
        ValueError: the flip has another direction than horizontal or vertical.
    """
    left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
    resampling = resampling.crop(top, bottom, left, right)
    if meta.get('flip'):
        direction = meta.get('flip_direction')
        if direction not in ('horizontal', 'vertical'):
            raise ValueError(f"flip_direction={direction!r} must be 'horizontal' or 'vertical'")
        resampling = resampling.flip(direction == 'horizontal', direction == 'vertical')
    return resampling.resize(meta['ori_shape'][:2], align_corners)
