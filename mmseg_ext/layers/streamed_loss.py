"""Cross-entropy and accuracy of upsampled logits, tile by tile: neither the full-size logits nor their gradient exist.

The pass that computes the loss computes the gradient of the low-resolution logits as well, so that nothing but that is
kept for the backward pass, which scales it. What is small enough for an accelerator, and whatever is not run eagerly
(``eager.py``), is computed by torch's own operators at full size.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .eager import is_eager
from .products import may_multiply, without_autocast
from .resampling import Resampling, compute_dtype, fits_one_tile, stream_tiles

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

    Computed in float32 whatever the dtype of the logits and autocast (float64 logits: in float64). Ignored pixels have
    no loss. The sum over the others is divided by the number of all pixels, by
    that of the pixels that are not ignored (``avg_non_ignore``), or, with class weights, by the sum of the weights of
    the labels that are not ignored.

    Args:
        logits: ``(B, C, h, w)``.
        target: labels ``(B, H, W)``, of any integer type.
        align_corners: of the bilinear interpolation to ``H x W``.
        ignore_index: the label of pixels that don't count.
        class_weight: a factor for the loss of each class.
        label_smoothing: share of the target that is spread over all classes, as in
            ``torch.nn.functional.cross_entropy``.
        pixel_weight: a factor for the loss of each pixel, ``(B, H, W)``; it leaves the divisor as it is.
        avg_non_ignore: whether to average over the pixels that are not ignored.
        loss_weight: a factor for the loss.

    Returns:
        The loss, and the percentage of not ignored pixels whose label has the largest logit, the first where several
        are (not differentiable). Both are scalars in float32 (float64 logits: float64).

    Raises:
        ValueError: the target does not fit the logits, or ``class_weight`` the classes. A label that is no class is
            found on the CPU only.
    """
    rule = _rule(logits, target, ignore_index, class_weight, label_smoothing)
    rule = rule._replace(avg_non_ignore=avg_non_ignore, loss_weight=loss_weight)
    streams = is_eager(logits, target, pixel_weight) and not fits_one_tile(logits, target.shape[1:])
    compute = _CrossEntropy.apply if streams else _plain_cross_entropy
    return compute(logits, target, pixel_weight, rule, align_corners)


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
    if fits_one_tile(logits, target.shape[1:]) or not is_eager(logits, target):
        return _pixel_losses(
            _to_target(logits, target, align_corners).apply(logits.to(rule.class_weight)), target, rule
        )
    losses = rule.class_weight.new_empty(target.shape)
    for part, logit in stream_tiles(logits, _to_target(logits, target, align_corners)):
        losses[part] = _TileLoss(logit, target[part], rule).pixels
    return losses


class _Rule(NamedTuple):
    """What the loss depends on beside logits and labels."""

    ignore_index: int
    class_weight: Tensor  # (C,)
    weighted: bool
    smoothing: float
    avg_non_ignore: bool = False
    loss_weight: float = 1.0


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
    if target.device.type == 'cpu' and is_eager(target):
        foreign = (target < 0) | (target >= classes)
        foreign &= target != ignore_index
        if foreign.any():
            raise ValueError(
                f'target has the labels {target[foreign].unique().tolist()[:10]}, which are neither in '
                f'[0, {classes - 1}] nor ignore_index={ignore_index}; correct num_classes or the labels'
            )
    dtype = compute_dtype(logits)
    if class_weight is None:
        weight = logits.new_ones(classes, dtype=dtype)
    else:
        weight = _weight_tensor(tuple(map(float, class_weight)), dtype, logits.device)
    return _Rule(ignore_index, weight, class_weight is not None, label_smoothing)


