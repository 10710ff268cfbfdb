"""Write the table from what the rows' work directories hold; a row that was not trained says so."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

from mmseg_ext.datasets import CamVidDataset
from mmseg_ext.visualization import read_scalars

from .rows import Row
from .runs import best_checkpoint, boundary_iou_of, confusion_of, record_of, trained_iterations, training_seconds

_RULE = {True: '---', False: '---:'}


def write_report(rows: Sequence[Row], work_dir: Path, out: Path, intro: str) -> None:
    """Write ``out`` (Markdown) and, beside it, the training curves.

    Args:
        rows: of the table.
        work_dir: folder of the rows' work directories.
        out: the report.
        intro: what stands above the table: text of the one who ran it, about the machine and what was found.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    done = [row for row in rows if confusion_of(work_dir / row.name, 'best') is not None]
    parts = ['# CamVid, from random weights', intro.strip()]
    parts += ['## Models', _models(rows, done, work_dir)]
    if done:
        parts += ['## Classes', 'IoU of each class on `val`, best checkpoint.', _classes(done, work_dir)]
        parts += ['## What can be changed about a trained model', _variants(done, work_dir)]
        picture = out.with_name(f'{out.stem}_curves.png')
        _draw_curves(done, work_dir, picture)
        parts += ['## Curves', f'![Loss and mIoU of each model]({picture.name})']
        parts += ['## Commands', _commands(done, work_dir)]
    out.write_text('\n\n'.join(parts) + '\n')


def scores(confusion: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return mIoU, pixel accuracy and the IoU of each class, in percent, from counts ``(truth, prediction)``."""
    correct = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - correct
    with np.errstate(invalid='ignore'):
        ious = 100 * correct / union
    return float(np.nanmean(ious)), float(100 * correct.sum() / confusion.sum()), ious


def _models(rows: Sequence[Row], done: Sequence[Row], work_dir: Path) -> str:
    header = [
        'model', 'parameters (10^6)', 'multiply-adds (10^9)', 'images/s', 'iterations', 'minutes x threads',
        'mIoU `val`, best', 'mIoU `val`, last', 'Boundary IoU `val`, best', 'accuracy `val`, best',
        'mIoU `train`', 'accuracy `train`',
    ]  # fmt: skip
    lines = []
    for row in rows:
        folder = work_dir / row.name
        if row not in done:
            lines.append([row.title, 'not trained', *[''] * (len(header) - 2)])
            continue
        cost = ['', '', '']
        if (folder / 'cost.json').exists():
            figures = json.loads((folder / 'cost.json').read_text())['model']
            prediction = figures['prediction']
            cost = [
                f'{figures["parameters"] / 1e6:.1f}',
                f'{prediction["multiply_adds"] / 1e9:.1f}',
                f'{prediction["images_per_second"]:.1f}',
            ]
        # Of a row that is not finished yet, the table has what there is.
        counts = {title: confusion_of(folder, title) for title in ('best', 'last', 'train')}
        best, last, train = ((None, None) if c is None else scores(c)[:2] for c in counts.values())
        minutes = f'{training_seconds(folder) / 60:.0f} x {record_of(folder)["threads"]}'
        values = [best[0], last[0], boundary_iou_of(folder, 'best'), best[1], *train]
        lines.append([row.title, *cost, str(trained_iterations(folder)), minutes, *map(_number, values)])
    return _table(header, lines)


def _classes(done: Sequence[Row], work_dir: Path) -> str:
    classes = CamVidDataset.METAINFO['classes']
    lines = []
    for row in done:
        ious = scores(confusion_of(work_dir / row.name, 'best'))[2]
        lines.append([row.title, *(f'{iou:.1f}' for iou in ious)])
    return _table(['model', *classes], lines)


def _variants(done: Sequence[Row], work_dir: Path) -> str:
    lines = []
    for row in done:
        folder = work_dir / row.name
        plain = scores(confusion_of(folder, 'best'))
        for title in row.variants:
            confusion = confusion_of(folder, title)
            if confusion is not None:
                changed = scores(confusion)
                values = [plain[0], changed[0], plain[1], changed[1]]
                values += [boundary_iou_of(folder, name) for name in ('best', title)]
                lines.append([row.title, title, *map(_number, values)])
    header = ['mIoU before', 'mIoU', 'accuracy before', 'accuracy', 'Boundary IoU before', 'Boundary IoU']
    return _table(['model', 'test', *header], lines, text=2)


def _commands(done: Sequence[Row], work_dir: Path) -> str:
    lines = []
    for row in done:
        how = record_of(work_dir / row.name)
        best = best_checkpoint(work_dir / row.name).name
        lines.append(f'{row.title}: commit {how["commit"]}, seed {how["seed"]}, best {best}\n\n    {how["command"]}')
    return '\n\n'.join(lines)


def _draw_curves(done: Sequence[Row], work_dir: Path, path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(12, 4.5), layout='constrained')
    axes = figure.subplots(1, 2)
    for row in done:
        scalars = read_scalars(work_dir / row.name)
        for ax, name in zip(axes, ('decode.loss_ce', 'mIoU'), strict=True):
            if name in scalars:
                steps, values = zip(*scalars[name], strict=True)
                ax.plot(steps, values, label=row.title, marker='o' if name == 'mIoU' else None, markersize=3)
    for ax, title in zip(axes, ('training loss of the decode head', 'mIoU on val (%)'), strict=True):
        ax.set(title=title, xlabel='iteration')
        ax.grid(alpha=0.3)
    axes[0].set_yscale('log')
    axes[1].legend()
    figure.savefig(path, dpi=100)


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:.1f}'


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], text: int = 1) -> str:
    rule = [_RULE[i < text] for i in range(len(header))]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (header, rule, *lines))
