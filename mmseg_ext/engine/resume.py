"""What a run begins from: the weights in a checkpoint, or the whole state of a training that goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmseg_ext.checkpoints import check_fit, load_weights, tensors_of

from . import schedules
from .fast_form import unwrapped
from .hooks.training_state_hook import KEY, TrainingStateHook, wrappers
from .optim_wrapper import without_idle_scaler

# Settings that optimizers have in one version of torch and not in another.
_OPTIONAL = {'maximize', 'foreach', 'capturable', 'differentiable', 'fused', 'decoupled_weight_decay'}
_LIKE_WEIGHTS = ('momentum_buffer', 'exp_avg', 'exp_avg_sq')


@dataclass
class Beginning:
    """A checkpoint that was read: where from, and what it holds."""

    source: str
    content: dict[str, Any]

    @classmethod
    def read(cls, source: str) -> 'Beginning':
        """Read a checkpoint from a path or address; inside of ``safe_loading``.

        Raises:
            FileNotFoundError, ValueError, ConnectionError: it isn't there, can't be read or holds no weights.
        """
        content = CheckpointLoader.load_checkpoint(source, map_location='cpu')
        weights = tensors_of(content, f'checkpoint {source}')
        if not isinstance(content.get('state_dict'), Mapping):
            content = dict(meta=content.get('meta'))
        return cls(source, dict(content, state_dict=weights))

    @property
    def meta(self) -> dict[str, Any]:
        meta = self.content.get('meta')
        return meta if isinstance(meta, dict) else {}

    @property
    def iteration(self) -> int:
        return self.meta['iter']

    @property
    def seed(self) -> int | None:
        seed = self.meta.get('seed')
        return seed if type(seed) is int and seed >= 0 else None

    def check_weights(
        self,
        model: nn.Module,
        *,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
        reset_head: bool = False,
    ) -> None:
        """Compare the weights with those of a model, and remember what may miss.

        Raises:
            ValueError: they don't fit.
        """
        self._fit = dict(allow_missing=allow_missing, allow_unexpected=allow_unexpected, reset_head=reset_head)
        check_fit(unwrapped(model), self.content['state_dict'], self.source, **self._fit)

    def check_progress(self) -> None:
        """See whether this is a training that can go on.

        Raises:
            ValueError: it is not.
        """
        missing = [
            f'meta.{name}'
            for name in ('iter', 'epoch')
            if not (type(self.meta.get(name)) is int and self.meta[name] >= 0)
        ]
        if not isinstance(self.content.get('optimizer'), dict):
            missing.append('optimizer')
        if missing:
            raise ValueError(
                f'checkpoint {self.source} is not of a training that can go on: it has no {" and no ".join(missing)}. '
                'To begin a new training from its weights use --load-from (load_from in the config) instead of --resume'
            )

    def check_optimizer(self, optim_wrapper: BaseOptimWrapper) -> None:
        """Compare the saved optimizer with the one of this run.

        Raises:
            ValueError: they differ in what can't be carried over.
        """
        state = self.content.get(KEY)
        kinds = state.get('optimizers') if isinstance(state, dict) else None
        own = [type(wrapper.optimizer).__name__ for wrapper in wrappers(optim_wrapper)]
        for name, wrapper, saved in _pairs(optim_wrapper, self.content['optimizer']):
            problem = _optimizer_problem(wrapper, saved)
            if kinds is not None and kinds != own:
                problem = f'it is {", ".join(map(str, kinds))}, not {", ".join(own)}'
            if problem:
                raise ValueError(
                    f'checkpoint {self.source}: its optimizer{name} is not that of the config: {problem}. Resume with '
                    'the config that it was trained with, or begin a new training from its weights with --load-from'
                )

    def load(self, runner) -> None:
        """Load the weights into the runner's model."""
        runner.call_hook('after_load_checkpoint', checkpoint=self.content)
        load_weights(unwrapped(runner.model), self.content['state_dict'], self.source, **self._fit)

    def resume(
        self, runner, state_hook: TrainingStateHook, optimizer: bool = True, param_scheduler: bool = True
    ) -> None:
        """Bring a runner, all of it built, to where the checkpoint's was.

        Nothing in the file decides what is executed, and its config is not looked at.

        Raises:
            ValueError: the state is damaged, or of another kind of training.
        """
        self.load(runner)
        try:
            self._restore(runner, state_hook, optimizer, param_scheduler)
        except (LookupError, TypeError, AttributeError, ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(
                f'checkpoint {self.source}: its training state does not fit the run ({type(error).__name__}: {error}). '
                'To begin a new training from its weights use --load-from instead of --resume'
            ) from error

    def _restore(self, runner, state_hook: TrainingStateHook, optimizer: bool, param_scheduler: bool) -> None:
        loop = runner.train_loop
        loop._epoch, loop._iter = self.meta['epoch'], self.meta['iter']
        self._compare_classes(runner)
        hub = self.content.get('message_hub')
        if isinstance(hub, dict):
            runner.message_hub.load_state_dict(hub)
        if optimizer:
            self._resume_optimizer(runner, param_scheduler)
        for clause in state_hook.restore(runner, self.content):
            runner.logger.warning(f'not as it was: {clause}')
        runner.logger.info(f'resumed epoch: {runner.epoch}, iter: {runner.iter}')
        if runner.iter >= runner.max_iters:
            runner.logger.info(
                f'this training has ended, after {runner.iter} iterations; to train longer raise train_cfg and the end '
                'of param_scheduler'
            )

    def _resume_optimizer(self, runner, param_scheduler: bool) -> None:
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)  # if they aren't yet
        all_states = self.content.get('param_schedulers')
        for name, wrapper, saved in _pairs(runner.optim_wrapper, self.content['optimizer']):
            own, states = runner.param_schedulers, all_states
            if name:
                own = own.get(name.strip()) if isinstance(own, dict) else own
                states = states.get(name.strip()) if isinstance(states, dict) else states
            initial = schedules.values_of(wrapper)
            wrapper.load_state_dict(without_idle_scaler(saved))
            if param_scheduler:
                self._resume_schedules(runner, wrapper, own or [], states or [], initial)

    def _resume_schedules(self, runner, wrapper, own: list, states: list, initial: list[dict]) -> None:
        changed = schedules.changes(own, states)
        scheduled = {scheduler.param_name for scheduler in own}
        names = ({'lr'} - scheduled) | (set() if scheduled & {'momentum', 'betas'} else {'momentum', 'betas'})
        for group, values in zip(wrapper.param_groups, initial, strict=True):
            for name in sorted(names & values.keys() & group.keys()):
                if group[name] != values[name]:
                    changed.append(f'{name} {group[name]}, now {values[name]}')
                    group[name] = values[name]
        changed = list(dict.fromkeys(changed))
        if not changed:
            schedules.restore(own, states)
        elif any(schedules.waits_for_metrics(scheduler) for scheduler in own):
            schedules.restore(own, states)
            runner.logger.warning(
                f'the schedule has changed ({"; ".join(changed)}) but goes by validations, which are not repeated: it '
                "goes on as the checkpoint's"
            )
        else:
            if own:
                epoch_length = (
                    len(runner.train_dataloader) if isinstance(runner.train_loop, EpochBasedTrainLoop) else None
                )
                schedules.follow(own, initial, runner.iter, runner.epoch, epoch_length)
            runner.logger.warning(
                f'the schedule has changed ({"; ".join(changed)}): iteration {runner.iter + 1} goes on along the new '
                f'one, with learning rate {wrapper.param_groups[0]["lr"]:.4g}'
            )
        end = schedules.ends_before(own, runner.max_iters)
        if end is not None:
            runner.logger.warning(
                f'the last schedule ends at iteration {end}, the training at {runner.max_iters}: from there on values '
                f'stay as they are; for a longer schedule raise the end of param_scheduler to {runner.max_iters}'
            )

    def _compare_classes(self, runner) -> None:
        saved = self.meta.get('dataset_meta')
        own = getattr(runner.train_dataloader.dataset, 'metainfo', None)
        before, now = (tuple((info or {}).get('classes') or ()) for info in (saved, own))
        if before and now and before != now:
            runner.logger.warning(f'the classes of the checkpoint are {before}, those of the data set {now}')


