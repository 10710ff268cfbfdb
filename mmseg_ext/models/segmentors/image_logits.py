"""The one form in which predictions come: an image's logits at its original size, of which a tile at a time exists.

Whole images (here), sliding windows (``slide.py``), averages of augmentations (``seg_tta.py``) and full-size logits of
mmseg's give it; labels (here) and the dense CRF (``crf.py``) take it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from mmseg_ext.layers import Resampling
from mmseg_ext.layers.resampling import compute_dtype, stream_tiles
from mmseg_ext.layers.streamed_labels import LabelMap

# Its part of a map ``(1, H, W)``, and its logits ``(C, r, c)``.
Tile = tuple[tuple[int, slice, slice], Tensor]

_STRIP_ROWS = 64


class ImageLogits(NamedTuple):
    """Logits ``(C, *size)`` as tiles that cover it once; with one channel, of the class 1 in a sigmoid.

    Tiles can be views: they must not be changed. They can be gone through once.
    """

    size: tuple[int, int]
    tiles: Iterable[Tile]


def resampled(logits: Tensor, resampling: Resampling) -> ImageLogits:
    """Resize low-resolution logits ``(1, C, h, w)`` tile by tile.

    The tiles of images of one size are the same, for logits of one dtype and as many channels.
    """
    return ImageLogits(resampling.out_size, stream_tiles(logits, resampling))


def full_size(logits: Tensor) -> ImageLogits:
    """Go over logits ``(C, H, W)`` in strips, so that what is computed of them is small."""
    height, width = logits.shape[1:]
    rows = (slice(top, min(top + _STRIP_ROWS, height)) for top in range(0, height, _STRIP_ROWS))
    return ImageLogits((height, width), (((0, part, slice(0, width)), logits[:, part]) for part in rows))


def of_mmseg(seg_logits: Tensor) -> ImageLogits:
    """Go over the ``seg_logits`` of a sample, ``(C, H, W)``: with one channel, mmseg has made them probabilities."""
    return full_size(seg_logits if len(seg_logits) > 1 else seg_logits.logit())


def probabilities(logits: Tensor) -> Tensor:
    """Return those of the classes, or with one channel that of class 1; ``(C, r, c)``."""
    return logits.softmax(0) if len(logits) > 1 else logits.sigmoid()


def mean_logits(total: Tensor, count: int) -> Tensor:
    """Return the logits ``(C, r, c)`` whose probabilities are the mean of ``count`` that add up to ``total``."""
    return total.log() if len(total) > 1 else (total / count).logit()


def add_probabilities(image: ImageLogits, total: Tensor | None = None) -> Tensor:
    """Add an image's probabilities to a map ``(C, *size)`` in float32, in place; None: a new one."""
    for (_, rows, columns), logits in image.tiles:
        if total is None:
            total = torch.zeros(len(logits), *image.size, dtype=torch.float32, device=logits.device)
        total[:, rows, columns] += probabilities(logits)
        del logits  # what it is a view of is not needed while the next one is made
    return total


def best_classes(image: ImageLogits, threshold: float, probability: bool) -> tuple[Tensor, Tensor | None]:
    """Return the labels ``(1, *size)`` and their probability, as ``layers.streamed_labels`` does."""
    result = None
    for part, logits in image.tiles:
        if result is None:
            result = LabelMap((1, *image.size), len(logits), logits.device, threshold, probability)
        result.set(part, logits)
        del logits
    return result.labels, result.probabilities


@torch.no_grad()
def whole_logits(segmentor, inputs: Tensor, metas: list[dict]) -> list[ImageLogits]:
    """Run preprocessed images ``(B, C, H, W)`` through the network; as ``BaseDecodeHead.predict_by_feat`` goes on.

    Args:
        segmentor: an ``EncoderDecoder``.
        inputs: the images.
        metas: what is known of each.
    """
    logits = segmentor.logits(inputs)
    first = metas[0]
    is_window = isinstance(first['img_shape'], torch.Size)
    size = first['img_shape'] if is_window or 'pad_shape' not in first else first['pad_shape']
    to_input = Resampling(logits.shape[2:], compute_dtype(logits)).resize(size[:2], segmentor.align_corners)
    chains = (to_original(to_input, meta, segmentor.align_corners) for meta in metas)
    return [resampled(one[None], chain) for one, chain in zip(logits, chains, strict=True)]


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


def each_within(context: Callable[[], AbstractContextManager], tiles: Iterator[Tile]) -> Iterator[Tile]:
    """Compute each tile within a context of its own; keeps none, as a generator would."""

    def following() -> Tile | None:
        with context():
            return next(tiles, None)

    return iter(following, None)
