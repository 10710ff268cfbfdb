"""Training loops whose resumed run is the run: mmengine's, but that batches and random numbers go by the iteration.

mmengine reads and discards the batches before the iteration that it resumes at, leaves out a validation that a kill
prevented, and has the random numbers of a new process.

They are not registered: our ``Runner`` puts them in the place of mmengine's, and restores their state when it resumes.
"""

import logging
from collections.abc import Callable, Sequence

from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from .distributed import share_buffers
from .numbered_loader import NumberedLoader, not_numbered
from .randomness import EPOCH, ITERATION, ORDER, VALIDATION, seed_everything


class _NumberedMixin:
    """What both loops share; put it in front of mmengine's."""

    def __init__(self, runner, dataloader: DataLoader | dict, *args, **kwargs):
        if isinstance(dataloader, dict):
            different = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = build_train_loader(dataloader, runner.seed, different, runner.build_dataloader)
        reason = not_numbered(dataloader)
        if reason:
            print_log(
                f'{reason}: which batches a resumed run sees is left to mmengine; it may differ from an '
                'uninterrupted one',
                logger='current',
                level=logging.WARNING,
            )
        else:
            dataloader = NumberedLoader(dataloader, runner.seed)
        super().__init__(runner, dataloader, *args, **kwargs)
        # Whether the checkpoint that the run resumed from was written before a validation that was due.
        self.validation_pending = False
        self.epoch_begin = 0  # iterations before this epoch

    @property
    def numbered(self) -> bool:
        """Whether batches are read by their number; else the loop is mmengine's."""
        return isinstance(self.dataloader, NumberedLoader)

    def begin_epoch(self) -> None:
        """Call the hooks in front of an epoch, with random numbers of its own."""
        seed_everything(self.runner.seed, EPOCH, self._epoch, get_rank())
        self.runner.call_hook('before_train_epoch')

    def run_iter(self, *args) -> None:
        """Run an iteration, with random numbers of its own."""
        seed_everything(self.runner.seed, ITERATION, self._iter, get_rank())
        super().run_iter(*args)

    def validate_if_due(self) -> None:
        """Validate where the loop stands, if it is time to; every process with the buffers of the first."""
        self._decide_current_val_interval()
        if self.runner.val_loop is None or not self._is_validation_due():
            return
        seed_everything(self.runner.seed, VALIDATION, self._iter)
        share_buffers(self.runner.model)
        self.runner.val_loop.run()


class IterBasedTrainLoop(_NumberedMixin, _IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, arguments included, with batches and random numbers by iteration.

    A resumed run goes on with the batch that was next and validates first if a kill prevented that.
    """

    def run(self) -> nn.Module:
        """Train; see :meth:`mmengine.runner.IterBasedTrainLoop.run`."""
        if not self.numbered:
            return super().run()
        self.runner.call_hook('before_train')
        self.begin_epoch()
        self.dataloader_iterator = self.dataloader.from_iteration(self._iter)
        if self.validation_pending:
            self.validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self.validate_if_due()
        self.dataloader_iterator.close()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _is_validation_due(self) -> bool:
        at_interval = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self._iter >= self.val_begin and at_interval


class EpochBasedTrainLoop(_NumberedMixin, _EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, arguments included, with batches and random numbers by iteration.

    A run that is resumed from the middle of an epoch goes on there.
    """

    def run(self) -> nn.Module:
        """Train; see :meth:`mmengine.runner.EpochBasedTrainLoop.run`."""
        if not self.numbered:
            return super().run()
        self.runner.call_hook('before_train')
        if self.validation_pending and self._iter == self.epoch_begin:
            self.validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.validate_if_due()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Run what is left of the epoch."""
        if not self.numbered:
            super().run_epoch()
            return
        self.begin_epoch()
        self.runner.model.train()
        done = self._iter - self.epoch_begin
        for index, batch in enumerate(self.dataloader.of_epoch(self._epoch, done), start=done):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.epoch_begin = self._iter

    def _is_validation_due(self) -> bool:
        at_interval = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return self._epoch >= self.val_begin and at_interval


def build_train_loader(
    dataloader: dict, seed: int, diff_rank_seed: bool, build: Callable[..., DataLoader]
) -> DataLoader:
    """Build a training's data loader, by a runner's ``build_dataloader``, as a function of the seed alone."""
    # A sampler without a seed draws one.
    seed_everything(seed, ORDER)
    return build(dataloader, seed=seed, diff_rank_seed=diff_rank_seed)


def replaced_loop(kind: type) -> type:
    """Return our form of mmengine's two loops, and every other class as it is."""
    ours: Sequence[type] = (IterBasedTrainLoop, EpochBasedTrainLoop)
    return next((loop for loop in ours if loop.__mro__[2] is kind), kind)
