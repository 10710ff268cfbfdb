"""Small datasets on disk for the tests of the scan, and the tools as modules."""

import importlib.util
from pathlib import Path

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

ROOT = Path(__file__).parents[2]
CLASSES = ('a', 'b', 'c')


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_pair(root, stem, label, image_suffix='.png'):
    """Write an image of the label's size and the label, in ``root/img`` and ``root/ann``."""
    label = np.asarray(label)
    for folder in ('img', 'ann'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*label.shape[:2], 3), dtype=np.uint8)
    Image.fromarray(image).save(root / f'img/{stem}{image_suffix}')
    Image.fromarray(label).save(root / f'ann/{stem}.png')


def write_two_pairs(root):
    """Write two pairs of 4x6 with the labels 0 (12 pixels), 1 (6), 2 (4) and 255 (2) each."""
    label = np.repeat(np.array([0, 0, 1, 2], np.uint8), 6).reshape(4, 6)
    label[3, :2] = 255
    for stem in ('x', 'y'):
        write_pair(root, stem, label)
    return root


def dataset(root, cls=BaseSegDataset, **kwargs):
    # Serialising collects garbage, a third of a second each time.
    options = dict(img_suffix='.png', data_prefix=dict(img_path='img', seg_map_path='ann'), serialize_data=False)
    if cls is BaseSegDataset:
        options['metainfo'] = dict(classes=CLASSES)
    return cls(data_root=str(root), **{**options, **kwargs})
