"""mmseg's ``IoUMetric`` from one confusion matrix.

mmseg looks at an image's pixels with three histograms behind three masks, keeps four vectors of each image, and gathers
those of all processes in the first. Ours counts each image once, where its labels are, keeps one sum, and all-reduces
it. The counts are whole numbers; mmseg sums 32-bit floats, which are exact up to 2**24 pixels of a class.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_dist_info, is_main_process
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric as _IoUMetric
from PIL import Image
from torch import Tensor

from mmseg_ext.registry import METRICS
from mmseg_ext.visualization import draw_confusion

from .boundary_iou import boundary_areas
from .confusion_matrix import count_confusion

_METRICS = ('mIoU', 'mDice', 'mFscore', 'mBoundaryIoU')


@METRICS.register_module()
class IoUMetric(_IoUMetric):
    """mmseg's ``IoUMetric``: same arguments, metrics, table and files; and a picture of the confusion matrix.

    Args:
        ignore_index: pixels with this label don't count.
        iou_metrics: any of 'mIoU', 'mDice', 'mFscore' and 'mBoundaryIoU'.
        nan_to_num: what takes the place of nan, the result of a class that occurs nowhere.
        beta: weight of the recall in the F-score.
        collect_device: without effect, there is nothing to collect.
        output_dir: folder for the predictions, as index PNGs.
        format_only: write the predictions and nothing else.
        prefix: put before the names of the metrics.
        keep_results: without effect; mmseg's ``tools/test.py`` sets it.
        confusion_matrix: file for the picture of the confusion matrix; by default ``confusion_matrix.png`` beside the
            run's log. Where there is no log file either, none is drawn. Its counts ``(truth, prediction)`` go to a
            ``.npy`` of the same name.
        boundary_ratio: width of the boundaries of 'mBoundaryIoU', see :func:`mmseg_ext.evaluation.boundary_areas`.

    Raises:
        ValueError: ``iou_metrics`` holds an unknown name; a prediction's size differs from its label's.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: str | Sequence[str] = ('mIoU',),
        nan_to_num: int | None = None,
        beta: int = 1,
        collect_device: str = 'cpu',
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        keep_results: bool = False,
        confusion_matrix: str | None = None,
        boundary_ratio: float = 0.02,
    ):
        names = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        unknown = [name for name in names if name not in _METRICS]
        if unknown:
            raise ValueError(f'iou_metrics={names}: {unknown} must be among {list(_METRICS)}')
        super().__init__(ignore_index, names, nan_to_num, beta, collect_device, output_dir, format_only, prefix)
        self.confusion_matrix = confusion_matrix
        self.boundary_ratio = boundary_ratio
        self._reset()

    def _reset(self) -> None:
        self._images = 0
        # The last image stands apart: a sampler may have repeated it to give all processes the same number.
        self._earlier = self._last = torch.zeros((), dtype=torch.int64)
        self._boundary = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch, write its predictions if asked for."""
        for sample in data_samples:
            prediction = _label_map(sample['pred_sem_seg'])
            if not self.format_only:
                label = _label_map(sample['gt_sem_seg'])
                if label.shape != prediction.shape:
                    raise ValueError(
                        f'{sample.get("img_path", "image")}: the prediction has size {tuple(prediction.shape)}, its '
                        f'label {tuple(label.shape)}; a test pipeline loads the annotations after it resizes the image'
                    )
                self._earlier = self._earlier + self._last
                self._last = self._count(prediction, label.to(prediction.device))
                self._images += 1
            if self.output_dir is not None:
                self._write(prediction, sample)

    def _count(self, prediction: Tensor, label: Tensor) -> Tensor:
        """Return the confusion matrix, and the areas of the boundaries, as one vector."""
        arguments = prediction, label, len(self.dataset_meta['classes']), self.ignore_index
        counts = count_confusion(*arguments).flatten().cpu()
        if 'mBoundaryIoU' not in self.metrics:
            return counts
        areas = boundary_areas(*arguments, self.boundary_ratio)
        return torch.cat([counts, torch.from_numpy(areas).flatten()])

    def _write(self, prediction: Tensor, sample: dict) -> None:
        # A data set whose label 0 was taken for 'ignored' counts its classes from 1.
        shift = 1 if sample.get('reduce_zero_label', False) else 0
        image = Image.fromarray((prediction + shift).cpu().numpy().astype(np.uint8))
        image.save(Path(self.output_dir, f'{Path(sample["img_path"]).stem}.png').absolute())

    def evaluate(self, size: int) -> dict[str, float]:
        """Sum over the processes and return the metrics, in each of them.

        Args:
            size: number of images in the data set, without those that the sampler repeated.

        Raises:
            ValueError: this process has counted more images than its sampler can have given it.
        """
        results = [] if self.format_only else [self._total_areas(size)]
        metrics = [None]
        if is_main_process():
            metrics = [self.compute_metrics(results)]
        broadcast_object_list(metrics)
        self._reset()
        prefix = f'{self.prefix}/' if self.prefix else ''
        return {f'{prefix}{name}': value for name, value in metrics[0].items()}

    def _total_areas(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the areas that mmseg computes its metrics from: intersection, union, predicted and true, each (C,)."""
        rank, processes = get_dist_info()
        expected = len(range(rank, size, processes))
        if self._images > expected + 1:
            raise ValueError(
                f'process {rank} of {processes} has counted {self._images} images, but {expected} of the data '
                f"set's {size} are its share; use mmengine's DefaultSampler, which repeats one image at most"
            )
        num_classes = len(self.dataset_meta['classes'])
        boundaries = 2 * num_classes if 'mBoundaryIoU' in self.metrics else 0
        counts = torch.zeros((num_classes + 1) ** 2 + boundaries, dtype=torch.int64) + self._earlier
        if self._images <= expected:
            counts += self._last
        all_reduce(counts)

        matrix = counts[: (num_classes + 1) ** 2].view(num_classes + 1, num_classes + 1)
        if boundaries:
            self._boundary = counts[-boundaries:].view(2, num_classes)
        if is_main_process():
            self._draw(matrix[:-1, :-1].numpy())
        intersection = matrix.diagonal()[:-1].float()
        predicted, true = matrix.sum(0)[:-1].float(), matrix.sum(1)[:-1].float()
        return intersection, predicted + true - intersection, predicted, true

    def _draw(self, matrix: np.ndarray) -> None:
        path, log = self.confusion_matrix, MMLogger.get_current_instance().log_file
        if path is None and log is not None:
            path = Path(log).with_name('confusion_matrix.png')
        if path is not None:
            draw_confusion(matrix, self.dataset_meta['classes'], path)
            np.save(Path(path).with_suffix('.npy'), matrix)
            print_log(f'confusion matrix: {path}', logger='current')

    def total_area_to_metrics(
        self,
        intersection: Tensor,
        union: Tensor,
        predicted: Tensor,
        true: Tensor,
        metrics: Sequence[str] = ('mIoU',),
        nan_to_num: int | None = None,
        beta: int = 1,
    ) -> dict[str, np.ndarray]:
        """Return each metric of each class; Boundary IoU comes from areas of its own."""
        names = [name for name in metrics if name != 'mBoundaryIoU']
        per_class = super().total_area_to_metrics(intersection, union, predicted, true, names, nan_to_num, beta)
        if 'mBoundaryIoU' in metrics:
            values = (self._boundary[0].float() / self._boundary[1].float()).numpy()
            per_class['BoundaryIoU'] = values if nan_to_num is None else np.nan_to_num(values, nan=nan_to_num)
        return per_class


def _label_map(data: dict) -> Tensor:
    """Return the ``(H, W)`` labels of a data sample's entry, which holds ``(1, H, W)`` or ``(H, W)``."""
    labels = data['data']
    return labels.reshape(labels.shape[-2:])
