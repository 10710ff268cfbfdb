"""A tiny data set in the Cityscapes layout, and the options that shrink the PSPNet config to it."""

import importlib.util
from pathlib import Path

import pytest

from mmseg_ext import visualization
from mmseg_ext.engine.hooks import curves_hook
from mmseg_ext.evaluation import iou_metric
from mmseg_ext.street_scenes import write_street_scenes

ROOT = Path(__file__).parents[2]
SIZE = (64, 128)
# Makes a ResNet-18 with PSPHead and auxiliary FCNHead narrow, in a config of ours or mmseg's.
NARROW = {
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'model.decode_head.in_channels': 64,
    'model.decode_head.channels': 16,
    'model.auxiliary_head.in_channels': 32,
    'model.auxiliary_head.channels': 8,
}


def load_tool(name: str):
    """Import tools/NAME.py, which is no package."""
    spec = importlib.util.spec_from_file_location(f'tools_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Runs draw no curves and confusion matrices, which take longer than a tiny training."""
    monkeypatch.setattr(curves_hook, 'plot_curves', lambda *_: None)
    monkeypatch.setattr(iou_metric, 'draw_confusion', lambda *_: None)


@pytest.fixture
def pictures(without_pictures, monkeypatch):
    """Runs draw them all the same."""
    monkeypatch.setattr(curves_hook, 'plot_curves', visualization.plot_curves)
    monkeypatch.setattr(iou_metric, 'draw_confusion', visualization.draw_confusion)


@pytest.fixture(scope='session')
def street_scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'street_scenes'
    write_street_scenes(folder, num_train=4, num_val=3, size=SIZE, workers=1)
    return folder


@pytest.fixture
def options(street_scenes) -> list[str]:
    """Arguments that make a mmseg-like Cityscapes config run in seconds: narrow net, small images, two iterations."""
    height, width = SIZE
    values = {
        'train_dataloader.dataset.data_root': street_scenes,
        'val_dataloader.dataset.data_root': street_scenes,
        'test_dataloader.dataset.data_root': street_scenes,
        'train_dataloader.dataset.pipeline.2.scale': f'({width},{height})',
        'train_dataloader.dataset.pipeline.3.crop_size': f'({height},{width})',
        'val_dataloader.dataset.pipeline.1.scale': f'({width},{height})',
        'test_dataloader.dataset.pipeline.1.scale': f'({width},{height})',
        'train_dataloader.num_workers': 0,
        'val_dataloader.num_workers': 0,
        'test_dataloader.num_workers': 0,
        'model.data_preprocessor.size': f'({height},{width})',
        'model.backbone.init_cfg': None,
        **NARROW,
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.logger.interval': 1,
        'randomness.seed': 0,
    }
    return ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]
