"""mmengine's log histories in a checkpoint: real ones, made by their constructor from two arrays of numbers.

By itself a ``HistoryBuffer`` takes any attributes from the file, and new statistics for all its instances.
"""

from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from .plain import Name, NotDataError, short
from .unpickling import Unpickler

HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'


def _history(machine: Unpickler) -> HistoryBuffer:
    machine.spend(objects=1500)
    history = HistoryBuffer()

    def set_state(state: dict) -> None:
        values, counts, length = (state[name] for name in ('_log_history', '_count_history', 'max_length'))
        for array in (values, counts):
            if type(array) is not np.ndarray or array.ndim != 1 or array.dtype.kind not in 'biuf':
                raise NotDataError('it holds a log history that is not made of numbers.')
        if type(length) is not int or not len(values) == len(counts) <= length:
            raise ValueError('a log history is longer than it may be, or has other counts than values')
        machine.spend(copied=values.nbytes + counts.nbytes)
        history.__init__(values, counts, length)

    return machine.expect_state(history, set_state)


def _statistic(machine: Unpickler, owner: Any, name: str) -> Name:
    """Stands in for ``getattr``, by which a history names its statistics (mean, max); they stay those of the class."""
    if type(owner) is not Name or owner.text != HISTORY:
        raise NotDataError(f"it calls getattr for '{short(str(name))}'.")
    return Name(f'{HISTORY}.{short(str(name))}')


CALLS = {HISTORY: _history, 'builtins.getattr': _statistic}
