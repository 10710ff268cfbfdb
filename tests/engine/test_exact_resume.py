"""A run that was killed and resumed ends as one that was not, bit for bit; the long form is ``benchmarks.kills``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from benchmarks.kills import VARIANTS
from benchmarks.tiny_run import ITERATIONS, config, final_state, train
from mmseg_ext.engine.runner import Runner

ROOT = Path(__file__).parents[2]
STOP_EARLY = {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='loss', patience=1, min_delta=1.0)]}


class Kill(BaseException):
    pass


class KillAt(Hook):
    """Ends a run in the middle of an iteration, or of the validation behind it."""

    def __init__(self, iteration: int, stage: str):
        self.iteration, self.stage = iteration, stage

    def _look(self, runner, stage: str) -> None:
        if stage == self.stage and runner.iter == self.iteration:
            raise Kill

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        self._look(runner, 'train')

    def before_val_iter(self, runner, *args, **kwargs) -> None:
        self._look(runner, 'val')

    def after_val(self, runner) -> None:
        self._look(runner, 'after val')


def train_killed(work_dir, kills, last: dict | None = None, **changes) -> dict:
    """Train, killed once at each of the (iteration, stage), and return the state at the end; ``last`` are the changes
    of the part that ends."""
    for iteration, stage in kills:
        cfg = config(work_dir, **changes)
        cfg.resume = 'auto'
        runner = Runner.from_cfg(cfg)
        runner.register_hook(KillAt(iteration, stage), priority='LOWEST')
        with pytest.raises(Kill):
            runner.train()
    train(work_dir, **(last or changes))
    return final_state(work_dir)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """The state at the end of an uninterrupted training, by its changes; each is trained once."""
    known = {}

    def state(changes: dict) -> dict:
        key = repr(changes)
        if key not in known:
            folder = tmp_path_factory.mktemp('uninterrupted')
            train(folder, **changes)
            known[key] = final_state(folder)
        return known[key]

    return state


@pytest.mark.parametrize('name', ['iterations', 'epochs', 'saved every fifth iteration'])
@pytest.mark.parametrize(
    'kills',
    [
        [(1, 'train')],
        [(5, 'train'), (5, 'train')],  # between two halves of an accumulated gradient
        [(3, 'val'), (3, 'after val')],
        [(ITERATIONS, 'val')],
        [(i, 'train') for i in range(1, ITERATIONS)],
    ],
)
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path, uninterrupted, name, kills):
    changes = VARIANTS[name]
    if name == 'epochs':  # of four iterations
        kills = [(i + 1 if i == 3 else i, stage) for i, stage in kills]
    assert train_killed(tmp_path, kills, **changes) == uninterrupted(changes)


def test_an_epoch_based_run_goes_on_in_the_middle_of_an_epoch(tmp_path, uninterrupted):
    changes = {**VARIANTS['epochs'], 'default_hooks.checkpoint.by_epoch': False}
    assert train_killed(tmp_path, [(2, 'train'), (7, 'train'), (8, 'val')], **changes) == uninterrupted(changes)


@pytest.mark.parametrize('kills', [[(6, 'val')], [(6, 'after val')], [(4, 'train'), (7, 'train')]])
def test_a_run_that_stops_early_stops_where_it_would_have(tmp_path, uninterrupted, kills):
    expected = uninterrupted(STOP_EARLY)
    assert 'iter_9.pth' not in expected['files'] or 'iter_12.pth' not in expected['files']
    last = max(int(name.split('_')[1][:-4]) for name in expected['files'] if name.startswith('iter_'))
    kills = [kill for kill in kills if kill[0] < last or (kill[0] == last and kill[1] != 'train')]
    assert train_killed(tmp_path, kills, **STOP_EARLY) == expected


def test_a_finite_sampler_and_a_shorter_last_batch_are_numbered_too(tmp_path, uninterrupted):
    changes = {'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True)}
    assert train_killed(tmp_path, [(6, 'train'), (9, 'train')], **changes) == uninterrupted(changes)


@pytest.mark.parametrize('workers', [1, 2, 4])
def test_the_number_of_workers_makes_no_difference(tmp_path, uninterrupted, workers):
    changes = {'train_dataloader.num_workers': workers, 'train_cfg.max_iters': 6}
    train(tmp_path, **changes)
    assert final_state(tmp_path) == uninterrupted({'train_cfg.max_iters': 6})


def test_another_number_of_workers_after_the_kill_makes_no_difference(tmp_path, uninterrupted):
    short, workers = {'train_cfg.max_iters': 6}, {'train_dataloader.num_workers': 2}
    assert train_killed(tmp_path, [(3, 'train')], last=short, **short, **workers) == uninterrupted(short)


def test_without_the_same_seed_it_is_another_run(tmp_path, uninterrupted):
    train(tmp_path, **{'randomness.seed': 2})
    assert final_state(tmp_path)['weights'] != uninterrupted({})['weights']


def test_kills_by_the_system_at_random_moments_cost_nothing(tmp_path):
    # In a process of its own: it forks, which a process whose libraries have threads must not.
    out = tmp_path / 'kills.json'
    command = [sys.executable, '-m', 'benchmarks.kills', '--kills', '4', '--seed', '3', '--out', str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(out.read_text())
    assert results.keys() == VARIANTS.keys()
    assert all(result['kills'] == 1 and result['differing'] == 0 for result in results.values())


def test_the_best_checkpoint_has_a_receipt(tmp_path, uninterrupted):
    train(tmp_path)
    path = next(tmp_path.glob('best_*.json'))
    receipt = json.loads(path.read_text())
    assert path.with_suffix('.pth').exists()
    assert receipt['seed'] == 1
    assert receipt['metrics'] == {'loss': pytest.approx(float(final_state(tmp_path)['score']))}
    assert 'TinyNet' in receipt['config']
    assert receipt['versions']['torch']
