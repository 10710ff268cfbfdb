"""A training whose weights are nan must end, and leave the checkpoints from before."""

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmseg_ext.checkpoints import load_file
from mmseg_ext.engine.hooks import FiniteWeightsHook


class BreaksAt(BaseModel):
    """A model whose loss is nan at one call."""

    def __init__(self, call: int):
        super().__init__()
        self.sound = torch.nn.Linear(1, 1)
        self.broken = torch.nn.Parameter(torch.ones(1))
        self.call, self.calls = call, 0

    def forward(self, x, mode='loss'):
        self.calls += 1
        factor = float('nan') if self.calls == self.call else 1.0
        return dict(loss=self.sound(x).square().mean() + (factor * self.broken).sum())


def train(work_dir, call: int, interval: int) -> None:
    model = BreaksAt(call)
    Runner(
        model,
        str(work_dir),
        train_dataloader=DataLoader([dict(x=torch.ones(1)) for _ in range(8)]),
        train_cfg=dict(by_epoch=False, max_iters=8),
        optim_wrapper=dict(optimizer=torch.optim.SGD(model.parameters(), lr=0.125)),
        default_hooks=dict(checkpoint=CheckpointHook(by_epoch=False, interval=3)),
        custom_hooks=[FiniteWeightsHook(interval)],
        default_scope='mmengine',
        experiment_name=work_dir.name,
    ).train()


@pytest.mark.parametrize(('call', 'interval', 'found'), [(4, 2, 4), (4, 50, 6), (6, 3, 6), (8, 50, 8)])
def test_nan_is_found_and_no_checkpoint_holds_it(tmp_path, call, interval, found):
    with pytest.raises(FloatingPointError, match=rf'^1 of 3 .* iteration {found}, broken .*lr.*0\.125'):
        train(tmp_path, call, interval)
    saved = list(tmp_path.glob('*.pth'))
    assert saved
    for path in saved:
        assert all(weight.isfinite().all() for weight in load_file(path)['state_dict'].values())


def test_a_sound_training_ends(tmp_path):
    train(tmp_path, call=9, interval=2)
    assert {path.name for path in tmp_path.glob('*.pth')} == {'iter_3.pth', 'iter_6.pth', 'iter_8.pth'}
