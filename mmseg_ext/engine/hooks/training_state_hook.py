"""What a checkpoint of mmengine leaves out of a training's state."""

from typing import Any

from mmengine.dist import get_dist_info, is_distributed
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop
from torch import Tensor, distributed

from mmseg_ext.registry import HOOKS

KEY = 'training_state'

# Hooks of mmengine with a state that they don't save.
_STATES = {EarlyStoppingHook: ('wait_count', 'best_score')}


@HOOKS.register_module()
class TrainingStateHook(Hook):
    """Save and restore, with each training checkpoint, what mmengine's has not; our ``Runner`` adds it to every run.

    That is: the state of early stopping, and of every hook with a ``state_dict`` and ``load_state_dict``; gradients
    that were accumulated and not yet applied, of each process; whether the training was stopped; and whether the
    validation that was due at this iteration is done.
    """

    priority = 'VERY_HIGH'

    def __init__(self):
        self._validated_at: int | None = None
        self._gradients: list[dict[str, Tensor]] = []

    def after_val(self, runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):
            self._validated_at = runner.iter

    def gather(self, runner) -> None:
        """Collect pending gradients in the first process; every process has to call this before one saves."""
        self._gradients = _pending_gradients(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if 'optimizer' not in checkpoint:
            return
        checkpoint[KEY] = dict(
            validated=self._validated_at == checkpoint['meta']['iter'],
            stopped=getattr(runner.train_loop, 'stop_training', False),
            hooks=[(type(hook).__name__, state) for hook in runner.hooks if (state := _state_of(hook)) is not None],
            gradients=self._gradients,
        )
        for state in _scheduler_states(checkpoint):
            # OneCycleLR keeps its function there, which a file must not bring.
            for name in [name for name, value in state.items() if callable(value)]:
                del state[name]

    def restore(self, runner, checkpoint: dict) -> list[str]:
        """Restore the state in a checkpoint; return what of it can't be, a clause each."""
        saved = checkpoint.get(KEY)
        if not isinstance(saved, dict):
            return []
        left = []
        loop = runner.train_loop
        loop.stop_training = saved['stopped'] is True
        loop.validation_pending = saved['validated'] is False
        if saved['validated'] is True:
            self._validated_at = checkpoint['meta']['iter']
        states = list(saved['hooks'])
        for hook in runner.hooks:
            mine = next((item for item in states if item[0] == type(hook).__name__), None)
            if mine is not None and _load_state(hook, mine[1]):
                states.remove(mine)
        left += [f'the state of {name}, which this config has not' for name, _ in states]
        rank, world_size = get_dist_info()
        gradients = saved['gradients']
        if len(gradients) not in (0, world_size):
            left.append(f'gradients accumulated by {len(gradients)} processes, now {world_size}')
        elif gradients:
            for name, parameter in _parameters(runner).items():
                if name in gradients[rank]:
                    parameter.grad = gradients[rank][name].to(parameter)
        return left


def _state_of(hook: Hook) -> dict[str, Any] | None:
    for kind, names in _STATES.items():
        if isinstance(hook, kind):
            return {name: getattr(hook, name) for name in names}
    if hasattr(hook, 'state_dict') and hasattr(hook, 'load_state_dict'):
        return hook.state_dict()
    return None


def _load_state(hook: Hook, state: dict[str, Any]) -> bool:
    """Restore a hook; return whether it is one that has a state."""
    for kind, names in _STATES.items():
        if isinstance(hook, kind):
            for name in names:
                if not isinstance(state[name], (int, float)):
                    raise ValueError(f'{name} of {type(hook).__name__} is {state[name]!r}')
                setattr(hook, name, state[name])
            return True
    if not hasattr(hook, 'load_state_dict'):
        return False
    hook.load_state_dict(state)
    return True


def _scheduler_states(checkpoint: dict) -> list[dict]:
    saved = checkpoint.get('param_schedulers') or []
    return [state for states in saved.values() for state in states] if isinstance(saved, dict) else saved


def _pending_gradients(runner) -> list[dict[str, Tensor]]:
    """Return the accumulated gradients of each process; nothing where every gradient has been applied."""
    if not any(_is_accumulating(wrapper) for wrapper in _wrappers(runner.optim_wrapper)):
        return []
    own = {
        name: parameter.grad.detach().cpu()
        for name, parameter in _parameters(runner).items()
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


def _wrappers(wrapper: BaseOptimWrapper) -> list[BaseOptimWrapper]:
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _parameters(runner) -> dict[str, Any]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return dict(model.named_parameters())
