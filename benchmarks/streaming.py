"""Compare labels and losses that are computed tile by tile with mmseg's way over full-size logits.

    python -m benchmarks.streaming [--only labels-150] [--size 1024] [--repeats 5] [--threads 2] [--precision bf16]

Labels: logits at an eighth of ``size x 2 size`` to labels of that size. Loss: cross-entropy, accuracy and the gradient
of logits at an eighth of ``size / 2 x size``, two images for each of ``--batch``. The logits are smooth noise.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from mmseg.models.losses import CrossEntropyLoss, accuracy
from mmseg.models.utils import resize
from torch import Tensor
from torch.nn import functional as F

from benchmarks.options import parser
from mmseg_ext.engine.measure import peak_memory, print_table, time_alternating
from mmseg_ext.layers.resampling import Resampling
from mmseg_ext.layers.streamed_labels import streamed_labels
from mmseg_ext.layers.streamed_loss import streamed_cross_entropy


def labels(classes: int, options) -> dict[str, Callable[[], Tensor]]:
    """Return the sides of a comparison; each returns the labels."""
    size = options.size, 2 * options.size
    logits = _logits(options.batch, classes, size, options)
    return {
        'mmseg_ext': partial(_labels, logits, size),
        'mmseg': partial(_mmseg_labels, logits, size),
    }


def loss(classes: int, options) -> dict[str, Callable[[], Tensor]]:
    """Return the sides of a comparison; each returns the gradient."""
    size = options.size // 2, options.size
    logits = _logits(2 * options.batch, classes, size, options).requires_grad_()
    target = torch.randint(classes, (len(logits), *size), device=options.device)
    return {
        'mmseg_ext': partial(_loss, logits, target),
        'mmseg': partial(_mmseg_loss, logits, target, CrossEntropyLoss(avg_non_ignore=True)),
    }


COMPARISONS: dict[str, Callable] = {
    'labels-150': partial(labels, 150),
    'labels-19': partial(labels, 19),
    'loss-150': partial(loss, 150),
    'loss-19': partial(loss, 19),
}


def _logits(batch: int, classes: int, size: tuple[int, int], options) -> Tensor:
    coarse = torch.randn(batch, classes, size[0] // 64, size[1] // 64, device=options.device)
    logits = F.interpolate(coarse, size=(size[0] // 8, size[1] // 8), mode='bicubic') * 5
    logits += torch.randn_like(logits)
    return logits.to(torch.bfloat16 if options.precision == 'bf16' else torch.float32)


def _labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    resampling = Resampling(logits.shape[2:]).resize(size, False).resize(size, False)
    return streamed_labels(logits, resampling)[0]


@torch.no_grad()
def _mmseg_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    logits = resize(logits, size=size, mode='bilinear', align_corners=False)
    # as BaseSegmentor.postprocess_result: to the size of the original image, each image apart.
    full = [resize(x[None], size=size, mode='bilinear', align_corners=False, warning=False)[0] for x in logits]
    return torch.stack([x.argmax(dim=0) for x in full])


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    loss, _ = streamed_cross_entropy(logits, target, align_corners=False, avg_non_ignore=True)
    return torch.autograd.grad(loss, logits)[0]


def _mmseg_loss(logits: Tensor, target: Tensor, criterion: CrossEntropyLoss) -> Tensor:
    full = resize(logits, size=target.shape[1:], mode='bilinear', align_corners=False)
    loss = criterion(full, target, ignore_index=255)
    accuracy(full, target, ignore_index=255)
    return torch.autograd.grad(loss, logits)[0]


def compare(name: str, options) -> dict[str, dict]:
    """Measure one comparison; returns the figures of each side, those of the phase 'run' apart."""
    device = torch.device(options.device)
    sides = COMPARISONS[name](options)
    results = {side: run() for side, run in sides.items()}
    times = time_alternating(sides, options.repeats, device, options.clock)
    memory = {side: peak_memory(run, device) for side, run in sides.items()}
    ours, expected = results['mmseg_ext'], results['mmseg']
    if name.startswith('labels'):
        difference = (ours != expected).double().mean()
    else:
        difference = (ours - expected.double()).abs().max() / expected.abs().max()
    return {
        side: dict(
            run=dict(asdict(timing), bytes=memory[side]),
            difference=difference.item() if side == 'mmseg_ext' else None,
        )
        for side, timing in times.items()
    }


def table_rows(name: str, figures: dict[str, dict]) -> list[list[str]]:
    """Return a row for each side."""
    return [
        [
            f'{name}: {side}',
            f'{of["run"]["seconds"] * 1e3:.0f}',
            f'{of["run"]["best"] * 1e3:.0f}',
            f'{of["run"]["ratio"]:.2f}',
            f'{of["run"]["bytes"] / 2**20:.1f}',
            f'{of["run"]["bytes"] / figures["mmseg_ext"]["run"]["bytes"]:.1f}',
            '' if of['difference'] is None else f'{of["difference"]:.1e}',
        ]
        for side, of in figures.items()
    ]


def main() -> None:
    options = parser('Compare labels and losses of low-resolution logits.', list(COMPARISONS), 1024, 5).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [row for name in options.only or COMPARISONS for row in table_rows(name, compare(name, options))]
    print(
        f'size {options.size}, batch {options.batch}, {options.precision}, {options.device}, {options.threads} '
        f'threads, {options.clock} clock, torch {torch.__version__}. ms: median; ratios: over mmseg_ext (above 1: '
        'mmseg takes longer, or more); MiB: peak; difference: share of labels, or of the largest gradient'
    )
    print_table(['', 'ms', 'best', 'ratio', 'MiB', 'ratio', 'difference'], rows)


if __name__ == '__main__':
    main()
