"""One live line on a terminal: where a long run is, and when it ends."""

import sys
import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from mmseg_ext.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Rewrite one line of a terminal with iteration, loss and remaining time; silent when output goes to a file.

    Args:
        interval: seconds between updates.
    """

    priority = 'VERY_HIGH'  # before LoggerHook, whose lines then overwrite this one

    def __init__(self, interval: float = 0.5):
        self.interval = interval
        self._shown = 0.0
        self._start: dict[str, tuple[float, int]] = {}

    def _show(self, mode: str, done: int, total: int, loss: Tensor | None = None) -> None:
        now = time.monotonic()
        if mode not in self._start or done < self._start[mode][1]:
            self._start[mode] = (now, done)
        if not sys.stdout.isatty() or not is_main_process() or (now - self._shown < self.interval and done < total):
            return
        self._shown = now
        text = '' if loss is None else f'  loss {loss.item():.4f}'
        start, first = self._start[mode]
        rate = (now - start) / (done - first) if done > first else None
        left = '--:--' if rate is None else _clock(rate * (total - done))
        # Erase the line, write, and return to its start, so that whatever is printed next replaces it.
        print(f'\r\x1b[K{mode} {done}/{total}{text}  ETA {left}', end='\r', flush=True)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._show('train', runner.iter + 1, runner.max_iters, (outputs or {}).get('loss'))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._show('val', batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._show('test', batch_idx + 1, len(runner.test_dataloader))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