@lru_cache(maxsize=64)
def _weight_tensor(weight: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept, as a copy to a device on every call would wait for it. Outside of inference mode, or it could not be saved
    # for a backward pass later.
    with torch.inference_mode(False):
        return torch.tensor(weight, dtype=dtype, device=device)


def _plain_cross_entropy(
    logits: Tensor, target: Tensor, pixel_weight: Tensor | None, rule: _Rule, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """:func:`streamed_cross_entropy` at full size."""
    full = _to_target(logits, target, align_corners).apply(logits.to(rule.class_weight))
    losses = _pixel_losses(full, target, rule)
    if pixel_weight is not None:
        losses = losses * pixel_weight.to(losses)
    valid = target != rule.ignore_index
    correct = (full.argmax(1) == target) & valid
    label_weight = rule.class_weight[target.long().where(valid, 0)] * valid if rule.weighted else valid
    sums = _Sums(losses.sum(), correct.sum(), valid.sum(), label_weight.sum())
    return (sums.loss * sums.scale(rule, target)).to(rule.class_weight), sums.accuracy().to(rule.class_weight)


def _pixel_losses(full: Tensor, target: Tensor, rule: _Rule) -> Tensor:
    """The loss of each pixel ``(B, H, W)`` from logits ``(B, C, H, W)``."""
    return F.cross_entropy(
        full,
        target.long(),
        rule.class_weight if rule.weighted else None,
        ignore_index=rule.ignore_index,
        reduction='none',
        label_smoothing=rule.smoothing,
    )


class _Sums(NamedTuple):
    """Sums over the pixels that count."""

    loss: Tensor
    correct: Tensor
    valid: Tensor  # how many they are
    label_weight: Tensor  # of the weights of their labels' classes

    def scale(self, rule: _Rule, target: Tensor) -> Tensor | float:
        """What the sum of the losses is multiplied by."""
        if rule.weighted:
            divisor = self.label_weight
        else:
            divisor = self.valid if rule.avg_non_ignore else target.numel()
        return rule.loss_weight / (divisor + _EPS)

    def accuracy(self) -> Tensor:
        return (self.correct + _EPS) * 100 / (self.valid + _EPS)


def _to_target(logits: Tensor, target: Tensor, align_corners: bool) -> Resampling:
    return Resampling(logits.shape[2:], compute_dtype(logits)).resize(target.shape[1:], align_corners)


class _TileLoss:
    """Cross-entropy of logits ``(C, r, c)`` with labels ``(r, c)``.

    Attributes:
        valid: which pixels count, ``(r, c)``. All that follows is zero where they don't.
        pixels: their loss.
        label_weight: the weight of their label's class.
        correct: where the first of the largest logits is the label's.
    """

    def __init__(self, logit: Tensor, target: Tensor, rule: _Rule):
        self.rule = rule
        self.valid = target != rule.ignore_index
        self.label = target.long().where(self.valid, 0)
        self.label_weight = rule.class_weight[self.label] * self.valid
        label_logit = logit.gather(0, self.label[None])[0]
        best = logit.amax(0)
        self.correct = (label_logit == best) & self.valid
        self.exp = (logit - best).exp_()
        # Where several are the largest. On a CPU looking for the first takes longer than looking whether there are.
        if logit.device.type != 'cpu' or (self.exp == 1).sum() > target.numel():
            self.correct = (logit.argmax(0) == self.label) & self.valid
        self.exp_sum = self.exp.sum(0)
        log_sum = self.exp_sum.log().add_(best)
        self.pixels = (log_sum - label_logit).mul_(self.label_weight)
        if rule.smoothing:
            others = rule.class_weight.sum() * log_sum - (rule.class_weight[:, None, None] * logit).sum(0)
            share = rule.smoothing / len(logit)
            self.pixels.mul_(1 - rule.smoothing).add_(others.mul_(self.valid), alpha=share)

    def sums(self, pixel_weight: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return those of :class:`_Sums`."""
        losses = self.pixels if pixel_weight is None else self.pixels * pixel_weight
        maps = losses, self.correct, self.valid, self.label_weight
        return torch.stack([x.sum(dtype=dtype) for x in maps])

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
    @without_autocast
    def forward(
        ctx, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, rule: _Rule, align_corners: bool
    ) -> tuple[Tensor, Tensor]:
        like = rule.class_weight
        grad = like.new_zeros(logits.shape) if ctx.needs_input_grad[0] else None
        resampling = _to_target(logits, target, align_corners)
        rows, columns = resampling.tiles(logits.shape[1], like, products=may_multiply(logits))
        # Some accelerators have no float64.
        sums = like.new_zeros(4, dtype=torch.float32 if like.device.type == 'mps' else torch.float64)
        for image in range(len(logits)):
            x = logits[image].to(like)
            for row in rows:
                strip = row.rows(x)
                strip_grad = like.new_zeros(strip.shape) if grad is not None else None
                for column in columns:
                    part = image, row.outputs, column.outputs
                    weight = None if pixel_weight is None else pixel_weight[part].to(like)
                    tile = _TileLoss(column.columns(strip), target[part], rule)
                    sums += tile.sums(weight, sums.dtype)
                    if grad is not None:
                        column.add_columns_gradient(strip_grad, tile.gradient(weight))
                if grad is not None:
                    row.add_rows_gradient(grad[image], strip_grad)
        sums = _Sums(*sums)
        scale = torch.as_tensor(sums.scale(rule, target), dtype=sums.loss.dtype, device=like.device)
        accuracy = sums.accuracy().to(like)
        ctx.mark_non_differentiable(accuracy)
        ctx.save_for_backward(logits, target, pixel_weight, grad, scale)
        ctx.rule, ctx.align_corners = rule, align_corners
        return (sums.loss * scale).to(like), accuracy

    @staticmethod
    def backward(ctx, grad_loss: Tensor, _) -> tuple[Tensor | None, ...]:
        logits, target, pixel_weight, grad, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Asked for something that can be differentiated again.
            loss, _ = _plain_cross_entropy(logits, target, pixel_weight, ctx.rule, ctx.align_corners)
            (grad_logits,) = torch.autograd.grad(loss, logits, grad_loss, create_graph=True)
        else:
            grad_logits = (grad * (grad_loss * scale)).to(logits.dtype)
        return grad_logits, None, None, None, None
