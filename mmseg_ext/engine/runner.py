"""The runner behind our tools: mmengine's, with checkpoints written whole and loaded without executing them."""

import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner as _Runner

from mmseg_ext.registry import RUNNERS


@RUNNERS.register_module()
class Runner(_Runner):
    """mmengine's ``Runner`` with safer checkpoints; all arguments are its."""

    def load_checkpoint(self, *args, **kwargs) -> dict:
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


def build_runner(cfg: Config) -> _Runner:
    """Build the runner that ``cfg.runner_type`` names, ours where it names none."""
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def adapt_to_device(cfg: Config) -> None:
    """On a machine without an accelerator: gloo instead of nccl, and BN instead of SyncBN in distributed runs."""
    if torch.accelerator.is_available() if hasattr(torch, 'accelerator') else torch.cuda.is_available():
        return
    env_cfg = cfg.setdefault('env_cfg', {})
    if env_cfg.setdefault('dist_cfg', {}).get('backend', 'nccl') == 'nccl':
        env_cfg['dist_cfg']['backend'] = 'gloo'
    if cfg.get('launcher', 'none') != 'none':
        _replace_sync_bn(cfg.model)


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
