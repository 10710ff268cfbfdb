"""Train and test a row of the table with our tools, each step once.

Everything that is known of a row lies in its work directory: what ``tools/train.py`` leaves there, ``row.json`` (how it
was trained), ``cost.json`` (``tools/benchmark.py``'s figures) and the folders ``test_*``, whose confusion matrices and
Boundary IoU the table is made from (:mod:`.records`). What is there is not done again.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmseg_ext.engine.bfloat16 import slow_bfloat16
from mmseg_ext.files import written_whole
from mmseg_ext.models.postprocess import DenseCRF

from .rows import Row

ROOT = Path(__file__).parents[2]
_SPLITS = ('train', 'val', 'test')
# Of the diagonal: 3 pixels at 360x480, as the paper (arXiv:2103.16562) has it for Cityscapes.
BOUNDARY_RATIO = 0.005


@dataclass(frozen=True)
class Settings:
    """How rows are trained.

    Args:
        data: the data set's folder, in SegNet's layout.
        work_dir: folder of the rows' work directories.
        iterations: length of the schedule; None: the config's.
        seed: of the random numbers.
        threads: processor threads of a training.
        options: further arguments of ``--cfg-options``, for trainings and tests.
    """

    data: Path
    work_dir: Path
    iterations: int | None = None
    seed: int = 0
    threads: int = os.cpu_count() or 1
    options: tuple[str, ...] = ()


def run_rows(rows: Sequence[Row], settings: Settings, jobs: int = 1) -> None:
    """Run rows, so many at the same time. Where one fails, those that run are finished, and no other is begun.

    Raises:
        subprocess.CalledProcessError: a tool failed; what it printed is on the terminal.
        ImportError: a row's tests need pydensecrf2, which is not installed.
        ValueError: a row was begun with other settings.
    """
    for row in rows:
        _check(row, settings)
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = [pool.submit(run_row, row, settings) for row in rows]
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        pool.shutdown(cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()


def run_row(row: Row, settings: Settings) -> None:
    """Train a row, or go on with its training, and test it.

    Raises:
        subprocess.CalledProcessError: a tool failed; what it printed is on the terminal.
    """
    folder = settings.work_dir / row.name
    _train(row, folder, settings)
    last = folder / (folder / 'last_checkpoint').read_text().strip().split('/')[-1]
    best = best_checkpoint(folder)
    _test(row, folder, 'last', last, settings)
    _test(row, folder, 'train', last, settings, split='train')
    if _iteration(best) == _iteration(last):
        shutil.copytree(folder / test_folder('last'), folder / test_folder('best'), dirs_exist_ok=True)
    else:
        _test(row, folder, 'best', best, settings)
    for title, arguments in row.variants.items():
        _test(row, folder, title, best, settings, arguments)


def measure_row(row: Row, settings: Settings, size: str = '360x480', repeats: int = 5) -> None:
    """Measure parameters, multiply-adds and time of a row's prediction; to be done on an idle machine."""
    cost = settings.work_dir / row.name / 'cost.json'
    if not cost.exists():
        arguments = ['--size', size, '--repeats', str(repeats), '--threads', str(os.cpu_count())]
        with written_whole(cost) as part:
            _run('benchmark', [_config(row), *arguments, '--out', str(part)], settings)


def best_checkpoint(folder: Path) -> Path:
    """Return the checkpoint with the best mIoU in validation.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(folder.glob('best_mIoU_iter_*.pth'), key=_iteration)
    if not found:
        raise FileNotFoundError(f'{folder} holds no best_mIoU_iter_*.pth; train the row again')
    return found[-1]


def how_trained(folder: Path) -> dict:
    """Return how a row is trained, ``row.json``; empty where it was not begun."""
    path = folder / 'row.json'
    return json.loads(path.read_text()) if path.exists() else {}


def confusion_of(folder: Path, title: str) -> np.ndarray | None:
    """Return the counts ``(truth, prediction)`` of a row's test; None where it was not done."""
    path = folder / test_folder(title) / 'confusion_matrix.npy'
    return np.load(path) if path.exists() else None


def test_folder(title: str) -> str:
    return 'test_' + re.sub(r'\W+', '_', title)


