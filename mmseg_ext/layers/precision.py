"""Exact float32 products, whatever the user's settings."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply matrices in their own dtype: no autocast, and neither TF32 nor bfloat16 for float32, whatever is set.

    An interpolation is a product with a matrix here; torch's own interpolation is not rounded by those settings.
    """
    # Before torch 2.9 the settings are not per operator; there they are left alone.
    settings = [s for s in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul) if hasattr(s, 'fp32_precision')]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = 'ieee'
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
