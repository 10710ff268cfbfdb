"""Checkpoints that survive a kill at any moment."""

from mmengine.fileio.backends import BaseStorageBackend
from mmengine.hooks import CheckpointHook as _CheckpointHook

from mmseg_ext.registry import HOOKS


class _DeferredRemoval:
    """A storage backend whose removals wait for ``flush``."""

    def __init__(self, backend: BaseStorageBackend):
        self._backend = backend
        self._removed: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._removed.append(path)

    def flush(self, keep: set[str]) -> None:
        for path in self._removed:
            if path not in keep and self._backend.isfile(path):
                self._backend.remove(path)
        self._removed.clear()


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """mmengine's ``CheckpointHook``, except that an old file goes only when the new one is written.

    mmengine's removes first, so that a kill (or a full disk) in between leaves no checkpoint.
    """

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend = _DeferredRemoval(self.file_backend)

    def _flush(self) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        self.file_backend.flush(keep={self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best})

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._flush()

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._flush()
