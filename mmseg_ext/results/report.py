"""Write the table of rows from their records; a row that was not trained says so."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure

from mmseg_ext.datasets import CamVidDataset

from .records import CURVES, read_records, update_records
from .rows import Row

_TITLE, _TABLE = '# CamVid, from random weights', '## Models'
_RULE = {True: '---', False: '---:'}


def write_report(rows: Sequence[Row], work_dir: Path, out: Path) -> None:
    """Write ``out`` (Markdown), the records of its rows (``.json``) and, where there are any, their curves (``.png``).

    Args:
        rows: of the table.
        work_dir: folder of the rows' work directories. A row that is not there is taken from the records.
        out: the report. What it has between its title and the table is kept: text of the one who ran it, about the
            machine and what was found.

    Raises:
        ValueError: ``out``, or the file of the records, holds something else.
    """
    intro = _read_intro(out)
    records = update_records(_records_path(out), rows, work_dir)
    done = [(row, records[row.name]) for row in rows if row.name in records]
    parts = [_TITLE, intro, _TABLE, _models(rows, records)]
    if done:
        parts += ['## Classes', 'IoU of each class on `val`, best checkpoint.', _classes(done)]
        parts += ['## What can be changed about a trained model', _variants(done)]
        picture = out.with_name(f'{out.stem}_curves.png')
        if _draw_curves(done, picture):
            parts += ['## Curves', f'![Loss and mIoU of each model]({picture.name})']
        parts += ['## Commands', _commands(done)]
    out.write_text('\n\n'.join(parts) + '\n')


def check_report(out: Path) -> None:
    """Raise ValueError where the report, or the file of its records, is something else that must not be lost."""
    _read_intro(out)
    read_records(_records_path(out))


def _records_path(out: Path) -> Path:
    return out.with_suffix('.json')


def _read_intro(out: Path) -> str:
    if not out.exists():
        return 'Written by `tools/reproduce_camvid.py`.'
    before, table, _ = out.read_text().partition(f'\n{_TABLE}\n')
    if not (table and before.startswith(_TITLE)):
        raise ValueError(f'{out} is no report of this tool; remove it, or give another --out')
    return before.removeprefix(_TITLE).strip()


def _models(rows: Sequence[Row], records: dict[str, dict]) -> str:
    header = [
        'model', 'parameters (10^6)', 'multiply-adds (10^9)', 'images/s', 'iterations', 'minutes x threads',
        'mIoU `val`, best', 'mIoU `val`, last', 'Boundary IoU `val`, best', 'accuracy `val`, best',
        'mIoU `train`', 'accuracy `train`',
    ]  # fmt: skip
    units = {'parameters': 1e6, 'multiply_adds': 1e9, 'images_per_second': 1}
    lines = []
    for row in rows:
        if row.name not in records:
            lines.append([row.title, 'not trained', *[''] * (len(header) - 2)])
            continue
        record = records[row.name]
        cost = [_number(record.get('cost'), key, unit) for key, unit in units.items()]
        trained = [str(record['iterations']), f'{record["minutes"]:.0f} x {record["threads"]}']
        # Of a row that is not finished yet, the table has what there is.
        tests = ('best', 'mIoU'), ('last', 'mIoU'), ('best', 'boundary_IoU'), ('best', 'accuracy')
        tests += ('train', 'mIoU'), ('train', 'accuracy')
        results = [_number(record['tests'].get(title), key) for title, key in tests]
        lines.append([row.title, *cost, *trained, *results])
    return _table(header, lines)


def _classes(done: Sequence[tuple[Row, dict]]) -> str:
    classes = CamVidDataset.METAINFO['classes']
    lines = []
    for row, record in done:
        ious = record['tests']['best']['IoU']
        # None: a class that is neither there nor predicted.
        lines.append([row.title, *('' if iou is None else f'{iou:.1f}' for iou in ious)])
    return _table(['model', *classes], lines)


def _variants(done: Sequence[tuple[Row, dict]]) -> str:
    lines = []
    for row, record in done:
        tests = record['tests']
        for title in row.variants:
            if title in tests:
                both = tests['best'], tests[title]
                values = [_number(test, key) for key in ('mIoU', 'accuracy', 'boundary_IoU') for test in both]
                lines.append([row.title, title, *values])
    header = ['mIoU before', 'mIoU', 'accuracy before', 'accuracy', 'Boundary IoU before', 'Boundary IoU']
    return _table(['model', 'test', *header], lines, text=2)


def _commands(done: Sequence[tuple[Row, dict]]) -> str:
    text = '{title}: commit {commit}, seed {seed}, best {best}\n\n    {command}'
    return '\n\n'.join(text.format(title=row.title, **record) for row, record in done)


def _draw_curves(done: Sequence[tuple[Row, dict]], path: Path) -> bool:
    """Draw the curves of the rows that have some; returns whether there are any."""
    curves = {row.title: record['curves'] for row, record in done if record.get('curves')}
    if not curves:
        return False
    figure = matplotlib.figure.Figure(figsize=(12, 4.5), layout='constrained')
    axes = figure.subplots(1, 2)
    for label, values in curves.items():
        for ax, name in zip(axes, CURVES, strict=True):
            if name in values:
                steps, heights = zip(*values[name], strict=True)
                ax.plot(steps, heights, label=label, marker='o' if name == 'mIoU' else None, markersize=3)
    for ax, title in zip(axes, ('training loss of the decode head', 'mIoU on val (%)'), strict=True):
        ax.set(title=title, xlabel='iteration')
        ax.grid(alpha=0.3)
    axes[0].set_yscale('log')
    axes[1].legend()
    figure.savefig(path, dpi=100)
    return True


def _number(values: dict | None, key: str, unit: float = 1) -> str:
    """Return a value in this unit; '' where it was not measured."""
    return f'{values[key] / unit:.1f}' if values and key in values else ''


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], text: int = 1) -> str:
    rule = [_RULE[i < text] for i in range(len(header))]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (header, rule, *lines))
