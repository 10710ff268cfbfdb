"""Models with the channels innermost in memory, without oneDNN's errors there."""

import torch
from torch import Tensor, nn


def to_channels_last(model: nn.Module) -> None:
    """Put the weights of a model that is to be trained into channels_last, which its activations then follow.

    Values and names stay the same. On a CPU two kinds of convolution keep the channels outermost, as oneDNN (torch
    2.14.1) computes the gradients of their weights wrongly otherwise:

    - depthwise with dilation: in bfloat16, of whatever lies in memory, nan included, where the features are wider than
      some 20 pixels;
    - 1x1 with a stride, of fewer than 16 channels (8 without AVX512): it writes beyond its workspace, and the process
      dies (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.device.type == 'cpu' and _is_unsafe(module):
            # contiguous() would leave some: with one channel a filter, both layouts count as contiguous.
            module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)
            module.register_forward_pre_hook(_channels_first)


def _is_unsafe(conv: nn.Conv2d) -> bool:
    dilated_depthwise = conv.groups == conv.in_channels > 1 and max(conv.dilation) > 1
    narrow_strided = conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.in_channels < 16
    return dilated_depthwise or narrow_strided


def _channels_first(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].contiguous()
