"""Training curves from the scalars that mmengine's LocalVisBackend writes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib.figure


def read_scalars(work_dir: str | os.PathLike) -> dict[str, list[tuple[int, float]]]:
    """Read the logged values of all runs in a work directory.

    Returns:
        For each name, (iteration, value) in order. Where a resumed run repeats iterations, the later run counts.
    """
    by_name: dict[str, dict[int, float]] = {}
    for record in read_log(work_dir):
        for name, value in record.items():
            if name != 'step' and isinstance(value, (int, float)):
                by_name.setdefault(name, {})[record['step']] = value
    return {name: sorted(values.items()) for name, values in by_name.items()}


def read_log(work_dir: str | os.PathLike) -> Iterator[dict]:
    """Yield what all runs in a work directory logged at their iterations, ``step``, in the order of writing."""
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for text in path.read_text().splitlines():
            try:
                record = json.loads(text)
            except json.JSONDecodeError:  # the last line of a run that was killed
                continue
            if 'step' in record:
                yield record


def plot_curves(work_dir: str | os.PathLike) -> Path | None:
    """Draw losses, learning rate and validation mIoU of a work directory into its ``curves.png``.

    Returns:
        The picture, or None when nothing was logged yet.
    """
    scalars = read_scalars(work_dir)
    groups = [
        ('loss', [name for name in scalars if name.split('.')[-1].startswith('loss')]),
        ('learning rate', [name for name in scalars if name in ('lr', 'base_lr')][:1]),
        ('validation (%)', [name for name in ('mIoU', 'mAcc', 'aAcc') if name in scalars]),
    ]
    groups = [(title, names) for title, names in groups if names]
    if not groups:
        return None
    figure = matplotlib.figure.Figure(figsize=(5 * len(groups), 4), layout='constrained')
    for axes, (title, names) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        for name in names:
            steps, values = zip(*scalars[name], strict=True)
            axes.plot(steps, values, label=name, marker='o' if len(steps) < 30 else None, markersize=3)
        axes.set(title=title, xlabel='iteration')
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    path = Path(work_dir, 'curves.png')
    figure.savefig(path, dpi=100)
    return path
