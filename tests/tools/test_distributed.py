"""Two gloo processes on the CPU, started as a user would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

CONFIG = ROOT / 'configs/psp_r18v1c_cityscapes.py'


# What is registered first runs last: after the process group's end.
NOTE_THREADS = """
import atexit, sys
from pathlib import Path
threads = lambda: [file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')]
atexit.register(lambda: Path(sys.argv[1], 'at_exit').write_text(' '.join(threads())))
from tools.train import main
main(sys.argv[2:])
Path(sys.argv[1], 'trained').write_text(' '.join(threads()))
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def launch(script: str, *arguments: object) -> None:
    port = free_port()
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = dict(os.environ, PATH=path, PORT=str(port), OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    command = ['bash', str(ROOT / 'tools' / script), *map(str, arguments)]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]


def metrics_in(folder: Path) -> dict[str, float]:
    """Metrics that a test run left behind."""
    values = json.loads(max(folder.glob('*/*.json')).read_text().splitlines()[-1])
    return {name: values[name] for name in ('aAcc', 'mIoU', 'mAcc')}


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('distributed')


def test_two_processes_train_and_their_metrics_equal_those_of_one(work_dir, options):
    launch('dist_train.sh', CONFIG, 2, '--work-dir', work_dir / 'train', *options)
    checkpoint = work_dir / 'train/iter_2.pth'
    assert checkpoint.exists()
    assert 'Iter(train) [2/2]' in max((work_dir / 'train').glob('*/*.log')).read_text()
    results = []
    for processes in (1, 2):  # three images: the second process repeats one, which must not count
        folder = work_dir / f'test{processes}'
        launch('dist_test.sh', CONFIG, checkpoint, processes, '--work-dir', folder, *options)
        results.append(metrics_in(folder))
    assert results[0] == results[1]
    assert results[0]['aAcc'] > 0


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='threads are listed in /proc')
def test_no_thread_of_a_process_group_is_left_when_the_interpreter_ends(tmp_path, options):
    ranks = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    command = [sys.executable, '-c', NOTE_THREADS, tmp_path, CONFIG, '--launcher', 'pytorch', '--work-dir', tmp_path]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), **ranks)
    subprocess.run([*map(str, command), *options], env=environment, cwd=ROOT, check=True)
    assert 'gloo' in (tmp_path / 'trained').read_text()
    assert 'gloo' not in (tmp_path / 'at_exit').read_text()
