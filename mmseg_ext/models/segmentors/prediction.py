"""mmseg's ``inference`` and ``postprocess_result``, from logits that come tile by tile."""

from collections.abc import Iterable, Sequence

import numpy as np
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .crf import refine
from .image_logits import ImageLogits, best_classes, whole_logits
from .slide import slide_logits


def inference(segmentor, inputs: Tensor, metas: list[dict]) -> list[ImageLogits]:
    """Return the logits of preprocessed images ``(B, C, H, W)`` at their original sizes.

    Args:
        segmentor: an ``EncoderDecoder``; ``mode`` of its ``test_cfg`` is how the network sees an image.
        inputs: the images.
        metas: what is known of each.
    """
    run = slide_logits if segmentor.test_cfg.get('mode', 'whole') == 'slide' else whole_logits
    return run(segmentor, inputs, metas)


def postprocess(
    segmentor: nn.Module,
    samples: Sequence[SegDataSample],
    logits: Iterable[ImageLogits],
    images: Iterable[np.ndarray],
) -> Sequence[SegDataSample]:
    """Set what a segmentor (ours or mmseg's) predicts of each image by its logits, as our ``EncoderDecoder`` says.

    Args:
        segmentor: its ``test_cfg`` and its CRF say what that is.
        samples: get the predictions.
        logits: of each image; they are gone through once, one image after the other.
        images: what a CRF sees of each, ``(H, W, 3)``.

    Returns:
        The samples.
    """
    probability = segmentor.test_cfg.get('probability', False)
    if getattr(segmentor, 'crf', None) is None:
        threshold = segmentor.decode_head.threshold if segmentor.out_channels == 1 else 0.0
        results = (best_classes(one, threshold, probability) for one in logits)
    else:
        results = refine(segmentor.crf, images, logits, len(samples))
    for sample, (labels, best) in zip(samples, results, strict=True):
        sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
        if probability:
            sample.set_data(dict(pred_probability=PixelData(data=best)))
    return samples
