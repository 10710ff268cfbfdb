"""Mixed-precision training that also runs on a CPU."""

from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as _AmpOptimWrapper
from mmengine.optim import OptimWrapper

from mmseg_ext.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(_AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper``, which refuses CPUs; on one, this trains in bfloat16 without loss scaling.

    bfloat16 has float32's range of exponents, so gradients do not underflow and nothing needs scaling. On every other
    device this is mmengine's class, arguments included. Checkpoints move between the two.

    Raises:
        ValueError: ``dtype`` on a CPU is neither None nor bfloat16.
    """

    def __init__(self, loss_scale='dynamic', dtype: str | torch.dtype | None = None, use_fsdp: bool = False, **kwargs):
        if get_device() != 'cpu':
            super().__init__(loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise ValueError(f"AmpOptimWrapper: dtype={dtype!r} does not work on a CPU; use 'bfloat16' or leave it out")
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an optimizer and, where one has scaled the loss, of its scaler."""
        super().load_state_dict(without_idle_scaler(state_dict))


def without_idle_scaler(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer wrapper without that of a scaler that was not used, which none can load."""
    return {key: value for key, value in state_dict.items() if key != 'loss_scaler' or value}
