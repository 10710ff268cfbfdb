"""Test-time augmentation that averages probabilities tile by tile.

A drop-in for ``mmseg.SegTTAModel``. That holds the full-size logits of every augmentation; ours holds low-resolution
logits, or, of windows and of segmentors that predict in another way, the sum of the full-size probabilities.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmseg.models.segmentors import SegTTAModel as _SegTTAModel
from torch import nn

from mmseg_ext.registry import MODELS

from .covered import has_hooks, runs_as_written
from .crf import original_image
from .encoder_decoder import EncoderDecoder
from .image_logits import ImageLogits, Tile, add_probabilities, full_size, mean_logits, of_mmseg, probabilities
from .prediction import inference, postprocess


@MODELS.register_module()
class SegTTAModel(_SegTTAModel):
    """Averages the probabilities of all augmentations of an image, at its original size, and takes the best class.

    A CRF of the segmentor (``test_cfg.crf``) refines the average. A subclass with its own ``merge_preds`` gets what
    mmseg's gets: samples with full-size ``seg_logits``.
    """

    @torch.no_grad()
    def test_step(self, data: dict | tuple | list) -> list:
        """Predict a batch.

        Args:
            data: as the data loader gives it: for every key (or item), a list with one entry for each augmentation.

        Returns:
            The samples of the first augmentation, with ``pred_sem_seg`` of all.
        """
        module = self.module
        if not runs_as_written(self, 'merge_preds', also=_SegTTAModel.__module__):
            with _keeps_logits(module):
                return super().test_step(data)
        if isinstance(data, dict):
            augmentations = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
        else:
            augmentations = list(zip(*data, strict=True))
        samples, logits = (_streamed if _streams(module) else _summed)(module, augmentations)
        return postprocess(module, samples, logits, _images(module, augmentations))


def _streams(module: nn.Module) -> bool:
    """Whether the segmentor's ``test_step`` is no more than ``inference`` and ``postprocess``."""
    return (
        isinstance(module, EncoderDecoder)
        and module.streams_prediction()
        and runs_as_written(module, 'predict', also=EncoderDecoder.__module__)
        and runs_as_written(module, 'test_step', '_run_forward', 'forward')
        and not has_hooks(module)
    )


def _streamed(module: EncoderDecoder, augmentations: list) -> tuple[list, Iterator[ImageLogits]]:
    runs, samples = [], None
    for data in augmentations:
        data = module.data_preprocessor(data, False)
        samples = samples or data['data_samples']
        runs.append(inference(module, data['inputs'], [sample.metainfo for sample in data['data_samples']]))
    mean = _mean_of_sum if module.test_cfg.get('mode', 'whole') == 'slide' else _mean_in_step
    return samples, map(mean, zip(*runs, strict=True))


def _mean_in_step(images: Sequence[ImageLogits]) -> ImageLogits:
    """Average augmentations that were seen as a whole: their tiles are the same."""

    def tiles() -> Iterator[Tile]:
        for some in zip(*(image.tiles for image in images), strict=True):
            yield some[0][0], mean_logits(sum(probabilities(tile) for _, tile in some), len(some))

    return ImageLogits(images[0].size, tiles())


def _mean_of_sum(images: Sequence[ImageLogits]) -> ImageLogits:
    total = None
    for image in images:
        total = add_probabilities(image, total)
    return _mean(total, len(images))


def _mean(total: torch.Tensor, count: int) -> ImageLogits:
    size, tiles = full_size(total)
    return ImageLogits(size, ((part, mean_logits(tile, count)) for part, tile in tiles))


def _summed(module: nn.Module, augmentations: list) -> tuple[list, list[ImageLogits]]:
    """Average full-size logits that the segmentor gives, one augmentation after the other."""
    first, totals = None, []
    for data in augmentations:
        with _keeps_logits(module):
            samples = module.test_step(data)
        first = first or samples
        totals = totals or [None] * len(samples)
        totals = [
            add_probabilities(of_mmseg(s.seg_logits.data), total) for s, total in zip(samples, totals, strict=True)
        ]
        for sample in samples:
            del sample.seg_logits
    return first, [_mean(total, len(augmentations)) for total in totals]


@contextmanager
def _keeps_logits(module: nn.Module) -> Iterator[None]:
    """Have a segmentor predict full-size logits and nothing that costs more: a CRF is for their average."""
    keep, crf = module.test_cfg.get('keep_logits', False), getattr(module, 'crf', None)
    module.test_cfg['keep_logits'] = True
    if crf is not None:
        module.crf = None
    try:
        yield
    finally:
        module.test_cfg['keep_logits'] = keep
        if crf is not None:
            module.crf = crf


def _images(module: nn.Module, augmentations: list) -> Iterable[np.ndarray]:
    """Yield the original images, by the augmentation nearest to their size, which shows their edges best."""
    runs = []
    for data in augmentations:
        data = module.data_preprocessor(data, False)
        runs.append((data['inputs'], [sample.metainfo for sample in data['data_samples']]))
    inputs, metas = min(runs, key=lambda run: abs(run[0].shape[2] - run[1][0]['ori_shape'][0]))
    for x, meta in zip(inputs, metas, strict=True):
        yield original_image(module, x, meta)
