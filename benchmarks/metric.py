"""Compare our ``IoUMetric`` with mmseg's: the time and memory that one image of Cityscapes' size takes.

    python -m benchmarks.metric [--only 'int64, 19 classes'] [--repeats 10] [--threads 2] [--clock cpu]

Labels and predictions are random rectangles that differ at their edges and in a tenth of the pixels, in the types
that mmseg's pipeline gives (int64) and in bytes.
"""

import argparse
import warnings
from dataclasses import asdict
from functools import partial

import torch
from mmengine.evaluator import BaseMetric
from mmseg.evaluation import IoUMetric as MmsegIoUMetric

from mmseg_ext.engine.measure import peak_memory, print_table, time_alternating
from mmseg_ext.evaluation import IoUMetric

# Of labels: their type, and how many classes they are of.
COMPARISONS = {
    f'{str(dtype).removeprefix("torch.")}, {classes} classes': (dtype, classes)
    for classes in (19, 150)
    for dtype in (torch.int64, torch.uint8)
}


def make_sample(num_classes: int, dtype: torch.dtype, size: tuple[int, int], device: torch.device) -> dict:
    """Return the data sample of an image, as the runner gives it to a metric."""
    rows, columns = (length // 32 for length in size)
    label = torch.randint(num_classes, (rows, columns)).repeat_interleave(32, 0).repeat_interleave(32, 1)
    prediction = torch.where(torch.rand(size) < 0.1, torch.randint(num_classes, size), label.roll((2, 3), (0, 1)))
    label[torch.rand(size) < 0.05] = 255
    return {
        key: dict(data=labels[None].to(device, dtype))
        for key, labels in (('pred_sem_seg', prediction), ('gt_sem_seg', label))
    }


def process(metric: BaseMetric, sample: dict) -> None:
    """Let a metric look at an image."""
    metric.process({}, [sample])


def compare(name: str, options: argparse.Namespace) -> dict[str, dict]:
    """Measure one comparison; returns the figures of each side, those of the phase 'image' apart."""
    dtype, num_classes = COMPARISONS[name]
    device = torch.device(options.device)
    sample = make_sample(num_classes, dtype, (options.size, 2 * options.size), device)
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
    return {
        side: dict(
            image=dict(asdict(timing), bytes=memory[side]),
            mIoU=float(results[side]),
            difference=float(abs(results[side] - results['mmseg'])) if side == 'mmseg_ext' else None,
        )
        for side, timing in times.items()
    }


def table_rows(name: str, figures: dict[str, dict]) -> list[list[str]]:
    """Return a row for each side."""
    return [
        [
            f'{name}: {side}',
            f'{of["image"]["seconds"] * 1e3:.1f}',
            f'{of["image"]["best"] * 1e3:.1f}',
            f'{of["image"]["ratio"]:.2f}',
            f'{of["image"]["bytes"] / 2**20:.1f}',
            f'{of["mIoU"]:.2f}',
        ]
        for side, of in figures.items()
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--only', choices=COMPARISONS, action='append', help='this alone; can be repeated')
    options.add_argument('--size', type=int, default=1024, help='height of the image, half its width (1024)')
    options.add_argument('--repeats', type=int, default=10, help='rounds of each measurement (10)')
    options.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch')
    options.add_argument('--clock', choices=('wall', 'cpu'), default='wall', help='cpu: processor time of all threads')
    options.add_argument('--device', default='cpu', help='cpu or cuda')
    options = options.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [row for name in options.only or COMPARISONS for row in table_rows(name, compare(name, options))]
    print(
        f'{options.size}x{2 * options.size}, {options.device}, {options.threads} threads, {options.clock} clock, '
        f'torch {torch.__version__}. ms: median of an image; ratio: over ours (above 1: slower); MiB: peak'
    )
    print_table(['', 'ms', 'best', 'ratio', 'MiB', 'mIoU'], rows)


if __name__ == '__main__':
    main()
