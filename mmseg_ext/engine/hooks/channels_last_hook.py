"""Train with the channels innermost in memory."""

from mmengine.hooks import Hook

from mmseg_ext.engine.channels_last import to_channels_last
from mmseg_ext.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Put the model into channels_last (:func:`mmseg_ext.engine.channels_last.to_channels_last`).

    Half precision is faster so, on a CPU with bfloat16 units and on tensor cores. Values, checkpoints and optimizer
    states stay the same.
    """

    # Before anything sees the weights, and once they are loaded.
    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        to_channels_last(runner.model)
