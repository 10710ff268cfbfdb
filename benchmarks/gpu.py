"""What README claims, on a GPU: first that results are right there, then its tables of speed and memory.

    python -m benchmarks.gpu [--minutes 8] [--device cuda] [--out results/gpu.md]

``tests/gpu`` runs first; if it fails, nothing is measured or written. Then come the tables, the most important ones
first, each within its share of the time that is left. The file is written after every row, so that a kill loses
nothing; it says what was not measured, and why. The numbers lie beside it as JSON. On a CPU, for a test, it is short.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch

from benchmarks import backbones, heads, metric, streaming
from mmseg_ext.engine.measure import format_table
from mmseg_ext.files import written_whole
from mmseg_ext.stack import check_stack

ROOT = Path(__file__).resolve().parents[1]
_NOTES = """\
Time and memory: the other side's over ours, above 1 where ours needs less; medians of rounds in which the sides take
turns, and peaks of torch's allocator beyond what was there before. ms and MiB: ours : the other's. Difference: between
the results, over their largest (labels: share of others; IoUMetric: of mIoU). On a GPU fp32 is torch's default, with
TF32 in convolutions; the correctness tests switch that off. bf16 is autocast."""


class Table(NamedTuple):
    """A benchmark at one size and precision."""

    title: str
    benchmark: ModuleType
    size: int
    batch: int = 1
    precision: str = 'fp32'
    short_size: int = 64  # on a CPU
    short: str | None = None  # the only comparison there


# The most important ones first. README's other figures need trained weights or data.
TABLES = [
    Table('Heads', heads, 512, 4, short='segformer-fusion'),
    Table('Losses and labels without full-size logits', streaming, 1024, short_size=128, short='loss-19'),
    Table('Heads', heads, 512, 4, 'bf16', short='segformer-fusion'),
    Table('Losses and labels without full-size logits', streaming, 1024, 1, 'bf16', 128, 'labels-19'),
    Table('Backbones', backbones, 512, 4, short_size=32, short='resnest50'),
    Table('Backbones', backbones, 512, 4, 'bf16'),
    Table('IoUMetric', metric, 1024, short='int64, 19 classes'),
]


def check(device: str, tests: str | Path) -> tuple[bool, str]:
    """Run the correctness tests on a device, in a process of their own; returns whether they pass, and the output."""
    command = [sys.executable, '-m', 'pytest', '-n', '0', '-q', '--tb=short', '-W', 'ignore', str(tests)]
    environment = dict(os.environ, MMSEG_EXT_GPU_TESTS_ON=device)
    run = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return run.returncode == 0, run.stdout


def machine(device: torch.device) -> dict[str, str]:
    """Return what the figures depend on."""
    facts = dict(device='CPU')
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        driver = 'unknown'
        if shutil.which('nvidia-smi'):
            query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
            lines = subprocess.run(query, capture_output=True, text=True).stdout.split()
            driver = lines[0] if lines else driver
        facts = dict(
            device=f'{properties.name}, {properties.total_memory / 2**30:.0f} GiB',
            driver=driver,
            clocks='unknown: the GPU chooses them',
            CUDA=str(torch.version.cuda),
            cuDNN=str(torch.backends.cudnn.version()),
        )
    return {**facts, **check_stack(), 'python': sys.version.split()[0]}


def measure(table: Table, device: torch.device, until: float, results: dict, save) -> None:
    """Fill a table's ``figures`` and ``missing``, row by row, and save each."""
    short = device.type == 'cpu'
    options = argparse.Namespace(
        size=table.short_size if short else table.size,
        batch=1 if short else table.batch,
        precision=table.precision,
        repeats=1 if short else 10,
        device=str(device),
        clock='wall',
        channels_last=False,
    )
    results.update(title=table.title, size=options.size, batch=options.batch, precision=options.precision)
    results.update(figures={}, missing={})
    for name in table.benchmark.COMPARISONS:
        if short and name != table.short:
            results['missing'][name] = 'shortened'
        elif time.monotonic() > until:
            results['missing'][name] = 'no time was left'
        else:
            print(f'{table.title}, {table.precision}: {name}', flush=True)
            torch.manual_seed(0)
            try:
                results['figures'][name] = table.benchmark.compare(name, options)
            except Exception as error:  # one row that fails, out of memory say, must not cost the others
                results['missing'][name] = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
            if device.type == 'cuda':
                torch.cuda.empty_cache()
        save()


