"""A run's log, and data samples with random labels."""

import pytest
import torch
from mmengine.logging import MMLogger

from .samples import CLASSES, make_sample


@pytest.fixture
def log(tmp_path):
    """The log file of a run that goes on."""
    path = tmp_path / 'run' / 'run.log'
    path.parent.mkdir()
    MMLogger.get_instance('run', log_file=str(path))
    yield path
    MMLogger._instance_dict.pop('run')


@pytest.fixture
def samples() -> list[dict]:
    """Images of several sizes; 255 and other values beside the classes; the last class in none of them."""
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([*range(len(CLASSES) - 1), 255, len(CLASSES), 200])
    return [
        make_sample(f'image{i}', *(values[torch.randint(len(values), (20 + i, 30), generator=generator)] for _ in 'pl'))
        for i in range(3)
    ]
