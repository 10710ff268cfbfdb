"""What a checkpoint of mmengine leaves out of a training's state."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import ConfigDict
from mmengine.dist import get_dist_info, is_distributed
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, BaseOptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch import Tensor, distributed

from mmseg_ext.engine.distributed import share_buffers
from mmseg_ext.registry import HOOKS

KEY = 'training_state'

# Hooks of mmengine with a state that they don't save, and with settings that decide what it means.
_STATES = {EarlyStoppingHook: ('wait_count', 'best_score')}
_SETTINGS = {EarlyStoppingHook: ('monitor', 'rule', 'min_delta', 'patience', 'stopping_threshold')}


@HOOKS.register_module()
class TrainingStateHook(Hook):
    """Save and restore, with each training checkpoint, what mmengine's has not; our ``Runner`` adds it to every run.

    That is: the state of early stopping, and of every hook with a ``state_dict`` and ``load_state_dict``; gradients
    that were accumulated and not yet applied, of each process; how far an epoch is; whether the training was stopped;
    and whether the validation that was due at this iteration is done.

    What hooks of a lower priority than ``CheckpointHook`` change after an iteration is not part of its checkpoint.
    """

    priority = 'VERY_HIGH'

    def __init__(self):
        self._validated_at: int | None = None
        self._gradients: list[dict[str, Tensor]] = []

    def after_val(self, runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):
            self._validated_at = runner.iter

    def gather(self, runner) -> None:
        """Collect pending gradients, of every process, in the first."""
        self._gradients = _pending_gradients(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        for name in ('meta', 'message_hub'):
            checkpoint[name] = _without_config_dicts(checkpoint[name])
        if 'optimizer' not in checkpoint:
            return
        if not is_distributed():
            self.gather(runner)
        meta, loop = checkpoint['meta'], runner.train_loop
        checkpoint[KEY] = dict(
            validated=self._validated_at == meta['iter'],
            stopped=getattr(loop, 'stop_training', False),
            optimizers=[type(wrapper.optimizer).__name__ for wrapper in wrappers(runner.optim_wrapper)],
            counts=[getattr(wrapper, '_inner_count', 0) for wrapper in wrappers(runner.optim_wrapper)],
            hooks=_without_config_dicts(
                [(type(hook).__name__, state) for hook in runner.hooks if (state := _state_of(hook)) is not None]
            ),
            gradients=self._gradients,
            **_place_in_epoch(loop, meta),
        )
        for state in _scheduler_states(checkpoint):
            # OneCycleLR keeps its function there, which a file must not bring.
            for name in [name for name, value in state.items() if callable(value)]:
                del state[name]

    def restore(self, runner, checkpoint: dict) -> list[str]:
        """Restore the state in a checkpoint; return what is not as it was, a clause each."""
        saved, loop = checkpoint.get(KEY), runner.train_loop
        if not isinstance(saved, dict):
            _enter_epoch(loop, None, None)
            return []
        left = _enter_epoch(loop, saved.get('epoch_done'), saved.get('epoch_length'))
        loop.validation_pending = saved['validated'] is False
        if saved['validated'] is True:
            self._validated_at = checkpoint['meta']['iter']
        states = list(saved['hooks'])
        loop.stop_training = saved['stopped'] is True
        for hook in runner.hooks:
            mine = next((item for item in states if item[0] == type(hook).__name__), None)
            if mine is not None and _load_state(hook, mine[1]):
                states.remove(mine)
        left += [f'the state of {name}, which this config has not' for name, _ in states]
        if loop.stop_training:
            left.append(self._about_stop(runner, saved['hooks']))
        for wrapper, count in zip(wrappers(runner.optim_wrapper), saved['counts'], strict=True):
            wrapper._inner_count = int(count)
        rank, world_size = get_dist_info()
        gradients = saved['gradients']
        if len(gradients) not in (0, world_size):
            left.append(f'gradients accumulated by {len(gradients)} processes, now {world_size}')
        elif gradients:
            for name, (parameter, scale) in _scaled_parameters(runner).items():
                if name in gradients[rank]:
                    parameter.grad = gradients[rank][name].to(parameter) * scale
        return left

    def _about_stop(self, runner, states: list) -> str:
        """Say that the training had been stopped early, and let it go on where its criterion is another one now."""
        before = [state['settings'] for _, state in states if isinstance(state, dict) and 'settings' in state]
        now = [_settings_of(hook) for hook in runner.hooks if _settings_of(hook)]
        if before and before != now:
            runner.train_loop.stop_training = False
            return (
                f'the stop at iteration {runner.iter}, as early stopping has other settings now: the training goes on'
            )
        return (
            f'the training, which was stopped early at iteration {runner.iter}; to go on change the patience of '
            'EarlyStoppingHook, or remove the hook'
        )


def share_state(runner) -> None:
    """Bring together what the first process saves for all; every process calls this before that one saves."""
    if not is_distributed():
        return
    share_buffers(runner.model)
    for hook in runner.hooks:
        if isinstance(hook, TrainingStateHook):
            hook.gather(runner)


def wrappers(wrapper: BaseOptimWrapper) -> list[BaseOptimWrapper]:
    """Return the optimizer wrappers of a run."""
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _place_in_epoch(loop: BaseLoop, meta: dict) -> dict[str, int]:
    if not isinstance(loop, EpochBasedTrainLoop) or not hasattr(loop, 'epoch_begin'):
        return {}
    done = meta['iter'] - loop.epoch_begin if meta['epoch'] == loop.epoch else 0
    return dict(epoch_done=done, epoch_length=len(loop.dataloader))


def _enter_epoch(loop: BaseLoop, done: int | None, length: int | None) -> list[str]:
    """Tell an epoch-based loop how much of the epoch is done; return a clause if that can't be kept."""
    if not isinstance(loop, EpochBasedTrainLoop):
        return []
    now = len(loop.dataloader)
    if done is None:  # a checkpoint of mmengine
        done, length = loop.iter - loop.epoch * now, now
    clauses = []
    if done == length:
        done = now
    elif (length != now and done) or not 0 <= done <= now:
        clauses = [f'the place in epoch {loop.epoch + 1}, which has {now} batches now: it begins anew']
        done = 0
    loop.epoch_begin = loop.iter - done
    loop._max_iters = loop.epoch_begin + (loop.max_epochs - loop.epoch) * now
    return clauses


