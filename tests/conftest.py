"""What every test gets: warnings of the stacks silenced, a scope and a random state of its own."""

import os

import matplotlib
import pytest
import torch
from mmengine.registry import DefaultScope

import mmseg_ext  # noqa: F401
from benchmarks.quick_config_text import leave_config_texts_unformatted

# Tests run in one process a core (pytest-xdist), on nets too small to share.
torch.set_num_threads(1)

leave_config_texts_unformatted()

# Before tests get other cache folders: matplotlib would read all fonts anew in each process.
os.environ.setdefault('MPLCONFIGDIR', matplotlib.get_cachedir())


@pytest.fixture(autouse=True)
def _isolated(tmp_path, monkeypatch):
    """Give each test its own cache folder, random seed and default scope (which is global to the process)."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    torch.manual_seed(0)
    scopes = DefaultScope._instance_dict.copy()
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
