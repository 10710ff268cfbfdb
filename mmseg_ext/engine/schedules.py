"""Schedules of the learning rate when a run goes on: as they were, or along changed ones."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from mmengine.optim import BaseOptimWrapper, _ParamScheduler

# Arguments of schedulers that say how far one is, or how it talks; not what it does.
_NO_SETTINGS = {'self', 'optimizer', 'last_step', 'verbose'}


def values_of(optim_wrapper: BaseOptimWrapper) -> list[dict[str, Any]]:
    """Return learning rates and the like of an optimizer's parameter groups."""
    return [{key: value for key, value in group.items() if key != 'params'} for group in optim_wrapper.param_groups]


def changes(schedulers: Sequence[_ParamScheduler], states: Sequence[dict[str, Any]]) -> list[str]:
    """Return what differs between newly built schedulers and the saved ``state_dict`` of others, a clause each."""
    if len(schedulers) != len(states):
        return [f'{len(states)} schedulers, now {len(schedulers)}']
    return [
        f'{type(scheduler).__name__}.{key} {_short(state.get(key))}, now {_short(value)}'
        for scheduler, state in zip(schedulers, states, strict=True)
        for key, value in scheduler.state_dict().items()
        if key in _settings(scheduler) and state.get(key) != value
    ]


def restore(schedulers: Sequence[_ParamScheduler], states: Sequence[dict[str, Any]]) -> None:
    """Bring schedulers to where saved ones, with the same settings, were."""
    for scheduler, state in zip(schedulers, states, strict=False):
        own = scheduler.state_dict()
        # OneCycleLR has a function among its values, which no file can bring.
        known = {key for key, value in own.items() if not callable(value)}
        scheduler.load_state_dict({key: value for key, value in state.items() if key in known and own[key] != value})


def follow(
    schedulers: Sequence[_ParamScheduler],
    initial: Sequence[dict[str, Any]],
    iterations: int,
    epochs: int,
    epoch_length: int | None,
) -> None:
    """Bring new schedulers, and the values that they schedule, to where they would be after so many iterations.

    Args:
        schedulers: as they were built, all for one optimizer whose state was loaded since.
        initial: the optimizer's :func:`values_of` from before that.
        iterations: number of iterations done.
        epochs: number of epochs that were ended.
        epoch_length: iterations of an epoch; None where the loop has none.
    """
    scheduled = {scheduler.param_name for scheduler in schedulers}
    for group, values in zip(schedulers[0].optimizer.param_groups, initial, strict=True):
        # initial_lr, max_lr and the like are the schedulers' own notes.
        group.update({key: value for key, value in values.items() if key.split('_')[-1] in scheduled})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that no optimizer steps in between
        for iteration in range(1, iterations + 1):
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            if epoch_length and iteration % epoch_length == 0 and iteration // epoch_length <= epochs:
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()


def waits_for_metrics(scheduler: _ParamScheduler) -> bool:
    """Whether a scheduler goes by what validations have found, so that it can't be followed without them."""
    return getattr(scheduler, 'need_val_args', False)


def ends_before(schedulers: Sequence[_ParamScheduler], iterations: int) -> int | None:
    """Return where the last schedule ends, if that is before the training does; None if not, or if it counts epochs."""
    ends = [scheduler.end for scheduler in schedulers]
    if not ends or any(scheduler.by_epoch for scheduler in schedulers) or max(ends) >= iterations:
        return None
    return max(ends)


def _settings(scheduler: _ParamScheduler) -> set[str]:
    names = {'base_values'}
    for kind in type(scheduler).__mro__:
        if '__init__' in vars(kind) and kind is not object:
            names |= set(inspect.signature(kind.__init__).parameters)
    return names - _NO_SETTINGS


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
