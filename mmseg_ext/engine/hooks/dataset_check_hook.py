"""The scan of the annotations as a hook, for training that is started by other tools than ours."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmseg_ext.datasets.config_check import head_problems, module_heads
from mmseg_ext.datasets.dataset_problems import DatasetError
from mmseg_ext.datasets.scan import scan_dataset
from mmseg_ext.engine.distributed import on_first_process
from mmseg_ext.registry import HOOKS


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Scans the datasets that a run uses before its first iteration, in the first process; the others wait for it.

    ``custom_hooks = [dict(type='mmseg_ext.DatasetCheckHook')]``. What was scanned before is known from the cache.
    """

    def before_run(self, runner: Runner) -> None:
        """Scan the datasets of the loops that the runner has built, and compare the model's heads with them.

        Raises:
            DatasetError: lists what is wrong; in the other processes of a distributed run
                FirstProcessError.
        """
        on_first_process(lambda: self._scan(runner))

    def _scan(self, runner: Runner) -> None:
        loops = {'train': runner._train_loop, 'val': runner._val_loop, 'test': runner._test_loop}
        heads, problems = list(module_heads(runner.model)), []
        for split, loop in loops.items():
            if not isinstance(loop, BaseLoop):
                continue
            scan = scan_dataset(loop.dataloader.dataset, split)
            for line in (scan.summary(), *scan.notes):
                runner.logger.info(line)
            problems += scan.problems + head_problems(heads, scan)
        if problems:
            raise DatasetError(problems)
