"""Kill a training at random moments, resume it each time, and compare its end with that of one that was not killed.

    python -m benchmarks.kills [--kills 100] [--seed 0]

The training (:mod:`.tiny_run`) takes a second. Half of the kills come at a random time, half at a random one of the
moments where it writes, renames, removes, validates, steps or calls its hooks. Compared are weights, averaged weights,
optimizer, schedules, hooks, metrics, best checkpoint and the names of all files.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio.backends import LocalBackend

from mmseg_ext.engine.runner import Runner

from .quick_config_text import leave_config_texts_unformatted
from .tiny_run import TinyNet, final_state, train

VARIANTS = {
    'iterations': {},
    'two workers': {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True},
    'epochs': {
        'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1, _delete_=True),
        'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
        'default_hooks.checkpoint.by_epoch': True,
        'log_processor.by_epoch': True,
    },
    'saved every fifth iteration': {
        'default_hooks.checkpoint.interval': 5,
        'default_hooks.checkpoint.max_keep_ckpts': 1,
    },
}


class Moments:
    """Counts the moments of a run, and kills its process at one of them."""

    def __init__(self, kill_at: int | None = None):
        self.count, self.kill_at = 0, kill_at

    def pass_one(self) -> bool:
        """Count a moment; return whether the process ends at the next."""
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.count + 1 == self.kill_at

    def watch(self) -> None:
        """Put a moment before and after everything that matters, and in the middle of writing a file."""
        for owner, name in (
            (os, 'replace'), (os, 'fsync'), (LocalBackend, 'remove'), (Runner, 'call_hook'), (TinyNet, 'train_step'),
            (TinyNet, 'val_step'),
        ):  # fmt: skip
            setattr(owner, name, self._around(getattr(owner, name)))
        put = LocalBackend.put

        def put_in_two(backend: LocalBackend, content: bytes, path: str) -> None:
            if self.pass_one():
                put(backend, content[: len(content) // 2], path)
            self.pass_one()
            put(backend, content, path)

        LocalBackend.put = put_in_two

    def _around(self, function: Callable) -> Callable:
        def watched(*args, **kwargs):
            self.pass_one()
            result = function(*args, **kwargs)
            self.pass_one()
            return result

        return watched


def run_once(work_dir: Path, changes: dict[str, Any], kill_at: int | None = None, after: float | None = None) -> bool:
    """Train in a process of its own; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            moments = Moments(kill_at)
            moments.watch()
            train(work_dir, **changes)
            (work_dir / 'moments').write_text(str(moments.count))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    if after is not None:
        deadline = time.monotonic() + after
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return _ended(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return _ended(os.waitpid(child, 0)[1])


def _ended(status: int) -> bool:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.WEXITSTATUS(status):
        raise RuntimeError('a resumed training failed; its traceback is above')
    return True


def compare(folder: Path, kills: int, seed: int, changes: dict[str, Any]) -> tuple[int, list[str]]:
    """Kill trainings until there were so many kills; return how many trainings that took, and what differed."""
    choose = random.Random(seed)
    reference = folder / 'reference'
    begun = time.monotonic()
    run_once(reference, changes)
    seconds = time.monotonic() - begun
    moments = int((reference / 'moments').read_text())
    expected = final_state(reference)
    killed, trainings, problems = 0, 0, []
    while killed < kills:
        trainings += 1
        work_dir = folder / f'killed_{trainings}'
        for left in range(12, -1, -1):  # the last one is let run
            at, after = None, None
            if left and killed < kills:
                at, after = choose.choice([(choose.randint(1, moments), None), (None, choose.uniform(0, seconds))])
            if run_once(work_dir, changes, at, after):
                break
            killed += 1
        state = final_state(work_dir)
        problems += [
            f'training {trainings}: {key} {state[key]}, not {value}'
            for key, value in expected.items()
            if state[key] != value
        ]
    return trainings, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=100, help='in all (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', metavar='FILE', help='write the figures as JSON')
    args = parser.parse_args()
    torch.set_num_threads(1)
    leave_config_texts_unformatted()
    results, failed = {}, False
    for number, (name, changes) in enumerate(VARIANTS.items()):
        kills = args.kills // len(VARIANTS) + (number < args.kills % len(VARIANTS))
        with tempfile.TemporaryDirectory() as folder:
            trainings, problems = compare(Path(folder), kills, args.seed + number, changes)
        results[name] = dict(kills=kills, trainings=trainings, differing=len(problems))
        print(f'{name}: {kills} kills in {trainings} trainings, {len(problems)} differences', *problems, sep='\n  ')
        failed = failed or bool(problems)
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1) + '\n')
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
