"""What can only go wrong on a GPU. Elsewhere it is skipped, and can be rehearsed: MMSEG_EXT_GPU_TESTS_ON=cpu.

    python -m pytest -n 0 tests/gpu

A rehearsal runs every body that doesn't need CUDA itself, so that a failure on a GPU is the GPU's.
"""

import os

import pytest
import torch

from mmseg_ext.layers import measured, pyramid_conv, resampling, streamed_loss
from tests.models.head_parity import convolve_every_level_at_its_own_size

# cuBLAS reads it before its first product; without it, it refuses deterministic algorithms.
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')


@pytest.fixture(scope='session')
def device() -> torch.device:
    device = torch.device(os.environ.get('MMSEG_EXT_GPU_TESTS_ON', 'cuda'))
    if device.type == 'cuda' and not torch.cuda.is_available():
        pytest.skip(
            'torch.cuda.is_available() is False: these need a GPU; MMSEG_EXT_GPU_TESTS_ON=cpu rehearses them on a CPU'
        )
    return device


@pytest.fixture
def cuda(device) -> torch.device:
    if device.type != 'cuda':
        pytest.skip('what this looks at exists on a GPU only')
    return device


@pytest.fixture(autouse=True)
def _fresh(device, monkeypatch):
    """float32 is float32, and nothing has been measured."""
    monkeypatch.setattr(measured, '_choices', {})
    settings = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision('highest')
    yield
    torch.backends.cudnn.allow_tf32 = settings[0]
    torch.set_float32_matmul_precision(settings[1])


@pytest.fixture(params=['below', 'upsampled'])
def way(request, monkeypatch) -> str:
    """Every level of a pyramid is convolved below its upsampling, or none; else it would be measured."""
    if request.param == 'below':
        convolve_every_level_at_its_own_size(monkeypatch)
    monkeypatch.setattr(pyramid_conv, 'measured_choice', lambda *_: int(request.param == 'below'))
    return request.param


@pytest.fixture(params=['whole', 'tiles'])
def budget(request, device, monkeypatch) -> str:
    """Maps are resampled as a whole, or, being too large for that, in tiles."""
    if request.param == 'tiles':
        for name, value in dict(_TILE_BYTES=2**14, _CPU_TILE_BYTES=2**14, _TILE_COLUMNS=64).items():
            monkeypatch.setattr(resampling, name, value)
    elif device.type == 'cpu':
        for module in (resampling, streamed_loss):  # a CPU always takes tiles
            monkeypatch.setattr(module, 'fits_one_tile', lambda *_: True)
    return request.param
