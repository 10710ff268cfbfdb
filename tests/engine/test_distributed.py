"""Several processes on CPUs, and what one does while the others wait."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Two processes whose group has a time-out of two seconds. The first one works for four: then it succeeds, then fails.
# Last, one of them waits for the other by the group's own means. One script: starting takes longer than all of it.
# They begin together: imports of one may take longer than the time-out.
SCRIPT = """
import os, sys, time, warnings
from pathlib import Path
warnings.simplefilter('ignore')
import torch
from mmengine.dist import barrier, get_rank
from mmseg_ext.engine.distributed import on_first_process, start_processes

Path(sys.argv[1], os.environ['RANK']).touch()
while len(os.listdir(sys.argv[1])) < 2:
    time.sleep(0.05)
start_processes('pytorch', dict(dist_cfg=dict(backend='nccl', timeout=2)))

def work():
    time.sleep(4)
    return 'found'

def fail():
    raise ValueError('label 77')

print(get_rank(), on_first_process(work), flush=True)
barrier()
try:
    on_first_process(fail)
except Exception as error:
    print(get_rank(), type(error).__name__, error, flush=True)
barrier()
if get_rank() == 0:
    time.sleep(5)
else:
    begun = time.monotonic()
    try:
        torch.distributed.barrier()
    except RuntimeError:
        print('timed out', time.monotonic() - begun < 4, flush=True)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def run_two(script: str, folder: Path) -> list[list[str]]:
    """Run a script in two processes, which meet in a folder, and return the lines that each has printed."""
    address = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE='2', OMP_NUM_THREADS='1')
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', script, str(folder)],
            env=dict(os.environ, **address, RANK=str(rank), LOCAL_RANK=str(rank), PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    return [[line for line in lines if 'import OneDL' not in line] for lines in outputs]


def test_others_wait_longer_than_the_time_out_of_dist_cfg_which_counts_elsewhere_and_fail_with_the_first(tmp_path):
    assert run_two(SCRIPT, tmp_path) == [
        ['0 found', '0 ValueError label 77'],
        ['1 None', '1 FirstProcessError the first process stopped: ValueError: label 77', 'timed out True'],
    ]


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_other_launchers_need_an_accelerator_and_say_so(launcher, monkeypatch):
    from mmseg_ext.engine import distributed

    monkeypatch.setattr(distributed, 'has_accelerator', lambda: False)
    with pytest.raises(ValueError, match=f'launcher={launcher!r} needs an accelerator'):
        distributed.start_processes(launcher, {})
