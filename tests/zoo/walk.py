"""The configs that mmseg ships, and the models in them in which a class of ours stands in for mmseg's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mmseg
from mmengine.config import Config
from mmseg.registry import MODELS as MMSEG_MODELS

from mmseg_ext.registry import MODELS

from .shrink import RESNETS, shrink

ROOT = Path(mmseg.__file__).parent / '.mim' / 'configs'


@dataclass(frozen=True)
class ZooModel:
    """A shrunken model and the configs that it stands for, the shortest name first."""

    model: dict
    configs: tuple[str, ...]

    def __str__(self) -> str:
        return f'{len(self.configs)}x-{self.configs[0].removesuffix(".py")}'


@dataclass(frozen=True)
class Zoo:
    """All of mmseg's configs, by what can be done with them.

    Attributes:
        models: each different model once.
        foreign: configs in which no class is ours; those without a backbone (SAN), where only the loss is.
        unreadable: configs that mmengine can't load, with its error.
    """

    models: tuple[ZooModel, ...]
    foreign: tuple[str, ...]
    unreadable: dict[str, Exception]


def replaced() -> dict[str, type]:
    """Return our classes that carry the name of one of mmseg's."""
    MODELS.import_from_location()
    MMSEG_MODELS.import_from_location()
    return {name: kind for name, kind in MODELS.module_dict.items() if name in MMSEG_MODELS.module_dict}


def types(node) -> Iterator[str]:
    """Yield the ``type`` of every dict in a config."""
    if isinstance(node, dict):
        if isinstance(node.get('type'), str):
            yield node['type']
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from types(value)


def has_resnet(entry: ZooModel) -> bool:
    """Whether the backbone is, or holds, a ResNet or ResNeSt."""
    return not set(RESNETS).isdisjoint(types(entry.model['backbone']))


@cache
def zoo() -> Zoo:
    """Read all configs; takes some seconds, once a process."""
    ours = replaced()
    groups, foreign, unreadable = {}, [], {}
    for path in sorted(ROOT.rglob('*.py')):
        name = path.relative_to(ROOT).as_posix()
        if '_base_' in path.parts:
            continue
        try:
            model = Config.fromfile(path).model.to_dict()
        except ImportError as error:
            unreadable[name] = error
            continue
        if ours.keys().isdisjoint(types(model)) or 'backbone' not in model:
            foreign.append(name)
            continue
        model = shrink(model)
        groups.setdefault(json.dumps(model, sort_keys=True), (model, []))[1].append(name)
    models = (ZooModel(model, tuple(sorted(names, key=lambda n: (len(n), n)))) for model, names in groups.values())
    return Zoo(tuple(models), tuple(foreign), unreadable)
