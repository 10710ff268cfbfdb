"""Stop a training whose weights have become nan."""

import torch
from mmengine.hooks import Hook

from mmseg_ext.registry import HOOKS


@HOOKS.register_module()
class FiniteWeightsHook(Hook):
    """Stop when a weight is infinite or nan: from there on nothing is learnt, and checkpoints are worthless.

    The weights, not the loss: loss scaling (float16) skips a step whose gradients overflow, and the training is sound.
    They are looked at every ``interval`` iterations and before a checkpoint is written, so that none takes the place
    of a good one.

    Args:
        interval: iterations between two looks.

    Raises:
        FloatingPointError: a weight is not finite.
    """

    def __init__(self, interval: int = 50):
        self.interval = interval

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._check(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        self._check(runner)

    def _check(self, runner) -> None:
        names, weights = zip(*runner.model.named_parameters(), strict=True)
        finite = torch.stack([weight.detach().isfinite().all() for weight in weights])
        if finite.all():
            return
        bad = [name for name, is_finite in zip(names, finite.tolist(), strict=True) if not is_finite]
        rates = runner.optim_wrapper.get_lr()
        raise FloatingPointError(
            f'{len(bad)} of {len(names)} weights are infinite or nan at iteration {runner.iter + 1}, {bad[0]} among '
            f'them; checkpoints in {runner.work_dir} are from before. Try a learning rate below {rates}, '
            'optim_wrapper.clip_grad.max_norm=10, or no --amp'
        )
