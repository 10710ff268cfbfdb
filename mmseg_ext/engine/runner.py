"""The runner behind our tools: mmengine's, but that a run survives being killed, and that no file is executed."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, master_only
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.hooks import Hook
from mmengine.registry import Registry
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner import Runner as _Runner
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from mmseg_ext.checkpoints import load_file, safe_loading
from mmseg_ext.files import written_whole
from mmseg_ext.registry import HOOKS, LOOPS, RUNNERS

from .distributed import has_accelerator, start_processes
from .hooks import CheckpointHook, TrainingStateHook
from .latest import latest_checkpoint
from .loops import replaced_loop
from .resume import Beginning
from .work_dir import held

_begun: set[str] = set()  # time stamps of this process' runs


@RUNNERS.register_module()
class Runner(_Runner):
    """mmengine's ``Runner``, all arguments included, with these differences.

    - Files are read without executing what they bring, and weights have to fit the model. What may miss is said by the
      config: ``allow_missing`` and ``allow_unexpected`` (lists of key prefixes), ``reset_head=True`` for fine-tuning
      with other classes.
    - A resumed run ends as one that was not interrupted (:mod:`.loops`, :mod:`.hooks.training_state_hook`), or goes on
      along a schedule that was changed. ``resume='auto'`` resumes what there is, else begins from ``load_from``.
    - Checkpoints are written whole and synced to the disk.
    - One training at a time in a work directory.
    - Distributed runs on CPUs.
    """

    def __init__(self, *args, **kwargs):
        self._beginning: Beginning | None = None
        self._has_read_own = False
        with safe_loading():
            super().__init__(*args, **kwargs)

    def setup_env(self, env_cfg: dict) -> None:
        """Set up the environment; without an accelerator, processes that torchrun started talk through gloo.

        Raises:
            ValueError: another launcher was asked for on a machine without an accelerator.
        """
        start_processes(self.launcher, env_cfg)
        super().setup_env(env_cfg)
        self._timestamp = self._unused_timestamp()

    def _unused_timestamp(self) -> str:
        """Return the time stamp, which names logs and message hub, in a form that no other run has."""
        stamp, number = self._timestamp, 0
        while stamp in _begun or Path(self.work_dir, stamp).exists():
            number += 1
            stamp = f'{self._timestamp}_{number}'
        stamps = [stamp]
        broadcast_object_list(stamps)
        _begun.add(stamps[0])
        return stamps[0]

    def set_randomness(self, *args, **kwargs) -> None:
        """Seed the run; the config that is kept with it says the seed that was drawn."""
        super().set_randomness(*args, **kwargs)
        self.cfg['randomness'] = dict(self._randomness_cfg, seed=self.seed)

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

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; ours in place of mmengine's two."""
        if isinstance(loop, dict) and not ('type' in loop and 'by_epoch' in loop):
            loop = dict(loop)
            by_epoch = loop.pop('by_epoch', False)
            if 'type' in loop:
                kind = _registered(LOOPS, loop)
            else:
                kind = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
            loop['type'] = replaced_loop(kind)
        return super().build_train_loop(loop)

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """Build the run's own visualizer: by its name in the config a process' second run would get its first run's."""
        if isinstance(visualizer, dict):
            visualizer = dict(visualizer, name=self.experiment_name)
        return super().build_visualizer(visualizer)

    def register_hooks(self, *args, **kwargs) -> None:
        """Register the hooks, and the one that keeps a training's state."""
        super().register_hooks(*args, **kwargs)
        self._state_hook = TrainingStateHook()
        self.register_hook(self._state_hook)

    def register_hook(self, hook: Hook | dict, priority: str | int | None = None) -> None:
        """Register a hook; our ``CheckpointHook`` in place of mmengine's, of which it keeps everything."""
        if isinstance(hook, dict) and _registered(HOOKS, hook) is _CheckpointHook:
            hook = dict(hook, type=CheckpointHook)
        super().register_hook(hook, priority)

    def train(self) -> nn.Module:
        """Train; alone in the work directory.

        Raises:
            BusyError: another training uses it.
            ValueError, FileNotFoundError: what :meth:`prepare` raises.
        """
        with held(self.work_dir) if self.rank == 0 else nullcontext(), safe_loading():
            self.prepare()
            return super().train()

    def val(self) -> dict:
        with safe_loading():
            return super().val()

    def test(self) -> dict:
        with safe_loading():
            return super().test()

    def prepare(self) -> None:
        """Decide which checkpoint to begin from, read it and compare it with the model; :meth:`train` does it too.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it can't be read, or doesn't fit the model, or is not of a training that could go on.
        """
        if self._has_loaded or self._beginning is not None:
            return
        if self._resume and (self._resume == 'auto' or self._load_from is None):
            latest = latest_checkpoint(self.work_dir, self.hooks)
            self._resume = latest is not None
            if latest is not None:
                self._load_from = latest
            else:
                begin = f'beginning from {self._load_from}' if self._load_from else 'beginning at iteration 1'
                self.logger.info(f'nothing to resume in {self.work_dir}: {begin}')
        self._resume = bool(self._resume)
        if self._load_from is None:
            return
        self._beginning = self._read(str(self._load_from))
        if self._resume:
            self._begin_resuming(self._beginning)

    def _read(self, source: str) -> Beginning:
        with safe_loading():
            beginning = Beginning.read(source)
        options = {name: self.cfg.get(name, ()) for name in ('allow_missing', 'allow_unexpected')}
        reset_head = bool(self.cfg.get('reset_head')) and not self._resume
        beginning.check_weights(self.model, reset_head=reset_head, **options)
        return beginning

    def _begin_resuming(self, beginning: Beginning) -> None:
        """Take over the seed, before anything is built with another, and compare the optimizers."""
        beginning.check_progress()
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        beginning.check_optimizer(self.optim_wrapper)
        self.logger.info(f'resuming from {beginning.source} at iteration {beginning.iteration}')
        seed, own = beginning.seed, self._randomness_cfg.get('seed')
        if seed in (None, own):
            return
        if own is not None:
            self.logger.warning(f'randomness.seed={own} is not used: the run in {beginning.source} has the seed {seed}')
        self._randomness_cfg = dict(self._randomness_cfg, seed=seed)
        self.set_randomness(**self._randomness_cfg)
        self.dump_config()

    def load_or_resume(self) -> None:
        """Load what :meth:`prepare` chose."""
        self.prepare()
        beginning, self._beginning = self._beginning, None
        if beginning is None or self._has_loaded:
            return
        if self._resume:
            beginning.resume(self, self._state_hook)
        else:
            beginning.load(self)
        self._has_loaded = True

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
    ) -> None:
        """Go on from a checkpoint; arguments as mmengine's, but that states go to where they are used."""
        self._resume, self._load_from = True, filename
        beginning = self._read(filename)
        self._begin_resuming(beginning)
        beginning.resume(self, self._state_hook, resume_optimizer, resume_param_scheduler)
        self._has_loaded = True

    def load_checkpoint(self, *args, **kwargs) -> dict:
        """Load weights as mmengine does, other keys and shapes included, but without executing the file."""
        with safe_loading():
            return super().load_checkpoint(*args, **kwargs)

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Write a checkpoint whole, synced to the disk.

        Raises:
            OSError: it can't be written; the message names the last good one.
        """
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif self.rank == 0:
            path = Path(out_dir, filename)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(path) as part:
                    super().save_checkpoint(str(part.parent), part.name, *args, **kwargs)
                self._see_that_it_can_be_read(path)
            except OSError as error:
                last = latest_checkpoint(self.work_dir, self.hooks)
                remedy = (
                    f'the last good one is {last}; make room and go on by --resume' if last else 'there is none yet'
                )
                raise OSError(error.errno, f'{error.strerror}: checkpoint {path} was not written, {remedy}') from error

    def _see_that_it_can_be_read(self, path: Path) -> None:
        """Read the first checkpoint of a run; warn now, and not when it is needed, where a reader of data can't."""
        if self._has_read_own:
            return
        self._has_read_own = True
        try:
            load_file(path)
        except ValueError as error:  # more than data, or beyond what a file may make
            self.logger.warning(
                f'this run can not be resumed as it is, a hook or the data set keeps what is no data: {error}'
            )

    @master_only
    def dump_config(self) -> None:
        """Write the config to the work directory, whole."""
        name = Path(self.cfg.filename).name if self.cfg.filename is not None else f'{self.timestamp}.py'
        with written_whole(Path(self.work_dir, name)) as part:
            self.cfg.dump(str(part))

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights in the checkpoint that :meth:`prepare` has read, until they are loaded."""
        return {} if self._beginning is None else self._beginning.content['state_dict']


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


def _registered(registry: Registry, cfg: Mapping[str, Any]) -> Any:
    """Return the class that the type of a config means, None if there is none of that name."""
    kind = cfg['type']
    if not isinstance(kind, str):
        return kind
    with registry.root.switch_scope_and_registry(cfg.get('_scope_')) as scoped:
        return scoped.get(kind)
