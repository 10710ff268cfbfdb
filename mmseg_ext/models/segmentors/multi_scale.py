"""Multi-scale input with max fusion (DeepLabV2: Chen et al., arXiv:1606.00915, sections 3.2 and 4.1.2).

The paper fuses at the size of the image. Ours fuses at the size of the largest scale's logits, as the released networks
do, but resizes logits to the labels for a loss, as mmseg does, where those shrink the labels.
"""

import math
from collections.abc import Sequence

import torch
from mmseg.utils import add_prefix
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_ext.registry import MODELS

from .covered import covers_loss, resizes_its_logits
from .encoder_decoder import EncoderDecoder
from .head_loss import streamed_loss


@MODELS.register_module()
class MultiScaleEncoderDecoder(EncoderDecoder):
    """Runs one network on the image at several scales, and takes the largest logit of each class at each position.

    Training adds the losses of each scale by itself (``scale_0.5.loss_ce``, ...) to that of the fused logits
    (``decode.loss_ce``), as the released networks do. Auxiliary heads see the features of the largest scale.

    Args:
        scales: of the image's height and width, in any order; the logits of all are resized to those of the largest.
        kwargs: arguments of ``EncoderDecoder``; its state-dict keys, too.

    Raises:
        ValueError: ``scales`` is not a list of different positive numbers, or the head's loss is no cross-entropy of
            its logits, or its predictions come in another way than by resizing them.
    """

    def __init__(self, *args, scales: Sequence[float] = (0.5, 0.75, 1.0), **kwargs):
        super().__init__(*args, **kwargs)
        if not _are_scales(scales):
            raise ValueError(f'scales={scales!r} must be different positive numbers such as (0.5, 0.75, 1.0)')
        _check_head(self.decode_head)
        self.scales = tuple(sorted(scales))

    def logits(self, inputs: Tensor) -> Tensor:
        """Map preprocessed images ``(B, 3, H, W)`` to the fused logits ``(B, C, h, w)``."""
        # Scale by scale: in prediction the features of one are gone before those of the next are there.
        return self._fused([self.decode_head(self._scale_features(inputs, scale)) for scale in self.scales])

    def _scale_features(self, inputs: Tensor, scale: float) -> Sequence[Tensor]:
        return self.extract_feat(self._resized(inputs, scale))

    def _resized(self, inputs: Tensor, scale: float) -> Tensor:
        if scale == 1:
            return inputs
        size = [max(1, round(scale * length)) for length in inputs.shape[2:]]
        return F.interpolate(inputs, size, mode='bilinear', align_corners=self.align_corners)

    def _fused(self, logits: list[Tensor]) -> Tensor:
        *others, fused = logits
        for one in others:
            same_size = F.interpolate(one, fused.shape[2:], mode='bilinear', align_corners=self.align_corners)
            fused = torch.maximum(fused, same_size)
        return fused

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Return the losses, by name, of preprocessed images ``(B, 3, H, W)`` and their truth."""
        _check_head(self.decode_head)
        features = [self._scale_features(inputs, scale) for scale in self.scales]
        logits = [self.decode_head(x) for x in features]
        losses = add_prefix(streamed_loss(self.decode_head, self._fused(logits), data_samples), 'decode')
        # One scale alone is what was fused.
        for scale, one in zip(self.scales, logits, strict=True) if len(logits) > 1 else ():
            losses.update(add_prefix(streamed_loss(self.decode_head, one, data_samples), f'scale_{scale:g}'))
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(features[-1], data_samples))
        return losses

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return the fused logits at the size of the input, for what mmseg does with full-size logits."""
        _check_head(self.decode_head)
        return self.decode_head.predict_by_feat(self.logits(inputs), batch_img_metas)

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        return self.logits(inputs)


def _check_head(head: nn.Module) -> None:
    if not (covers_loss(head) and resizes_its_logits(head)):
        raise ValueError(
            f'MultiScaleEncoderDecoder fuses logits, but {type(head).__name__} has another loss than a cross-entropy '
            'of them, or predictions of its own; use EncoderDecoder with it'
        )


def _are_scales(scales: object) -> bool:
    return (
        isinstance(scales, Sequence)
        and len(scales) > 0
        and all(isinstance(scale, (int, float)) and 0 < scale < math.inf for scale in scales)
        and len(set(scales)) == len(scales)
    )
