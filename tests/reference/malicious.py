"""A pickle that runs a command when it is unpickled, and leaves a trace."""

import os
from pathlib import Path

import torch


class Command:
    """Unpickles as the result of a shell command that makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f'touch {self.trace}',)


def save_malicious(path: Path, trace: Path, **kwargs) -> Path:
    """Write what looks like a checkpoint, with weights and a command."""
    weights = {'conv1.weight': torch.ones(4, 3, 7, 7)}
    torch.save(dict(meta=dict(epoch=1, iter=1, extra=Command(trace)), state_dict=weights), path, **kwargs)
    return path
