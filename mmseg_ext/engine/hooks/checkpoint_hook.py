"""Checkpoints that survive a kill at any moment."""

import os.path as osp
import re
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio.backends import BaseStorageBackend
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.runner import BaseLoop

from mmseg_ext.engine.latest import number_pattern
from mmseg_ext.engine.receipts import Receipt, hash_data, receipt_path
from mmseg_ext.files import remove_parts, written_whole
from mmseg_ext.registry import HOOKS

from .training_state_hook import share_state

# Seconds after which a part of a file is nobody's.
_STALE = 24 * 3600


class _DeferredRemoval:
    """A storage backend whose removals wait for ``flush``."""

    def __init__(self, backend: BaseStorageBackend):
        self._backend = backend
        self.waiting: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.waiting.append(path)

    def flush(self, keep: set[str]) -> None:
        for path in self.waiting:
            if path not in keep and self._backend.isfile(path):
                self._backend.remove(path)
        self.waiting.clear()


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """mmengine's ``CheckpointHook``, arguments included, whose files survive a kill at any moment.

    - An old file goes only when the new one is written; mmengine's removes first. What a kill has left to remove is
      removed by the resumed run.
    - The state after a validation is saved once all hooks have seen its metrics, so that a resumed run neither repeats
      a finished validation nor leaves out one that was due.
    - What a checkpoint says of other files counts if it lies in this training's folder, and for files there that are
      not newer: mmengine's removes the "best checkpoint" that the file it resumes from names, whatever that is.
    - The best checkpoint has a receipt (:mod:`mmseg_ext.engine.receipts`).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._saved_step: int | None = None  # of the newest training checkpoint
        self._in_validation = self._save_due = False
        self._left_over: list[str] = []
        self._receipt: Receipt | None = None
        self._data: dict[str, Any] | None = None  # hashes of the run's data lists

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the newest checkpoint, and the names of the files that go once it is written."""
        return dict(step=self._saved_step, removals=[osp.basename(path) for path in self.file_backend.waiting])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved_step = state['step'] if type(state['step']) is int else None
        self._left_over = [name for name in state['removals'] if self._number(name) is not None]

    def before_train(self, runner) -> None:
        hub = runner.message_hub
        known = hub.runtime_info.get('keep_ckpt_ids')
        hub.pop_info('keep_ckpt_ids')  # until it is known whether they are of this folder
        super().before_train(runner)
        is_own = self._is_resumed_from_own_folder(runner)
        self._take_over_best(hub, is_own)
        self.file_backend = _DeferredRemoval(self.file_backend)
        if is_own and self.max_keep_ckpts > 0:
            self._take_over_kept(known, self._step(runner))
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        if is_own:
            names = [name for name in self._left_over if self._number(name) <= self._step(runner)]
            self.file_backend.waiting += [self.file_backend.join_path(self.out_dir, name) for name in names]
        self._flush()
        if is_main_process() and '://' not in self.out_dir:
            # Others may write there too.
            remove_parts(self.out_dir, age=_STALE)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._in_validation:
            self._receipt = Receipt.of_weights(checkpoint['state_dict'])

    def _save_best_checkpoint(self, runner, metrics) -> None:
        before = set(self._best())
        self._in_validation = True
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self._in_validation = False
        if is_main_process():
            for path in (path for path in self._best() if path not in before and '://' not in path):
                if self._data is None:
                    self._data = hash_data(runner)
                self._receipt.complete(runner, metrics, self._data).write(receipt_path(path))

    def after_val(self, runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            return
        step = self._step(runner)
        if self._save_due or self._saved_step == step:
            self._save_checkpoint_with_step(runner, step, meta=dict(epoch=runner.epoch, iter=runner.iter))
        self._save_due = False
        self._flush()

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        if self._in_validation:
            # mmengine's asks for it before the hooks of lower priority have seen the metrics.
            self._save_due = True
            return
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts and is_main_process():
                self._remove_step(self.keep_ckpt_ids[0])
            self.keep_ckpt_ids.append(step)  # a deque: the oldest leaves
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        last = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', last)
        self._saved_step = step
        share_state(runner)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self.last_ckpt = last
        if is_main_process():
            with written_whole(Path(runner.work_dir, 'last_checkpoint')) as part:
                part.write_text(last)
            self._flush()

    def _remove_step(self, step: int) -> None:
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if self.file_backend.isdir(path):
            self.file_backend.rmtree(path)  # checkpoints saved by deepspeed are folders
        else:
            self.file_backend.remove(path)

    def _flush(self) -> None:
        if not is_main_process():
            return
        removed = [
            path for path in self.file_backend.waiting if osp.basename(path).startswith('best_') and '://' not in path
        ]
        self.file_backend.waiting += [str(receipt_path(path)) for path in removed]
        kept = [self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(i)) for i in self._kept_steps()]
        best = self._best()
        self.file_backend.flush(keep={self.last_ckpt, *kept, *best, *(str(receipt_path(path)) for path in best)})

    def _kept_steps(self) -> list[int]:
        return list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []

    def _best(self) -> list[str]:
        paths = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        return [path for path in paths if path]

    def _step(self, runner) -> int:
        return runner.epoch if self.by_epoch else runner.iter

    def _number(self, name: Any) -> int | None:
        """Return the number in the name of a file that this hook writes, None for other names."""
        if not isinstance(name, str) or name != osp.basename(name):
            return None
        pattern = number_pattern(self.filename_tmpl)
        found = re.fullmatch(pattern, name) or re.fullmatch(f'best_.+_{pattern}', name)
        return int(found[1]) if found else None

    def _is_resumed_from_own_folder(self, runner) -> bool:
        if not runner._resume:
            return False
        source = runner._load_from  # None: mmengine has looked in the work directory
        return source is None or osp.realpath(osp.dirname(source)) == osp.realpath(self.out_dir)

    def _take_over_kept(self, steps: Any, newest: int) -> None:
        steps = [step for step in steps if type(step) is int and step <= newest] if isinstance(steps, list) else []
        while len(steps) > self.max_keep_ckpts:
            step = steps.pop(0)
            if is_main_process():
                self._remove_step(step)
        self.keep_ckpt_ids.extend(steps)

    def _take_over_best(self, hub, is_own: bool) -> None:
        """Look for the best checkpoint by its name in this training's folder; that of another folder stays there."""

        def own(path: Any) -> str | None:
            name = osp.basename(path) if isinstance(path, str) else None
            if not is_own or self._number(name) is None:
                return None
            return self.file_backend.join_path(self.out_dir, name)

        for name, score in list(hub.runtime_info.items()):
            if name.startswith('best_score') and not isinstance(score, (int, float)):
                hub.pop_info(name)
        if getattr(self, 'best_ckpt_path', None) is not None:
            self.best_ckpt_path = own(self.best_ckpt_path)
            hub.update_info('best_ckpt', self.best_ckpt_path)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            if path is not None:
                self.best_ckpt_path_dict[key] = own(path)
                hub.update_info(f'best_ckpt_{key}', self.best_ckpt_path_dict[key])
