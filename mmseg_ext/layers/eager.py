"""Where a layer may run a pass written by hand, and where it must be made of plain operators."""

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor
from torch.autograd import forward_ad


def is_eager(*tensors: Tensor | None) -> bool:
    """Whether operators run one by one, on plain tensors in memory, with nothing but backward passes to come.

    If not, somebody else looks at the operators: a compiler, an exporter or a trace (``torch.jit.trace``, ONNX),
    ``torch.func``'s transforms and forward-mode derivatives, or a kind of tensor that has its own (fake, distributed,
    quantised, on the meta device). A hand-written autograd function, a result filled in place, or a choice by size
    would be wrong or unseen there.

    Args:
        tensors: what the layer computes with; None where there is none.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return False
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    return all(
        type(tensor) in (Tensor, nn.Parameter)
        and not tensor.is_meta
        # In a backward pass for a batch of gradients no transform is active.
        and not is_functorch_wrapped_tensor(tensor)
        and not is_legacy_batchedtensor(tensor)
        for tensor in given
    )
