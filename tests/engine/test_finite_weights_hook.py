"""A training whose loss or weights are nan must end, say where, and leave the checkpoints from before."""

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmseg_ext.checkpoints import load_file
from mmseg_ext.engine.hooks import FiniteWeightsHook


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float('nan')


class Breaks(BaseModel):
    """A model in which something is nan from one call on: the loss, the gradients or a buffer."""

    def __init__(self, what: str, call: int):
        super().__init__()
        self.first = nn.Linear(1, 1)
        self.second = nn.Linear(1, 1)
        self.register_buffer('mask', torch.tensor([float('-inf')]))
        self.register_buffer('mean', torch.zeros(1))
        self.what, self.call, self.calls = what, call, 0

    def forward(self, x, mode='loss'):
        self.calls += 1
        broken = self.what if self.calls >= self.call else ''
        x = self.first(torch.stack(x))
        if broken == 'gradients':
            x = _NanGradient.apply(x)
        if broken == 'buffer':
            self.mean += float('inf')
        x = self.second(x * 1e38 * 1e38 if broken == 'loss' else x)
        if self.calls == 2:
            self.register_buffer('late_mask', torch.tensor([float('-inf')]))
        # What is not a loss is only logged.
        return dict(loss=x.square().mean(), recall=torch.tensor(float('nan')))


def collate(items: list[dict]) -> dict:
    return dict(x=[item['x'] for item in items])


def train(work_dir, what: str, call: int, **options) -> None:
    model = Breaks(what, call)
    Runner(
        model,
        str(work_dir),
        train_dataloader=DataLoader([dict(x=torch.ones(1)) for _ in range(8)], collate_fn=collate),
        train_cfg=dict(by_epoch=False, max_iters=8),
        optim_wrapper=dict(optimizer=torch.optim.SGD(model.parameters(), lr=0.125)),
        default_hooks=dict(checkpoint=CheckpointHook(by_epoch=False, interval=3)),
        custom_hooks=[FiniteWeightsHook(**options)],
        default_scope='mmengine',
        experiment_name=work_dir.name,
    ).train()  # fmt: skip


def assert_checkpoints_are_sound(work_dir) -> None:
    saved = list(work_dir.glob('*.pth'))
    assert saved
    for path in saved:
        weights = load_file(path)['state_dict']
        assert all(weight.isfinite().all() for name, weight in weights.items() if 'mask' not in name)


@pytest.mark.parametrize(('call', 'interval'), [(4, None), (4, 50), (5, 2), (8, None)])
def test_a_loss_is_found_at_its_iteration_with_the_layer_and_the_command_for_its_batch(tmp_path, call, interval):
    with pytest.raises(FloatingPointError) as caught:
        train(tmp_path, 'loss', call, interval=interval)
    text = str(caught.value)
    assert text.startswith(f'the loss is infinite or nan at iteration {call}; ')
    assert 'The first output that is not finite is that of second (Linear); its inputs are not finite either.' in text
    assert "{'lr': [0.125]}" in text
    assert f'--work-dir {tmp_path} --replay {call}' in text
    assert_checkpoints_are_sound(tmp_path)


@pytest.mark.parametrize(('call', 'interval', 'found'), [(4, None, 4), (4, 2, 4), (5, 3, 6)])
def test_weights_are_found_before_a_checkpoint_holds_them(tmp_path, call, interval, found):
    # From the next iteration on the loss tells.
    with pytest.raises(
        FloatingPointError,
        match=rf'(2 of 7 weights.*first\.weight|the loss).* iteration {found}; .*its weight and bias',
    ):
        train(tmp_path, 'gradients', call, interval=interval)  # fmt: skip
    assert_checkpoints_are_sound(tmp_path)


def test_a_buffer_that_has_become_infinite_ends_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match=r'1 of 7 weights and buffers, mean among them, are .* iteration 5'):
        train(tmp_path, 'buffer', 5)
    assert_checkpoints_are_sound(tmp_path)


def test_a_sound_training_ends_and_a_mask_of_infinities_is_no_fault(tmp_path):
    train(tmp_path, 'loss', 9)
    assert {path.name for path in tmp_path.glob('*.pth')} == {'iter_3.pth', 'iter_6.pth', 'iter_8.pth'}
