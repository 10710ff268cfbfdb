"""Two gloo processes on the CPU, started as a user would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, load_tool

CONFIG = ROOT / 'configs/psp_r18v1c_cityscapes.py'

# What a config imports before the process group begins is registered first and runs last: after the group's end.
NOTE_THREADS = """
import atexit, os
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

def note(moment):
    threads = [file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')]
    Path(__file__).with_name(f'{moment}_{os.environ["RANK"]}').write_text(' '.join(threads))

atexit.register(note, 'at_exit')

@HOOKS.register_module()
class NoteThreads(Hook):
    def after_train(self, runner):
        note('trained')
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def launch(script: str, *arguments: object, path: Path | str = '') -> None:
    """Run a script of ours; ``path`` is where Python looks for modules too."""
    port = free_port()
    programs = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = dict(os.environ, PATH=programs, PORT=str(port), OMP_NUM_THREADS='1')
    environment['PYTHONPATH'] = f'{ROOT}{os.pathsep}{path}'
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


@pytest.fixture
def trained(work_dir, options) -> Path:
    """The work directory of a training by two processes, each of which has noted its threads in the folder above."""
    if not (work_dir / 'train').exists():
        (work_dir / 'note_threads.py').write_text(NOTE_THREADS)
        config = work_dir / 'config.py'
        config.write_text(
            f"_base_ = ['{CONFIG}']\n"
            "custom_imports = dict(imports=['mmseg_ext', 'note_threads'])\n"
            "custom_hooks = [dict(type='NoteThreads')]\n"
        )
        launch('dist_train.sh', config, 2, '--work-dir', work_dir / 'train', *options, path=work_dir)
    return work_dir / 'train'


def test_two_processes_train_and_their_metrics_equal_those_of_one(trained, work_dir, options):
    checkpoint = trained / 'iter_2.pth'
    assert checkpoint.exists()
    assert 'Iter(train) [2/2]' in max(trained.glob('*/*.log')).read_text()
    # Three images: the second process repeats one, which must not count.
    launch('dist_test.sh', CONFIG, checkpoint, 2, '--work-dir', work_dir / 'test2', *options)
    load_tool('test').main([str(CONFIG), str(checkpoint), '--work-dir', str(work_dir / 'test1'), *options])
    assert metrics_in(work_dir / 'test2') == metrics_in(work_dir / 'test1')
    assert metrics_in(work_dir / 'test1')['aAcc'] > 0


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='threads are listed in /proc')
def test_no_thread_of_a_process_group_is_left_when_the_interpreter_ends(trained, work_dir):
    for rank in range(2):
        assert 'gloo' in (work_dir / f'trained_{rank}').read_text()
        assert 'gloo' not in (work_dir / f'at_exit_{rank}').read_text()