def _pairs(optim_wrapper: BaseOptimWrapper, saved: dict) -> list[tuple[str, BaseOptimWrapper, dict]]:
    """Return the optimizers of a run, each with a name for messages and its saved state."""
    if not isinstance(optim_wrapper, OptimWrapperDict):
        return [('', optim_wrapper, saved)]
    return [(f' {name}', wrapper, saved.get(name) or {}) for name, wrapper in optim_wrapper.items()]


def _optimizer_problem(wrapper: BaseOptimWrapper, saved: dict) -> str:
    optimizer = wrapper.optimizer
    groups = saved.get('param_groups')
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return 'it has no param_groups'
    own_sizes = [len(group['params']) for group in optimizer.param_groups]
    sizes = [len(group.get('params', ())) for group in groups]
    if sizes != own_sizes:
        return (
            f'it has {len(sizes)} groups of {sum(sizes)} parameters, that of the config {len(own_sizes)} of '
            f'{sum(own_sizes)}'
        )
    missing = set(optimizer.defaults) - set(groups[0]) - _OPTIONAL if groups else set()
    if missing:
        return f'it has no {", ".join(sorted(missing))}, as {type(optimizer).__name__} has'
    # Schedulers note initial_lr, max_momentum and the like, and a momentum for betas.
    names = {name for name in groups[0] if not name.endswith(('lr', 'momentum'))}
    strange = names - set(optimizer.param_groups[0]) - _OPTIONAL
    if strange:
        return f'it has {", ".join(sorted(strange))}, as {type(optimizer).__name__} has not'
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    names = [name for group in groups for name in group['params']]
    for name, parameter in zip(names, parameters, strict=True):
        state = (saved.get('state') or {}).get(name) or {}
        for key in _LIKE_WEIGHTS:
            value = state.get(key)
            if value is not None and value.shape != parameter.shape:
                return f'{key} of parameter {name} is {tuple(value.shape)}, the parameter {tuple(parameter.shape)}'
    return ''
