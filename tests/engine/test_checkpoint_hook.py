"""A kill while a checkpoint is written must leave the one before it."""

from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch.utils.data import DataLoader

from mmseg_ext.checkpoints import load_file
from mmseg_ext.engine.hooks import CheckpointHook
from mmseg_ext.engine.runner import Runner


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, x, mode='loss'):
        out = self.linear(x)
        return dict(loss=out.square().mean()) if mode == 'loss' else [out]


class Kill(Exception):
    pass


class KillAt(Hook):
    """Stops the run when the checkpoint of an iteration is about to be written."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_save_checkpoint(self, runner, checkpoint) -> None:
        if checkpoint['meta']['iter'] == self.iteration:
            raise Kill


class Rising(BaseMetric):
    """A score that is better at every validation."""

    value = 0.0

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict:
        self.value += 1
        return dict(score=self.value)


def runner(work_dir: Path, hooks: list[Hook], iterations: int = 4, **checkpoint) -> Runner:
    def loader():
        return DataLoader([dict(x=torch.ones(1)) for _ in range(8)], batch_size=2)

    model = Model()
    return Runner(
        model,
        str(work_dir),
        train_dataloader=loader(),
        val_dataloader=loader(),
        val_evaluator=[Rising()],
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=1),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=torch.optim.SGD(model.parameters(), lr=0.1)),
        default_hooks=dict(checkpoint=CheckpointHook(by_epoch=False, interval=1, **checkpoint)),
        custom_hooks=hooks,
        default_scope='mmengine',
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
    )


def names(work_dir: Path) -> set[str]:
    return {path.name for path in work_dir.iterdir() if path.suffix in ('.pth', '.part')}


def test_the_newest_checkpoints_are_kept_and_older_ones_removed(tmp_path):
    runner(tmp_path, [], max_keep_ckpts=2).train()
    assert names(tmp_path) == {'iter_3.pth', 'iter_4.pth'}


def test_a_kill_before_the_new_checkpoint_is_written_leaves_the_old_one(tmp_path):
    with pytest.raises(Kill):
        runner(tmp_path, [KillAt(3)], max_keep_ckpts=1).train()
    assert names(tmp_path) == {'iter_2.pth'}
    assert load_file(tmp_path / 'iter_2.pth')['meta']['iter'] == 2


def test_the_best_checkpoint_is_replaced_only_by_a_written_better_one(tmp_path):
    with pytest.raises(Kill):
        runner(tmp_path, [KillAt(3)], max_keep_ckpts=1, save_best='score', rule='greater').train()
    assert names(tmp_path) == {'iter_2.pth', 'best_score_iter_2.pth'}


def test_a_kill_while_the_file_is_written_leaves_no_half_checkpoint_under_its_name(tmp_path, monkeypatch):
    def cut(checkpoint, file):
        file.write(b'half')
        raise Kill

    run = runner(tmp_path, [], max_keep_ckpts=1)
    run.train()
    (tmp_path / 'iter_4.pth').rename(tmp_path / 'before.pth')
    monkeypatch.setattr(torch, 'save', cut)
    with pytest.raises(Kill):
        run.save_checkpoint(str(tmp_path), 'iter_4.pth')
    assert 'iter_4.pth' not in names(tmp_path)


def test_resume_does_not_execute_the_config_that_a_checkpoint_brings(tmp_path):
    runner(tmp_path / 'a', [], iterations=1).train()
    checkpoint = load_file(tmp_path / 'a/iter_1.pth')
    mark = tmp_path / 'executed'
    checkpoint['meta']['config'] = f'import pathlib\npathlib.Path({str(mark)!r}).touch()\nx = 1'
    torch.save(checkpoint, tmp_path / 'bad.pth')
    run = runner(tmp_path / 'b', [], iterations=2)
    run._resume, run._load_from = True, str(tmp_path / 'bad.pth')
    run.train()
    assert run.iter == 2
    assert not mark.exists()
