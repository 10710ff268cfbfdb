"""Test-time augmentation that averages probabilities tile by tile.

A drop-in for ``mmseg.SegTTAModel``. That holds the full-size logits of every augmentation; ours holds low-resolution
logits, or, for segmentors that predict in another way or have a CRF, one augmentation's full-size map beside the sum.
"""

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel as _SegTTAModel
from torch import Tensor

from mmseg_ext.layers.resampling import stream_tiles
from mmseg_ext.registry import MODELS

from .crf import full_probabilities, original_image, refine
from .encoder_decoder import EncoderDecoder
from .streaming import streams_prediction


@MODELS.register_module()
class SegTTAModel(_SegTTAModel):
    """Averages the probabilities of all augmentations of an image, at its original size, and takes the best class.

    A CRF of the segmentor (``test_cfg.crf``) refines the average.
    """

    @torch.no_grad()
    def test_step(self, data: dict | tuple | list) -> list:
        """Predict a batch.

        Args:
            data: as the data loader gives it: for every key (or item), a list with one entry for each augmentation.

        Returns:
            The samples of the first augmentation, with ``pred_sem_seg`` of all.
        """
        if isinstance(data, dict):
            augmentations = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
        else:
            augmentations = list(zip(*data, strict=True))
        module = self.module
        if getattr(module, 'crf', None) is not None:
            return self._refined(augmentations)
        streams = (
            isinstance(module, EncoderDecoder)
            and streams_prediction(module.decode_head)
            and module.test_cfg.get('mode', 'whole') == 'whole'
            and module.out_channels > 1
        )
        return self._streamed(augmentations) if streams else self._summed(augmentations)

    def _streamed(self, augmentations: list) -> list:
        runs, first = [], None
        for data in augmentations:
            data = self.module.data_preprocessor(data, False)
            samples = data['data_samples']
            first = first or samples
            runs.append(self.module.low_resolution(data['inputs'], [sample.metainfo for sample in samples]))
        results = [
            _mean_labels([(logits[i], resamplings[i]) for logits, resamplings in runs]) for i in range(len(first))
        ]
        return self._samples(first, results)

    def _refined(self, augmentations: list) -> list:
        module, runs, first, sums = self.module, [], None, None
        for data in augmentations:
            data = module.data_preprocessor(data, False)
            inputs, metas = data['inputs'], [sample.metainfo for sample in data['data_samples']]
            first = first or data['data_samples']
            runs.append((inputs, metas))
            probabilities = full_probabilities(module, inputs, metas)
            if sums is None:
                sums = list(probabilities)
            else:
                for total, one in zip(sums, probabilities, strict=True):
                    total += one
        # The augmentation that is nearest to the original size shows the original's edges best.
        inputs, metas = min(runs, key=lambda run: abs(run[0].shape[2] - run[1][0]['ori_shape'][0]))
        images = (original_image(module, x, meta) for x, meta in zip(inputs, metas, strict=True))
        refined = refine(module.crf, images, (total / len(runs) for total in sums), len(first))
        return self._samples(first, [labels.to(inputs.device) for labels, _ in refined])

    def _summed(self, augmentations: list) -> list:
        keep = self.module.test_cfg.get('keep_logits', False)
        self.module.test_cfg['keep_logits'] = True
        try:
            first = sums = None
            for data in augmentations:
                samples = self.module.test_step(data)
                first = first or samples
                probabilities = [self._probabilities(sample.seg_logits.data) for sample in samples]
                for sample in samples:
                    del sample.seg_logits
                sums = probabilities if sums is None else [a.add_(b) for a, b in zip(sums, probabilities, strict=True)]
        finally:
            self.module.test_cfg['keep_logits'] = keep
        return self._samples(first, [self._labels(total / len(augmentations)) for total in sums])

    def _probabilities(self, logits: Tensor) -> Tensor:
        # Of one channel, they are probabilities already.
        return logits.softmax(dim=0) if self.module.out_channels > 1 else logits

    def _labels(self, probabilities: Tensor) -> Tensor:
        if self.module.out_channels > 1:
            return probabilities.argmax(dim=0, keepdim=True)
        return (probabilities > self.module.decode_head.threshold).to(probabilities)

    @staticmethod
    def _samples(samples: list, labels: list[Tensor]) -> list:
        for sample, label in zip(samples, labels, strict=True):
            sample.set_data(dict(pred_sem_seg=PixelData(data=label)))
        return samples


def _mean_labels(runs: list) -> Tensor:
    """Return the class of the largest mean probability, ``(1, H, W)``, of pairs of logits and their resampling."""
    classes, size, device = runs[0][0].shape[0], runs[0][1].out_size, runs[0][0].device
    labels = torch.empty(1, *size, dtype=torch.uint8 if classes <= 256 else torch.int16, device=device)
    # The tiles depend on the size of the output alone, so they are the same for all.
    streams = [stream_tiles(logits[None], resampling) for logits, resampling in runs]
    for tiles in zip(*streams, strict=True):
        part = tiles[0][0]
        labels[part] = sum(tile.softmax(dim=0) for _, tile in tiles).argmax(0)
    return labels
