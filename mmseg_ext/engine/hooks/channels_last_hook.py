"""Train with the channels innermost in memory."""

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmseg_ext.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Put the model's weights into channels_last, which its activations then follow.

    Half precision is faster so, on a CPU with bfloat16 units and on tensor cores. Values, checkpoints and optimizer
    states stay the same. On a CPU, depthwise convolutions with dilation keep the channels outermost: in channels_last
    and bfloat16, oneDNN (torch 2.14.1) makes the gradients of their weights of whatever lies in memory, nan included,
    where the features are wider than some 20 pixels.
    """

    # Before anything sees the weights, and once they are loaded.
    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        runner.model.to(memory_format=torch.channels_last)
        for module in runner.model.modules():
            if _is_dilated_depthwise(module) and module.weight.device.type == 'cpu':
                # contiguous() would leave it: with one channel a filter, both layouts count as contiguous.
                module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)
                module.register_forward_pre_hook(_channels_first)


def _is_dilated_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and max(module.dilation) > 1


def _channels_first(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].contiguous()
