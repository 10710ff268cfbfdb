"""One registry per mmseg registry, with scope ``mmseg_ext``.

Each is a child of mmengine's root registry, so that the prefix ``mmseg_ext.`` works from every scope (mmseg,
mmpretrain, none), and it falls back to mmseg's registry of the same kind, so that ``default_scope = 'mmseg_ext'`` turns
an mmseg config into one of ours: classes that we have replace mmseg's of the same name, all others are mmseg's.

Keep this module light: mmengine imports it when it meets the scope and swallows an ImportError raised in it.
"""

import mmseg.registry as mmseg_registry
from mmengine.registry import Registry


class FallbackRegistry(Registry):
    """A registry that looks for a name among its own classes, then in ``fallback``, and only then upwards.

    The other order would find mmcv's ``LoadAnnotations``, a root class, instead of mmseg's.
    """

    def __init__(self, fallback: Registry, locations: list[str]):
        super().__init__(fallback.name, parent=fallback.parent, scope='mmseg_ext', locations=locations)
        self.fallback = fallback

    def get(self, key: str):
        """Return the class registered under ``key``, or None; see :meth:`mmengine.registry.Registry.get`."""
        name = key.removeprefix(f'{self.scope}.') if isinstance(key, str) else key
        self.import_from_location()
        if isinstance(name, str) and '.' not in name and name not in self.module_dict:
            # mmseg's registry imports its own locations here, and looks in the root registry when it has no such name.
            return self.fallback.get(name)
        return super().get(name)


def _registry(name: str, *locations: str) -> FallbackRegistry:
    return FallbackRegistry(getattr(mmseg_registry, name), list(locations))


MODELS = _registry('MODELS', 'mmseg_ext.models')
MODEL_WRAPPERS = _registry('MODEL_WRAPPERS')
WEIGHT_INITIALIZERS = _registry('WEIGHT_INITIALIZERS')

DATASETS = _registry('DATASETS', 'mmseg_ext.datasets')
DATA_SAMPLERS = _registry('DATA_SAMPLERS')
TRANSFORMS = _registry('TRANSFORMS')

HOOKS = _registry('HOOKS', 'mmseg_ext.engine.hooks')
LOOPS = _registry('LOOPS')
RUNNERS = _registry('RUNNERS', 'mmseg_ext.engine.runner')
RUNNER_CONSTRUCTORS = _registry('RUNNER_CONSTRUCTORS')
LOG_PROCESSORS = _registry('LOG_PROCESSORS')

OPTIMIZERS = _registry('OPTIMIZERS')
OPTIM_WRAPPERS = _registry('OPTIM_WRAPPERS', 'mmseg_ext.engine.optim_wrapper')
OPTIM_WRAPPER_CONSTRUCTORS = _registry('OPTIM_WRAPPER_CONSTRUCTORS', 'mmseg_ext.engine.optim_wrapper_constructor')
PARAM_SCHEDULERS = _registry('PARAM_SCHEDULERS')

METRICS = _registry('METRICS', 'mmseg_ext.evaluation')
EVALUATOR = _registry('EVALUATOR')
TASK_UTILS = _registry('TASK_UTILS')
VISUALIZERS = _registry('VISUALIZERS')
VISBACKENDS = _registry('VISBACKENDS')
INFERENCERS = _registry('INFERENCERS')
