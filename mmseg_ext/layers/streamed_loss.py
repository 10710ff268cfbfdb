"""Cross-entropy and accuracy of upsampled logits, tile by tile: neither the full-size logits nor their gradient exist.

The pass that computes the loss computes the gradient of the low-resolution logits as well, so that nothing but that is
kept for the backward pass, which scales it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .precision import full_precision
from .resampling import Resampling, compute_dtype, stream_tiles

# What mmseg adds to the numbers that it divides by.
_EPS = torch.finfo(torch.float32).eps


def streamed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool,
    ignore_index: int = 255,
    class_weight: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    pixel_weight: Tensor | None = None,
    avg_non_ignore: bool = False,
    loss_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Resize logits to their target and return mmseg's ``CrossEntropyLoss`` (reduction 'mean') and ``accuracy`` of it.

    Computed in float32 whatever the dtype of the logits and autocast (float64 logits: in float64). It can be
    differentiated once. Ignored pixels have no loss. The sum over the others is divided by the number of all pixels, by
    that of the pixels that are not ignored (``avg_non_ignore``), or, with class weights, by the sum of the weights of
    the labels that are not ignored.

    Args:
        logits: ``(B, C, h, w)``.
        target: labels ``(B, H, W)``, int64.
        align_corners: of the bilinear interpolation to ``H x W``.
        ignore_index: the label of pixels that don't count.
        class_weight: a factor for the loss of each class.
        label_smoothing: share of the target that is spread over all classes, as in
            ``torch.nn.functional.cross_entropy``.
        pixel_weight: a factor for the loss of each pixel, ``(B, H, W)``; it leaves the divisor as it is.
        avg_non_ignore: whether to average over the pixels that are not ignored.
        loss_weight: a factor for the loss.

    Returns:
        The loss, and the percentage of not ignored pixels whose label has the largest logit (not differentiable). Both
        are scalars in float32 (float64 logits: float64).

    Raises:
        ValueError: the target does not fit the logits, or ``class_weight`` the classes. A label that is no class is
            found on the CPU only.
    """
    rule = _rule(logits, target, ignore_index, class_weight, label_smoothing)
    return _CrossEntropy.apply(logits, target, pixel_weight, rule, align_corners, avg_non_ignore, loss_weight)


