"""Stop a training whose loss or weights have become nan."""

import shlex
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from mmseg_ext.engine.nonfinite import all_finite, first_nonfinite, tensors_in
from mmseg_ext.engine.randomness import ITERATION, seed_everything
from mmseg_ext.registry import HOOKS


@HOOKS.register_module()
class FiniteWeightsHook(Hook):
    """Stop when the loss, a weight or a buffer is infinite or nan: from there on nothing is learnt.

    On a CPU the loss is looked at before the gradients are computed and weights and buffers after each iteration; on an
    accelerator, where looking means waiting for it, every ``interval`` iterations. Both before a checkpoint is written,
    so that none takes the place of a good one. The message says in which iteration, which layer's output was the first
    that is not finite, and the command that writes that batch as pictures.

    Where the loss is scaled (float16), a loss that overflows costs a step and no more, and only weights count.

    Args:
        interval: iterations between two looks; None: 1 on a CPU, else 50.

    Raises:
        FloatingPointError: something is not finite.
    """

    def __init__(self, interval: int | None = None):
        self.interval = interval
        self._handle = None
        self._call: tuple[nn.Module, tuple, dict] | None = None
        self._first_bad: Tensor | None = None  # on the device: the iteration, or -1
        self._was_finite: set[str] = set()  # buffers: some models keep masks of -inf

    def before_train(self, runner) -> None:
        self._was_finite = {name for name, buffer in runner.model.named_buffers() if all_finite(buffer)}
        device = next(runner.model.parameters()).device
        self._on_cpu = device.type == 'cpu'
        self._interval = self.interval or (1 if self._on_cpu else 50)
        self._first_bad = torch.tensor(-1, device=device)
        self._runner = runner
        self._handle = runner.model.register_forward_hook(self._look_at_loss, with_kwargs=True)

    def after_train(self, runner) -> None:
        self._stop_looking()

    def _stop_looking(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._call = None

    def _look_at_loss(self, model: nn.Module, inputs: tuple, kwargs: dict, output) -> None:
        """Look at the losses of a training step, before their gradients are computed."""
        if not model.training or not torch.is_grad_enabled():
            return
        self._call = model, inputs, kwargs
        if _scales_loss(self._runner.optim_wrapper):
            return
        # Other entries are only logged.
        named = output.items() if isinstance(output, dict) else ()
        losses = [loss for name, value in named if 'loss' in name for loss in tensors_in(value)]
        if self._on_cpu:
            if not all_finite(losses):
                self._fail('the loss is', self._runner.iter + 1)
        elif losses:
            bad = ~torch.stack([loss.detach().isfinite().all() for loss in losses]).all()
            self._first_bad = torch.where((self._first_bad < 0) & bad, self._runner.iter + 1, self._first_bad)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self.every_n_train_iters(runner, self._interval):
            self._check(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._first_bad is not None:
            self._check(runner)

    def _check(self, runner) -> None:
        first = self._first_bad.item()
        if first >= 0:
            self._fail('the loss is', first)
        values = dict(runner.model.named_parameters()) | dict(runner.model.named_buffers())
        values = {name: value for name, value in values.items() if value.is_floating_point() or value.is_complex()}
        finite = torch.stack([value.detach().isfinite().all() for value in values.values()]).tolist()
        buffers = {name for name, _ in runner.model.named_buffers()}
        bad = []
        for name, is_finite in zip(values, finite, strict=True):
            if is_finite:
                self._was_finite.add(name)
            elif name not in buffers or name in self._was_finite:
                bad.append(name)
        if bad:
            self._fail(f'{len(bad)} of {len(values)} weights and buffers, {bad[0]} among them, are', runner.iter + 1)

    def _fail(self, what: str, iteration: int) -> None:
        runner, call = self._runner, self._call
        self._stop_looking()
        where = ''
        if call is not None:
            model, inputs, kwargs = call
            network = model.module if is_model_wrapper(model) else model
            seed_everything(runner.seed, ITERATION, runner.iter, runner.rank)
            where = f' {first_nonfinite(network, lambda: network(*inputs, **kwargs))}'
        raise FloatingPointError(
            f'{what} infinite or nan at iteration {iteration}; checkpoints in {runner.work_dir} are from before.{where}'
            f' Try a learning rate below {runner.optim_wrapper.get_lr()}, optim_wrapper.clip_grad.max_norm=10, or no '
            f'--amp. To see the batch: {_replay_command(runner, iteration)}'
        )


def _replay_command(runner, iteration: int) -> str:
    config = f'{runner.timestamp}.py' if runner.cfg.filename is None else Path(runner.cfg.filename).name
    command = ['python'] if runner.launcher == 'none' else ['torchrun', f'--nproc_per_node={runner.world_size}']
    command += ['tools/train.py', str(Path(runner.work_dir, config)), '--work-dir', runner.work_dir]
    command += [] if runner.launcher == 'none' else ['--launcher', runner.launcher]
    return shlex.join([*command, '--replay', str(iteration)])


def _scales_loss(optim_wrapper) -> bool:
    wrappers = optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
    return any(isinstance(wrapper, AmpOptimWrapper) and wrapper.loss_scaler.is_enabled() for wrapper in wrappers)
