"""What the report needs of each trained row, in a file beside it, so that rows of several machines make one table.

A record has ``commit``, ``command``, ``seed``, ``threads``, ``iterations``, ``minutes`` (of the iterations, without
validations), ``best`` (the checkpoint), ``tests`` and, where they were measured, ``cost`` and ``curves``.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmseg_ext.files import written_whole
from mmseg_ext.visualization import read_log, read_scalars

from .rows import Row
from .runs import best_checkpoint, confusion_of, how_trained, test_folder

# Of what tools/train.py logs.
CURVES = ('decode.loss_ce', 'mIoU')


def update_records(path: Path, rows: Iterable[Row], work_dir: Path) -> dict[str, dict]:
    """Bring the records in ``path`` up to date with the rows that ``work_dir`` holds, and return them all by row.

    Raises:
        ValueError: ``path`` holds something else.
    """
    records = read_records(path)
    records |= {row.name: record for row in rows if (record := collect_record(row, work_dir / row.name))}
    # A row a line: a version control's difference then shows rows.
    lines = [f'{json.dumps(name)}: {json.dumps(record)}' for name, record in sorted(records.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        part.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
    return records


def read_records(path: Path) -> dict[str, dict]:
    """Return the records in a file; none where there is no file.

    Raises:
        ValueError: it holds something else.
    """
    if not path.exists():
        return {}
    try:
        records = json.loads(path.read_text())
        if all('tests' in record for record in records.values()):
            return records
    except (AttributeError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
        pass
    raise ValueError(f'{path} does not hold records of rows; remove it, or give another --out')


def collect_record(row: Row, folder: Path) -> dict | None:
    """Return the record of a row from its work directory; None where its best checkpoint was not tested."""
    titles = ('best', 'last', 'train', *row.variants)
    tests = {title: result for title in titles if (result := _test_result(folder, title))}
    if 'best' not in tests:
        return None
    how = how_trained(folder)
    record = {key: how[key] for key in ('commit', 'command', 'seed', 'threads')}
    record |= {
        'iterations': max(int(path.stem.split('_')[1]) for path in folder.glob('iter_*.pth')),
        'minutes': round(training_seconds(folder) / 60, 1),
        'best': best_checkpoint(folder).name,
        'tests': tests,
    }
    if (folder / 'cost.json').exists():
        figures = json.loads((folder / 'cost.json').read_text())['model']
        prediction = {key: figures['prediction'][key] for key in ('multiply_adds', 'images_per_second')}
        record['cost'] = {'parameters': figures['parameters'], **prediction}
    scalars = read_scalars(folder)
    record['curves'] = {
        name: [(step, round(value, 4)) for step, value in scalars[name]] for name in CURVES if name in scalars
    }
    return record


def training_seconds(folder: Path) -> float:
    """Return the time of all iterations, without validations; of those that a resumed run repeated, once."""
    # Of one iteration, on average since the record before; not a validation's.
    times = {record['step']: record['time'] for record in read_log(folder) if 'loss' in record}
    steps = sorted(times)
    return sum(times[step] * (step - before) for before, step in zip([0, *steps], steps, strict=False))


def scores(confusion: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return mIoU, pixel accuracy and the IoU of each class, in percent, from counts ``(truth, prediction)``."""
    correct = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - correct
    with np.errstate(invalid='ignore'):
        ious = 100 * correct / union
    return float(np.nanmean(ious)), float(100 * correct.sum() / confusion.sum()), ious


def _test_result(folder: Path, title: str) -> dict | None:
    confusion = confusion_of(folder, title)
    if confusion is None:
        return None
    miou, accuracy, ious = scores(confusion)
    of_class = [None if np.isnan(iou) else round(iou, 2) for iou in ious.tolist()]
    result = {'mIoU': round(miou, 2), 'accuracy': round(accuracy, 2), 'IoU': of_class}
    boundary = [json.loads(path.read_text()) for path in sorted((folder / test_folder(title)).glob('*/*.json'))]
    boundary = [metrics['mBoundaryIoU'] for metrics in boundary if 'mBoundaryIoU' in metrics]
    return result | ({'boundary_IoU': boundary[-1]} if boundary else {})