@torch.no_grad()
def streamed_pixel_losses(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool,
    ignore_index: int = 255,
    class_weight: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of each pixel, ``(B, H, W)``, without a gradient; 0 where it is ignored.

    ``exp(-loss)`` is the probability of the label, if there are no class weights and no smoothing. Arguments and errors
    are those of :func:`streamed_cross_entropy`.
    """
    rule = _rule(logits, target, ignore_index, class_weight, label_smoothing)
    losses = rule.class_weight.new_empty(target.shape)
    with full_precision(logits.device):
        for part, logit in stream_tiles(logits, _to_target(logits, target, align_corners)):
            losses[part] = _TileLoss(logit, target[part], rule).pixels
    return losses


class _Rule(NamedTuple):
    """What the loss of a pixel depends on beside its logits and label."""

    ignore_index: int
    class_weight: Tensor  # (C,)
    weighted: bool
    smoothing: float


def _rule(
    logits: Tensor, target: Tensor, ignore_index: int, class_weight: Sequence[float] | None, label_smoothing: float
) -> _Rule:
    classes = logits.shape[1]
    if target.ndim != 3 or len(target) != len(logits):
        raise ValueError(
            f'target of shape {tuple(target.shape)} does not fit logits of shape {tuple(logits.shape)}; '
            'give (B, H, W), with the B of the logits'
        )
    if class_weight is not None and len(class_weight) != classes:
        raise ValueError(f'class_weight has {len(class_weight)} entries for {classes} classes; give one a class')
    if target.device.type == 'cpu':
        foreign = (target < 0) | (target >= classes)
        foreign &= target != ignore_index
        if foreign.any():
            raise ValueError(
                f'target has the labels {target[foreign].unique().tolist()[:10]}, which are neither in '
                f'[0, {classes - 1}] nor ignore_index={ignore_index}; correct num_classes or the labels'
            )
    weight = [1.0] * classes if class_weight is None else class_weight
    weight = torch.as_tensor(weight, dtype=compute_dtype(logits), device=logits.device)
    return _Rule(ignore_index, weight, class_weight is not None, label_smoothing)


def _to_target(logits: Tensor, target: Tensor, align_corners: bool) -> Resampling:
    return Resampling(logits.shape[2:], compute_dtype(logits)).resize(target.shape[1:], align_corners)


class _TileLoss:
    """Cross-entropy of logits ``(C, r, c)`` with labels ``(r, c)``.

    Attributes:
        valid: which pixels count, ``(r, c)``. All that follows is zero where they don't.
        pixels: their loss.
        label_weight: the weight of their label's class.
        correct: where no logit is larger than the label's.
    """

    def __init__(self, logit: Tensor, target: Tensor, rule: _Rule):
        self.rule = rule
        self.valid = target != rule.ignore_index
        self.label = target.where(self.valid, 0)
        self.label_weight = rule.class_weight[self.label] * self.valid
        label_logit = logit.gather(0, self.label[None])[0]
        best = logit.amax(0)
        self.correct = (label_logit == best) & self.valid
        self.exp = (logit - best).exp_()
        self.exp_sum = self.exp.sum(0)
        log_sum = self.exp_sum.log().add_(best)
        self.pixels = (log_sum - label_logit).mul_(self.label_weight)
        if rule.smoothing:
            others = rule.class_weight.sum() * log_sum - torch.tensordot(rule.class_weight, logit, 1)
            share = rule.smoothing / len(logit)
            self.pixels.mul_(1 - rule.smoothing).add_(others.mul_(self.valid), alpha=share)

    def sums(self, pixel_weight: Tensor | None) -> Tensor:
        """Return those of the weighted loss, ``correct``, ``valid`` and ``label_weight``, in float64."""
        losses = self.pixels if pixel_weight is None else self.pixels * pixel_weight
        maps = losses, self.correct, self.valid, self.label_weight
        return torch.stack([x.sum(dtype=torch.float64) for x in maps])

    def gradient(self, pixel_weight: Tensor | None) -> Tensor:
        """Return that of the weighted sum of the losses by the logits, ``(C, r, c)``. Uses up ``exp``."""
        smoothing, class_weight = self.rule.smoothing, self.rule.class_weight
        on_label = self.label_weight * (1 - smoothing)
        on_each = self.valid * (smoothing / len(class_weight))
        if pixel_weight is not None:
            on_label, on_each = on_label * pixel_weight, on_each * pixel_weight
        grad = self.exp.mul_((on_label + class_weight.sum() * on_each) / self.exp_sum)
        label = self.label[None]
        # One label a pixel, so that this needs no atomic additions, which are not deterministic.
        grad.scatter_(0, label, grad.gather(0, label) - on_label)
        if smoothing:
            grad.view(len(grad), -1).addr_(class_weight, on_each.flatten(), alpha=-1)
        return grad


class _CrossEntropy(torch.autograd.Function):
    """:func:`streamed_cross_entropy`; the forward pass computes the gradient, for an incoming one of 1."""

    @staticmethod
    def forward(
        ctx,
        logits: Tensor,
        target: Tensor,
        pixel_weight: Tensor | None,
        rule: _Rule,
        align_corners: bool,
        avg_non_ignore: bool,
        loss_weight: float,
    ) -> tuple[Tensor, Tensor]:
        like = rule.class_weight
        grad = like.new_zeros(logits.shape) if ctx.needs_input_grad[0] else None
        rows, columns = _to_target(logits, target, align_corners).tiles(logits.shape[1], like)
        # Of the pixels that count: loss, how many are correct, how many they are, weights of their labels' classes.
        sums = like.new_zeros(4, dtype=torch.float64)
        with full_precision(logits.device):
            for image in range(len(logits)):
                x = logits[image].to(like)
                for row in rows:
                    strip = row.rows(x)
                    strip_grad = like.new_zeros(strip.shape) if grad is not None else None
                    for column in columns:
                        part = image, row.outputs, column.outputs
                        weight = None if pixel_weight is None else pixel_weight[part].to(like)
                        tile = _TileLoss(column.columns(strip), target[part], rule)
                        sums += tile.sums(weight)
                        if grad is not None:
                            column.add_columns_gradient(strip_grad, tile.gradient(weight))
                    if grad is not None:
                        row.add_rows_gradient(grad[image], strip_grad)
        loss, correct, valid, label_weight = sums
        if rule.weighted:
            divisor = label_weight
        else:
            divisor = valid if avg_non_ignore else target.numel()
        scale = loss_weight / (divisor + _EPS)
        accuracy = ((correct + _EPS) * 100 / (valid + _EPS)).to(like)
        ctx.mark_non_differentiable(accuracy)
        ctx.save_for_backward(grad)
        ctx.scale, ctx.dtype = scale, logits.dtype
        return (loss * scale).to(like), accuracy

    @staticmethod
    def backward(ctx, grad_loss: Tensor, _) -> tuple[Tensor, ...]:
        # torch's once_differentiable overlooks this where the incoming gradient is a constant.
        if torch.is_grad_enabled():
            raise RuntimeError('streamed_cross_entropy can be differentiated once; call backward without create_graph')
        (grad,) = ctx.saved_tensors
        return (grad * (grad_loss * ctx.scale)).to(ctx.dtype), None, None, None, None, None, None