def _check(row: Row, settings: Settings) -> None:
    folder = settings.work_dir / row.name
    if any('--crf' in arguments and confusion_of(folder, title) is None for title, arguments in row.variants.items()):
        DenseCRF()
    known, how = how_trained(folder), _how(settings)
    changed = {key: (known[key], value) for key, value in how.items() if key in known and known[key] != value}
    if changed:
        said = ', '.join(f'{key} {before} and now {now}' for key, (before, now) in changed.items())
        raise ValueError(f'{folder} was begun with {said}; use the same, or another --work-dir')


def _how(settings: Settings) -> dict:
    """Return what must not change while a row is trained."""
    return dict(
        seed=settings.seed, iterations=settings.iterations, threads=settings.threads, options=list(settings.options)
    )


def _train(row: Row, folder: Path, settings: Settings) -> None:
    if how_trained(folder).get('finished'):
        return
    iterations = settings.iterations
    options = [f'randomness.seed={settings.seed}']
    if iterations is not None:
        # Six validations at most, the last one after the last iteration.
        warm_up, interval = min(100, max(1, iterations // 10)), math.ceil(iterations / 6)
        options += [
            f'train_cfg.max_iters={iterations}',
            f'train_cfg.val_interval={interval}',
            f'default_hooks.checkpoint.interval={interval}',
            f'param_scheduler.0.end={warm_up}',
            f'param_scheduler.1.begin={warm_up}',
            f'param_scheduler.1.end={iterations}',
        ]
    fast = [] if slow_bfloat16() else ['--amp', '--channels-last']
    arguments = [_config(row), *fast, '--resume', '--work-dir', str(folder)]
    # What the report shows: without this machine's paths.
    shown = [*arguments[:-1], f'work_dirs/camvid/{row.name}']
    command = ['python', 'tools/train.py', *shown, '--cfg-options', *options, *settings.options]
    how = dict(_how(settings), commit=_commit(), command=' '.join(command))
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / 'row.json'
    record.write_text(json.dumps(how, indent=1))
    _run('train', [*arguments, '--cfg-options', *options, *_data_options(settings), *settings.options], settings)
    record.write_text(json.dumps(dict(how, finished=True), indent=1))


def _test(
    row: Row,
    folder: Path,
    title: str,
    checkpoint: Path,
    settings: Settings,
    arguments: tuple[str, ...] = (),
    split: str = 'val',
) -> None:
    if confusion_of(folder, title) is not None:
        return
    work_dir = folder / test_folder(title)
    options = [
        f'test_dataloader.dataset.data_prefix.img_path={split}',
        f'test_dataloader.dataset.data_prefix.seg_map_path={split}annot',
        f'test_evaluator.confusion_matrix={work_dir / "confusion_matrix.png"}',
        "test_evaluator.iou_metrics=['mIoU','mBoundaryIoU']",
        f'test_evaluator.boundary_ratio={BOUNDARY_RATIO}',
    ]
    out = ['--work-dir', str(work_dir)]
    options = ['--cfg-options', *_data_options(settings), *options, *settings.options]
    _run('test', [_config(row), str(checkpoint), *out, *arguments, *options], settings)


def _iteration(checkpoint: Path) -> int:
    return int(checkpoint.stem.split('_')[-1])


def _config(row: Row) -> str:
    return f'configs/{row.name}_camvid.py'


def _data_options(settings: Settings) -> list[str]:
    return [f'{split}_dataloader.dataset.data_root={Path(settings.data).absolute()}' for split in _SPLITS]


def _run(tool: str, arguments: list[str], settings: Settings) -> None:
    environment = dict(os.environ, OMP_NUM_THREADS=str(settings.threads), PYTHONPATH=str(ROOT))
    print(f'$ python tools/{tool}.py {" ".join(arguments)}', flush=True)
    subprocess.run([sys.executable, f'tools/{tool}.py', *arguments], cwd=ROOT, env=environment, check=True)


def _commit() -> str:
    """Return the commit of the code, with a mark where files differ from it; '' where it is no git checkout."""
    result = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.stdout.strip()
