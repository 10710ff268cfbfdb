"""Several processes: their group on CPUs, and what one of them does while the others wait."""

import atexit
import gc
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast, get_rank, init_dist, is_distributed
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn

Result = TypeVar('Result')

# How long processes wait for the first one: a cold scan of a large data set may take hours.
_PATIENCE = timedelta(days=7)


class FirstProcessError(ValueError):
    """What the first process did for all has failed."""


def has_accelerator() -> bool:
    """Whether mmengine will run on something other than the CPU."""
    return get_device() != 'cpu'


def start_processes(launcher: str, env_cfg: dict[str, Any]) -> None:
    """Start the process group of a launcher, as mmengine does; on CPUs too.

    Args:
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi'; only the first two on CPUs.
        env_cfg: of the config. Its ``dist_cfg`` has ``backend`` and other arguments of
            ``torch.distributed.init_process_group``, ``timeout`` in seconds; on CPUs the backend is gloo where it names
            one of accelerators.

    Raises:
        ValueError: the launcher needs an accelerator.
    """
    if launcher == 'none' or is_distributed():
        return
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    dist_cfg = env_cfg.get('dist_cfg', {})
    if has_accelerator():
        init_dist(launcher, **dist_cfg)
    else:
        _start_on_cpus(launcher, dist_cfg)
    # Threads of a process group that still run when the interpreter has ended abort the process.
    atexit.register(_leave)


def _start_on_cpus(launcher: str, dist_cfg: dict[str, Any]) -> None:
    if launcher != 'pytorch':
        raise ValueError(f'launcher={launcher!r} needs an accelerator; on CPUs start torchrun with --launcher pytorch')
    options = {name: value for name, value in dist_cfg.items() if name != 'init_backend'}
    if options.get('backend') not in ('gloo', 'mpi'):
        options['backend'] = 'gloo'
    if options.get('timeout') is not None:
        options['timeout'] = timedelta(seconds=options['timeout'])
    torch.distributed.init_process_group(**options)


def _leave() -> None:
    if torch.distributed.is_initialized():
        # A group's threads end with the last reference to it. The wrapped model has one, and cycles hold the model.
        gc.collect()
        torch.distributed.destroy_process_group()


def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's buffers: running statistics differ, and checkpoints hold the first's."""
    if is_distributed():
        for buffer in model.buffers():
            broadcast(buffer)


def on_first_process(work: Callable[[], Result]) -> Result | None:
    """Do something in the first process while the others wait, however long; return its result there, None elsewhere.

    Not with the time-out of the process group, which is meant for training steps. Where the work fails, all fail.

    Raises:
        FirstProcessError: in the other processes, with the message of what was raised in the first.
    """
    if not is_distributed():
        return work()
    group = torch.distributed.new_group(backend='gloo', timeout=_PATIENCE)
    result, error = None, None
    if get_rank() == 0:
        try:
            result = work()
        except Exception as raised:
            error = raised
    message = [None if error is None else f'{type(error).__name__}: {error}']
    torch.distributed.broadcast_object_list(message, src=0, group=group)
    torch.distributed.destroy_process_group(group)
    if error is not None:
        raise error
    if message[0] is not None:
        raise FirstProcessError(f'the first process stopped: {message[0]}')
    return result
