"""The runner behind our tools: mmengine's, with checkpoints written whole and loaded without executing them."""

import atexit
import gc
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner as _Runner
from mmengine.visualization import Visualizer
from torch import nn

from mmseg_ext.checkpoints import safe_loading
from mmseg_ext.registry import RUNNERS


@RUNNERS.register_module()
class Runner(_Runner):
    """mmengine's ``Runner`` with safer checkpoints, distributed runs on CPUs, and loaders that need no workers.

    All arguments are its.
    """

    def setup_env(self, env_cfg: dict) -> None:
        """Set up the environment; without an accelerator, processes that torchrun started talk through gloo.

        Raises:
            ValueError: another launcher was asked for on a machine without an accelerator.
        """
        if self.distributed and not has_accelerator() and not torch.distributed.is_initialized():
            if self.launcher != 'pytorch':
                raise ValueError(
                    f'launcher={self.launcher!r} needs an accelerator; on CPUs start torchrun with --launcher pytorch'
                )
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)
        if self.distributed:
            # Threads of a process group that still run when the interpreter has ended abort the process.
            atexit.register(_leave_process_group)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.distributed and not has_accelerator():
            # mmengine would name a GPU for each process.
            model_wrapper_cfg = dict(
                dict(
                    type='MMDistributedDataParallel',
                    broadcast_buffers=False,
                    find_unused_parameters=self.cfg.get('find_unused_parameters', False),
                ),
                **(model_wrapper_cfg or {}),
                device_ids=None,
            )
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(dataloader, *args, **kwargs) -> torch.utils.data.DataLoader:
        """Build a data loader; with ``num_workers=0`` there are no workers to persist, and torch would refuse to."""
        if isinstance(dataloader, dict) and not dataloader.get('num_workers'):
            dataloader = dict(dataloader, persistent_workers=False)
        return _Runner.build_dataloader(dataloader, *args, **kwargs)

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """Build the run's own visualizer: by its name in the config a process' second run would get its first run's."""
        if isinstance(visualizer, dict):
            visualizer = dict(visualizer, name=self.experiment_name)
        return super().build_visualizer(visualizer)

    def load_checkpoint(self, *args, **kwargs) -> dict:
        with safe_loading():
            checkpoint = super().load_checkpoint(*args, **kwargs)
        # mmengine's resume() would execute this entry as Python code to read a number of GPUs from it.
        checkpoint.get('meta', {}).pop('config', None)
        return checkpoint

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Write the file beside its place and move it there, so that a kill never leaves half a checkpoint."""
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        part = f'{filename}.part'
        super().save_checkpoint(out_dir, part, *args, **kwargs)
        if self.rank == 0:
            os.replace(Path(out_dir, part), Path(out_dir, filename))


def _leave_process_group() -> None:
    if torch.distributed.is_initialized():
        # A group's threads end with the last reference to it. The wrapped model has one, and cycles hold the model.
        gc.collect()
        torch.distributed.destroy_process_group()


def has_accelerator() -> bool:
    """Whether mmengine will run on something other than the CPU."""
    return get_device() != 'cpu'


def build_runner(cfg: Config) -> _Runner:
    """Build the runner that ``cfg.runner_type`` names, ours where it names none.

    On a CPU, a distributed run takes BN for SyncBN, which needs an accelerator to synchronise.
    """
    if not has_accelerator() and cfg.get('launcher', 'none') != 'none':
        _replace_sync_bn(cfg.model)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def _replace_sync_bn(node) -> None:
    if isinstance(node, dict):
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
        for value in node.values():
            _replace_sync_bn(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _replace_sync_bn(value)


def enable_amp(cfg: Config) -> None:
    """Make the config train in mixed precision: float16 with loss scaling on a GPU, bfloat16 on a CPU.

    Raises:
        ValueError: the config's optimizer wrapper is of a type that has no mixed-precision form.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'mmseg_ext.AmpOptimWrapper'):
        raise ValueError(f"--amp: optim_wrapper.type={kind!r} has no mixed-precision form; it needs 'OptimWrapper'")
    cfg.optim_wrapper['type'] = 'mmseg_ext.AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def find_latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """Return the training checkpoint (``iter_N.pth`` or ``epoch_N.pth``) with the largest N, or None."""
    found = [path for kind in ('iter', 'epoch') for path in Path(work_dir).glob(f'{kind}_*.pth')]
    found = [path for path in found if path.stem.split('_')[1].isdigit()]
    return max(found, key=lambda path: int(path.stem.split('_')[1]), default=None)
