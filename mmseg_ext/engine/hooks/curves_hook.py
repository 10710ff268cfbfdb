"""Draw the training curves while a run goes on."""

from mmengine.dist import master_only
from mmengine.hooks import Hook

from mmseg_ext.registry import HOOKS
from mmseg_ext.visualization import plot_curves


@HOOKS.register_module()
class CurvesHook(Hook):
    """Keep ``curves.png`` in the work directory up to date: after every validation and at the end."""

    priority = 'VERY_LOW'  # after LoggerHook has written the values

    @master_only
    def after_val_epoch(self, runner, metrics=None) -> None:
        if runner._train_loop is not None:
            plot_curves(runner.work_dir)

    @master_only
    def after_train(self, runner) -> None:
        plot_curves(runner.work_dir)
