"""Train with the channels innermost in memory."""

import torch
from mmengine.hooks import Hook

from mmseg_ext.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Put the model's weights into channels_last, which its activations then follow.

    Half precision is faster so, on a CPU with bfloat16 units and on tensor cores. Values, checkpoints and optimizer
    states stay the same.
    """

    # Before anything sees the weights, and once they are loaded.
    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        runner.model.to(memory_format=torch.channels_last)
