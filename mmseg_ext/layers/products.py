"""Products of float32 matrices that are computed in float32.

An interpolation can be a product with a matrix; torch's own interpolation is not rounded by the settings for products.
These belong to the user and to the whole process: they are read here, never changed.
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


def may_multiply(*maps: Tensor) -> bool:
    """Whether products with dense matrices do for maps what sums of few of their numbers do.

    On a CPU, where neither TF32 nor bfloat16 takes float32's place in products, and everything is finite: a product
    with one of a dense matrix' zeros is nan otherwise. On accelerators, where looking means waiting, never.
    """
    return torch.backends.mkldnn.matmul.fp32_precision in ('none', 'ieee') and all(
        x.device.type == 'cpu' and bool(x.isfinite().all()) for x in maps
    )


def without_autocast(function: Callable) -> Callable:
    """Decorate a function that multiplies: autocast, which holds for a thread, is off in it."""

    @wraps(function)
    def run(*args, **kwargs):
        # A new one for each call: it keeps what it returns to, and calls are nested.
        with torch.autocast('cpu', enabled=False):
            return function(*args, **kwargs)

    return run