def rows_of(figures: dict[str, dict[str, dict]]) -> list[dict[str, str]]:
    """Return the cells of a table by their headers: a row for each side but the first, ours, of each comparison."""
    rows = []
    for name, sides in figures.items():
        (_, ours), *others = sides.items()
        difference = max(of['difference'] for of in sides.values() if of['difference'] is not None)
        for side, of in others:
            row = {'': f'{name}: {side}'}
            for phase in (key for key, value in ours.items() if isinstance(value, dict)):
                mine, its = ours[phase], of[phase]
                row[f'{phase}: time'] = f'{its["ratio"]:.2f}'
                row[f'{phase}: ms'] = f'{1e3 * mine["seconds"]:.2f} : {1e3 * its["seconds"]:.2f}'
                if 'bytes' in mine:
                    row[f'{phase}: memory'] = f'{its["bytes"] / max(mine["bytes"], 1):.1f}'
                    row[f'{phase}: MiB'] = f'{mine["bytes"] / 2**20:.1f} : {its["bytes"] / 2**20:.1f}'
            rows.append({**row, 'difference': f'{difference:.0e}'})
    return rows


def render(report: dict) -> str:
    """Return the report in Markdown."""
    shortened = report['shortened']
    lines = ['# Rehearsal on a CPU, shortened: no figures of a GPU' if shortened else '# Figures of a GPU', '']
    lines += [f'- {key}: {value}' for key, value in report.items() if isinstance(value, str)]
    lines += [f'- {key} {value}' for key, value in report['machine'].items()] + ['', _NOTES]
    for table in report['tables']:
        form = f'{table["precision"]}, batch {table["batch"]}, size {table["size"]}'
        lines += ['', f'## {table["title"]}, {form}{" (shortened, on a CPU)" if shortened else ""}', '']
        if rows := rows_of(table['figures']):
            lines.append(format_table(list(rows[0]), [list(row.values()) for row in rows]))
        reasons = {}
        for name, reason in table['missing'].items():
            reasons.setdefault(reason, []).append(name)
        lines += ['', *(f'Not measured: {"; ".join(names)} ({reason}).' for reason, names in reasons.items())]
    return '\n'.join(lines).rstrip() + '\n'


def main(argv: list[str] | None = None, tests: str | Path = 'tests/gpu') -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=8, help='in all (8)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('results/gpu.md'), help='a .json is written beside it')
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == 'cuda' and not torch.cuda.is_available():
        parser.error(f'--device {args.device}: torch.cuda.is_available() is False; --device cpu rehearses on a CPU')
    end = time.monotonic() + 60 * args.minutes
    right, output = check(args.device, tests)
    print(output)
    if not right:
        print(f'The tests of {tests} fail on {args.device}: nothing was measured or written.')
        return 1
    warnings.simplefilter('ignore')
    report = dict(
        shortened=device.type == 'cpu',
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=' '.join(['python -m benchmarks.gpu', *(sys.argv[1:] if argv is None else argv)]),
        correctness=output.strip().splitlines()[-1],
        machine=machine(device),
        tables=[],
    )

    def save() -> None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for path, text in ((args.out, render(report)), (args.out.with_suffix('.json'), json.dumps(report, indent=1))):
            with written_whole(path) as part:
                part.write_text(text)

    for i, table in enumerate(TABLES):
        report['tables'].append({})
        share = max(0, end - time.monotonic()) / (len(TABLES) - i)
        measure(table, device, time.monotonic() + share, report['tables'][-1], save)
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