def _settings_of(hook: Hook) -> dict[str, Any]:
    return {
        name: getattr(hook, name, None) for kind, names in _SETTINGS.items() if isinstance(hook, kind) for name in names
    }


def _has_own_state(hook: Hook) -> bool:
    return hasattr(hook, 'state_dict') and hasattr(hook, 'load_state_dict')


def _state_of(hook: Hook) -> dict[str, Any] | None:
    if _has_own_state(hook):
        return hook.state_dict()
    for kind, names in _STATES.items():
        if isinstance(hook, kind):
            return dict({name: getattr(hook, name) for name in names}, settings=_settings_of(hook))
    return None


def _load_state(hook: Hook, state: dict[str, Any]) -> bool:
    """Restore a hook; return whether it is one that has a state."""
    if _has_own_state(hook):
        hook.load_state_dict(state)
        return True
    for kind, names in _STATES.items():
        if isinstance(hook, kind):
            for name in names:
                if not isinstance(state[name], (int, float)):
                    raise ValueError(f'{name} of {type(hook).__name__} is {state[name]!r}')
                setattr(hook, name, state[name])
            return True
    return False


def _scheduler_states(checkpoint: dict) -> list[dict]:
    saved = checkpoint.get('param_schedulers') or []
    return [state for states in saved.values() for state in states] if isinstance(saved, dict) else saved


def _without_config_dicts(value: Any) -> Any:
    """Return nested containers with plain dicts for those of a config, which are no data for a reader of files."""
    if isinstance(value, dict):
        items = {key: _without_config_dicts(item) for key, item in value.items()}
        return items if isinstance(value, ConfigDict) or type(value) is dict else type(value)(items)
    if type(value) in (list, tuple):
        return type(value)(_without_config_dicts(item) for item in value)
    return value


def _pending_gradients(runner) -> list[dict[str, Tensor]]:
    """Return the accumulated gradients of each process; nothing where every gradient has been applied."""
    if not any(_is_accumulating(wrapper) for wrapper in wrappers(runner.optim_wrapper)):
        return []
    own = {
        name: (parameter.grad.detach() / scale).cpu()
        for name, (parameter, scale) in _scaled_parameters(runner).items()
        if parameter.grad is not None
    }
    if not is_distributed():
        return [own]
    rank, world_size = get_dist_info()
    gathered = [None] * world_size if rank == 0 else None
    distributed.gather_object(own, gathered, dst=0)
    return gathered or []


def _is_accumulating(wrapper: BaseOptimWrapper) -> bool:
    return getattr(wrapper, '_accumulative_counts', 1) > 1 and not wrapper.should_update()


def _scaled_parameters(runner) -> dict[str, tuple[Any, float]]:
    """Return the parameters by name, each with the factor by which its gradient is scaled."""
    scales = {}
    for wrapper in wrappers(runner.optim_wrapper):
        is_scaled = isinstance(wrapper, AmpOptimWrapper) and wrapper.loss_scaler.is_enabled()
        scale = wrapper.loss_scaler.get_scale() if is_scaled else 1.0
        scales |= dict(_ids(wrapper, scale))
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return {name: (parameter, scales.get(id(parameter), 1.0)) for name, parameter in model.named_parameters()}


def _ids(wrapper: BaseOptimWrapper, scale: float) -> Iterator[tuple[int, float]]:
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            yield id(parameter), scale
