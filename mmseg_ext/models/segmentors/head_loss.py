"""mmseg's loss of a head without its full-size logits (``layers/streamed_loss.py``), where that is plain."""

from collections.abc import Sequence

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmseg_ext.layers import hard_pixel_weight, streamed_cross_entropy, streamed_pixel_losses
from mmseg_ext.layers.eager import is_eager

from .covered import covers_loss, losses_of


def head_loss(head: nn.Module, inputs: Sequence[Tensor], data_samples: list, train_cfg: dict) -> dict[str, Tensor]:
    """Return what ``head.loss`` of the backbone's features returns: the losses by name, and ``acc_seg``."""
    if not covers_loss(head):
        return head.loss(inputs, data_samples, train_cfg)
    return streamed_loss(head, head(inputs), data_samples)


def streamed_loss(head: BaseDecodeHead, logits: Tensor, data_samples: list) -> dict[str, Tensor]:
    """Return the losses by name, and ``acc_seg``, of a head's logits and their truth, as its ``loss_by_feat`` does."""
    if not is_eager(logits):
        return head.loss_by_feat(logits, data_samples)
    target = head._stack_batch_gt(data_samples).squeeze(1)
    shared = dict(align_corners=head.align_corners, ignore_index=head.ignore_index)
    weight = None if head.sampler is None else _hard_pixels(head, logits, target, shared)
    result = {}
    for loss in losses_of(head):
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
            loss.loss_weight * streamed_pixel_losses(logits, target, **shared, **_form(loss))
            for loss in losses_of(head)
        )
    return hard_pixel_weight(
        losses, target, min_kept=sampler.min_kept, thresh=sampler.thresh, ignore_index=head.ignore_index
    )
