"""Build the model of a config so that no file that it names is executed."""

from collections.abc import Mapping
from typing import Any

from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .mmengine_loader import safe_loading


def build_model(model: Mapping[str, Any], scope: str | None) -> nn.Module:
    """Build a model, with batch normalisation that runs in one process and on a CPU.

    Files that an ``init_cfg`` names at this point are read as data; ``init_weights()``, later, needs
    :func:`.mmengine_loader.safe_loading` around it.

    Args:
        model: ``cfg.model``, unchanged.
        scope: where its classes are looked for first: ``cfg.default_scope``; None: mmseg.
    """
    with DefaultScope.overwrite_default_scope(scope or 'mmseg'), safe_loading():
        return revert_sync_batchnorm(MODELS.build(model))
