"""Compare our ``IoUMetric`` with mmseg's: the time and memory that one image of Cityscapes' size takes.

    python -m benchmarks.metric [--classes 19] [--repeats 10] [--threads 2] [--clock cpu]

Labels and predictions are random rectangles that differ at their edges and in a tenth of the pixels, in the types
that mmseg's pipeline gives (int64) and in bytes.
"""

import argparse
import warnings
from functools import partial

import torch
from mmengine.evaluator import BaseMetric
from mmseg.evaluation import IoUMetric as MmsegIoUMetric

from mmseg_ext.engine.measure import peak_memory, print_table, time_alternating
from mmseg_ext.evaluation import IoUMetric

_SIZE = 1024, 2048


def make_sample(num_classes: int, dtype: torch.dtype, device: torch.device) -> dict:
    """Return the data sample of an image, as the runner gives it to a metric."""
    rows, columns = (length // 32 for length in _SIZE)
    label = torch.randint(num_classes, (rows, columns)).repeat_interleave(32, 0).repeat_interleave(32, 1)
    prediction = torch.where(torch.rand(_SIZE) < 0.1, torch.randint(num_classes, _SIZE), label.roll((2, 3), (0, 1)))
    label[torch.rand(_SIZE) < 0.05] = 255
    return {
        key: dict(data=labels[None].to(device, dtype))
        for key, labels in (('pred_sem_seg', prediction), ('gt_sem_seg', label))
    }


def process(metric: BaseMetric, sample: dict) -> None:
    """Let a metric look at an image."""
    metric.process({}, [sample])


def compare(num_classes: int, dtype: torch.dtype, options: argparse.Namespace) -> list[list[str]]:
    """Measure the sides; returns a row for each."""
    device = torch.device(options.device)
    sample = make_sample(num_classes, dtype, device)
    metrics = {
        'mmseg_ext': IoUMetric(),
        'mmseg': MmsegIoUMetric(),
        'mmseg_ext with mBoundaryIoU': IoUMetric(iou_metrics=['mIoU', 'mBoundaryIoU']),
    }
    for metric in metrics.values():
        metric.dataset_meta = dict(classes=[f'class {i}' for i in range(num_classes)])
    runs = {name: partial(process, metric, sample) for name, metric in metrics.items()}
    times = time_alternating(runs, options.repeats, device, options.clock)
    memory = {name: peak_memory(run, device) for name, run in runs.items()}
    images = options.repeats + 2
    results = {name: metric.evaluate(images)['mIoU'] for name, metric in metrics.items()}
    kind = str(dtype).removeprefix('torch.')
    return [
        [
            f'{num_classes} classes, {kind}: {name}',
            f'{timing.seconds * 1e3:.1f}',
            f'{timing.best * 1e3:.1f}',
            f'{timing.ratio:.2f}',
            f'{memory[name] / 2**20:.1f}',
            f'{results[name]:.2f}',
        ]
        for name, timing in times.items()
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--classes', type=int, action='append', help='number of classes; can be repeated (19 and 150)')
    options.add_argument('--repeats', type=int, default=10, help='rounds of each measurement (10)')
    options.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch')
    options.add_argument('--clock', choices=('wall', 'cpu'), default='wall', help='cpu: processor time of all threads')
    options.add_argument('--device', default='cpu', help='cpu or cuda')
    options = options.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [
        row
        for num_classes in options.classes or (19, 150)
        for dtype in (torch.int64, torch.uint8)
        for row in compare(num_classes, dtype, options)
    ]
    print(
        f'{_SIZE[0]}x{_SIZE[1]}, {options.device}, {options.threads} threads, {options.clock} clock, '
        f'torch {torch.__version__}. ms: median of an image; ratio: over ours (above 1: slower); MiB: peak'
    )
    print_table(['', 'ms', 'best', 'ratio', 'MiB', 'mIoU'], rows)


if __name__ == '__main__':
    main()
