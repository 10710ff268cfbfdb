"""Data samples as the runner hands them to a metric."""

from torch import Tensor

CLASSES = ('road', 'sky', 'car', 'tree', 'unicorn')


def make_sample(name: str, prediction: Tensor, label: Tensor, **meta) -> dict:
    """Return the sample of an image; ``prediction`` and ``label`` are ``(H, W)``."""
    return dict(
        pred_sem_seg=dict(data=prediction[None]),
        gt_sem_seg=dict(data=label[None]),
        img_path=f'images/{name}.jpg',
        **meta,
    )


def evaluate(metric, samples: list[dict], size: int | None = None) -> dict:
    """Return a metric's results for samples, given in one batch each."""
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples) if size is None else size)
