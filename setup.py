"""Packaging of mmseg_ext. Neither stack is a requirement: installing the plugin never changes the one you have."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'", (ROOT / 'mmseg_ext/__init__.py').read_text()).group(1)

setup(
    name='mmseg_ext',
    version=VERSION,
    description='Atrous and split-attention segmentation models for mmsegmentation, exact, cheaper and easy to install',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['mmseg_ext', 'mmseg_ext.*']),
    python_requires='>=3.10',
    install_requires=['packaging'],
    extras_require={
        'onedl': [
            'torch>=2.10.0',
            'onedl-mmengine>=0.10.12,<1.0',
            'onedl-mmcv>=2.3.6,<2.4',
            'onedl-mmsegmentation>=1.4.2,<1.5',
            'onedl-mmpretrain>=1.3.6,<1.4',
        ],
        'openmmlab': [
            'torch>=2.10.0',
            'mmengine>=0.10.7,<1.0',
            'mmcv>=2.1.0,<2.2',
            'mmsegmentation>=1.2.2,<1.3',
            'mmpretrain>=1.2.0,<1.3',
            'ftfy',
            'regex',
            'setuptools<80',
        ],
        'crf': ['pydensecrf2'],
        'tests': [
            'pytest',
            'pytest-xdist',
            'hypothesis',
            'ruff',
            'timm',
            'resnest',
            'safetensors',
            # Its C++, written by an old Cython, does not compile on Python 3.13.
            'pydensecrf2; python_version < "3.13"',
            'onnx',
            'onnxruntime',
            'onnxscript',
        ],
    },
)
