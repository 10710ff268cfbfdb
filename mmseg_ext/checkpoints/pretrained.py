"""``init_cfg=dict(type='Pretrained', ...)`` that is safe and complete, in every scope and every process."""

from mmengine.model import PretrainedInit
from mmengine.model.weight_init import update_init_info

from .coverage import load_pretrained


class PretrainedMixin:
    """Gives a ``BaseModule`` our reading of ``init_cfg=dict(type='Pretrained', ...)``; put it in front of that base.

    The options are those of :func:`.coverage.load_pretrained`: ``checkpoint`` and, if need be, ``prefix``,
    ``allow_missing``, ``map_location``. mmengine would build its own initializer from the root registry, in whatever
    scope; that one unpickles the file and goes on when weights are missing. All other kinds of ``init_cfg`` stay with
    mmengine, and run first, as they do there.
    """

    def init_weights(self) -> None:
        """Initialise the weights; raises what :func:`.coverage.load_pretrained` raises."""
        init_cfg = self.init_cfg or []
        cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
        pretrained = [cfg for cfg in cfgs if cfg['type'] in ('Pretrained', PretrainedInit)]
        if self.is_init or not pretrained:
            super().init_weights()
            return
        self.init_cfg = [cfg for cfg in cfgs if cfg not in pretrained]
        try:
            super().init_weights()
        finally:
            self.init_cfg = init_cfg
        for cfg in pretrained:
            load_pretrained(self, **{name: value for name, value in cfg.items() if name != 'type'})
            if hasattr(self, '_params_init_info'):
                update_init_info(self, init_info=f'Pretrained: load from {cfg["checkpoint"]}')
