"""Check a config's datasets, and that its heads have as many classes, before anything is trained.

Only the datasets inside wrappers are built, without their training pipelines.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmseg.datasets import BaseSegDataset
from torch import nn

from .dataset_problems import DatasetError, Problem, folder_problems, is_remote
from .scan import DatasetScan, scan_leaves

SPLITS = ('train', 'val', 'test')

# They predict something else than the dataset's classes. STDC's detail head: edges.
_OTHER_TARGETS = ('STDCHead',)


class Head(NamedTuple):
    """What a decode head says of its labels; ``key`` says where it is."""

    key: str
    kind: str
    num_classes: int | None
    ignore_index: int | None


@dataclass
class ConfigCheck:
    """What :func:`check_config` found. A dataset that two splits share is scanned once; ``scans`` has it twice."""

    scans: dict[str, DatasetScan] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was not checked, and why

    def raise_for_problems(self) -> None:
        """Raise a :class:`DatasetError` that lists the problems, if there are any."""
        if self.problems:
            raise DatasetError(self.problems)


class _ScannedSplit(NamedTuple):
    leaf_cfgs: list[dict]
    scan: DatasetScan


def check_config(cfg: Config, splits: tuple[str, ...] = SPLITS) -> ConfigCheck:
    """Scan the datasets of ``{split}_dataloader`` and compare the heads of ``model`` with their classes.

    Raises:
        KeyError: a dataset's type is not registered.
    """
    check, done = ConfigCheck(), []
    heads = list(config_heads(cfg.model)) if cfg.get('model') else []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmseg'):
        for split in splits:
            loader = cfg.get(f'{split}_dataloader')
            if not loader:
                continue
            leaves = list(leaf_configs(loader['dataset'], f'{split}_dataloader.dataset'))
            others = [leaf for _, leaf in leaves if not _is_seg_dataset(leaf)]
            if others:
                kinds = ', '.join(map(_type_name, others))
                check.notes.append(f'{split}: {kinds} is not built on BaseSegDataset, the split is not checked')
                continue
            leaves = [(key, light_config(leaf)) for key, leaf in leaves]
            leaf_cfgs = [leaf for _, leaf in leaves]
            same = next((scanned.scan for scanned in done if scanned.leaf_cfgs == leaf_cfgs), None)
            if same is not None:
                check.scans[split] = same
                continue
            missing = [problem for key, leaf in leaves for problem in _missing_folders(leaf, key)]
            if missing:
                check.problems += missing
                continue
            scan = scan_leaves([DATASETS.build(leaf) for leaf in leaf_cfgs], split)
            done.append(_ScannedSplit(leaf_cfgs, scan))
            check.scans[split] = scan
            check.problems += scan.problems + head_problems(heads, scan)
    return check


def leaf_configs(dataset_cfg: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Yield (key, config) of the datasets inside wrappers, or of the dataset itself."""
    if 'datasets' in dataset_cfg:
        for i, inner in enumerate(dataset_cfg['datasets']):
            yield from leaf_configs(inner, f'{key}.datasets[{i}]')
    elif 'dataset' in dataset_cfg:
        yield from leaf_configs(dataset_cfg['dataset'], f'{key}.dataset')
    else:
        yield key, dataset_cfg


def light_config(leaf: dict) -> dict:
    """Return a dataset's config with only the label loaders left of its pipeline, to be initialised later.

    A pipeline that loads no labels needs none, so their folder is then dropped too.
    """
    leaf = copy.deepcopy(leaf)
    leaf['lazy_init'] = True
    if leaf.get('pipeline'):
        leaf['pipeline'] = list(_label_loaders(leaf['pipeline']))
        if not leaf['pipeline'] and 'data_prefix' in leaf:
            leaf['data_prefix'].pop('seg_map_path', None)
    return leaf


def config_heads(model_cfg: dict) -> Iterator[Head]:
    """Yield the heads of a segmentor's config, also inside a test-time augmentation model."""
    key = 'model'
    while 'module' in model_cfg:
        model_cfg, key = model_cfg['module'], f'{key}.module'
    for name in ('decode_head', 'auxiliary_head'):
        found = model_cfg.get(name) or ()
        is_list = isinstance(found, (list, tuple))
        for i, head in enumerate(found if is_list else [found]):
            head_key = f'{key}.{name}[{i}]' if is_list else f'{key}.{name}'
            yield Head(head_key, _type_name(head), head.get('num_classes'), head.get('ignore_index', 255))


def module_heads(model: nn.Module) -> Iterator[Head]:
    """Yield the heads of a built segmentor, also inside a wrapper for distributed training or augmentation."""
    while hasattr(model, 'module'):
        model = model.module
    for name in ('decode_head', 'auxiliary_head'):
        found = getattr(model, name, None)
        is_list = isinstance(found, nn.ModuleList)
        for i, head in enumerate(found if is_list else [found] if found is not None else []):
            key = f'model.{name}[{i}]' if is_list else f'model.{name}'
            kind = type(head).__name__
            yield Head(key, kind, getattr(head, 'num_classes', None), getattr(head, 'ignore_index', None))


def head_problems(heads: list[Head], scan: DatasetScan) -> list[Problem]:
    """Return a problem for each head whose classes or ignored label are not those of the scanned dataset."""
    problems, num_classes = [], len(scan.classes)
    for head in heads:
        if head.num_classes is None or head.kind in _OTHER_TARGETS or not num_classes:
            continue
        if head.num_classes != num_classes:
            found = f'num_classes={head.num_classes}, but the {scan.name} dataset has {num_classes} classes'
            remedy = f'set num_classes={num_classes} in every head'
            if num_classes == 2:
                remedy += ' (out_channels=1 beside it gives the binary form)'
            problems.append(Problem('class count', f'{head.key} ({head.kind})', found, remedy))
        if scan.ignored_pixels and head.ignore_index not in (None, scan.ignore_index):
            found = (
                f'ignore_index={head.ignore_index}, but {scan.ignored_pixels} pixels of the {scan.name} dataset are '
                f'labelled {scan.ignore_index}, which it ignores'
            )
            remedy = f'set ignore_index={scan.ignore_index} in every head, or the same ignore_index in the dataset'
            problems.append(Problem('ignored label', f'{head.key} ({head.kind})', found, remedy))
    return problems


def _missing_folders(leaf: dict, key: str) -> list[Problem]:
    root = leaf.get('data_root')
    if is_remote(root, leaf.get('backend_args')):
        return []
    return folder_problems(root, leaf.get('data_prefix', {}), leaf.get('ann_file', ''), key)


def _is_seg_dataset(leaf: dict) -> bool:
    with DATASETS.switch_scope_and_registry(leaf.get('_scope_')) as registry:
        kind = leaf['type']
        cls = registry.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        raise KeyError(f'dataset type {kind!r} is not registered; is the module that defines it in custom_imports?')
    return issubclass(cls, BaseSegDataset)


def _type_name(cfg: dict) -> str:
    kind = cfg['type']
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__


def _label_loaders(pipeline) -> Iterator[dict]:
    for step in pipeline:
        if isinstance(step, (list, tuple)):
            yield from _label_loaders(step)
        elif isinstance(step, dict):
            if 'Annotation' in _type_name(step):
                yield step
            else:
                yield from _label_loaders(step.get('transforms') or ())
