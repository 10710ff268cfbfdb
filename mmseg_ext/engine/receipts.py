"""What a checkpoint was made from, in a small JSON file beside it: ``best_mIoU_iter_N.json``.

Who gets the checkpoint can see the config, the seed, the versions and the metrics, and check that weights and data are
those: ``tools/test.py`` does.
"""

import functools
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.utils import is_list_of
from torch import Tensor

import mmseg_ext
from mmseg_ext.files import written_whole

FORMAT = 1
_PACKAGES = ('torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmsegmentation', 'mmpretrain')


def receipt_path(checkpoint: str | os.PathLike) -> Path:
    """Return where the receipt of a checkpoint lies."""
    return Path(checkpoint).with_suffix('.json')


@dataclass
class Receipt:
    """A receipt; ``content`` is what the file holds."""

    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_weights(cls, state_dict: Mapping[str, Tensor]) -> 'Receipt':
        """Begin a receipt with the hash of weights."""
        return cls(dict(format=FORMAT, weights=hash_weights(state_dict)))

    def complete(self, runner, metrics: Mapping[str, Any], data: Mapping[str, Any]) -> 'Receipt':
        """Add what else the run knows: its config, data, versions, and the metrics of this moment's validation."""
        self.content |= dict(
            iteration=runner.iter,
            epoch=runner.epoch,
            metrics={name: value for name, value in metrics.items() if isinstance(value, (int, float))},
            seed=runner.seed,
            processes=runner.world_size,
            data=dict(data),
            versions=_versions(),
            commit=_commit(),
            config=runner.cfg.pretty_text,
        )
        return self

    def compare(self, dataset: Any, metrics: Mapping[str, Any]) -> str:
        """Return what a test says of the metrics in the receipt; ``dataset`` is the test's."""
        if (self.content.get('data') or {}).get('val') != hash_data_list(dataset):
            return 'receipt: weights as recorded; this is other data than in the validation of the receipt'
        known = self.content.get('metrics') or {}
        other = {
            name: f'{known[name]:.4g}, now {value:.4g}'
            for name, value in metrics.items()
            if name in known and abs(known[name] - value) > 0.005
        }
        if other:
            return f'receipt: weights and data as recorded, but other metrics: {other}'
        return 'receipt: weights, data and metrics as recorded'

    def write(self, path: Path) -> None:
        with written_whole(path) as part:
            part.write_text(json.dumps(self.content, indent=1))

    @classmethod
    def read(cls, path: Path) -> 'Receipt':
        """Read a receipt.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            content = json.loads(path.read_text())
            if content['format'] == FORMAT and isinstance(content['weights'], str):
                return cls(content)
        except (KeyError, TypeError, ValueError):
            pass
        raise ValueError(f'{path} is no receipt of a checkpoint (format {FORMAT}); remove or rename it')


def verify_weights(checkpoint: str | os.PathLike, state_dict: Mapping[str, Tensor]) -> Receipt | None:
    """Compare weights with the receipt beside their file; return it, None where there is none.

    Raises:
        ValueError: the weights are not those of the receipt, or it is no receipt.
    """
    if '://' in str(checkpoint) or not receipt_path(checkpoint).is_file():
        return None
    path = receipt_path(checkpoint)
    receipt = Receipt.read(path)
    found = hash_weights(state_dict)
    if found != receipt.content['weights']:
        raise ValueError(
            f'checkpoint {checkpoint} has not the weights of its receipt {path}: their SHA-256 is {found[:16]}..., '
            f'there {receipt.content["weights"][:16]}.... One of the two was replaced; if you trust the checkpoint, '
            'remove the receipt'
        )
    return receipt


def hash_weights(state_dict: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights: of names, types, shapes and values, however the file stores them."""
    digest = hashlib.sha256()
    for name in sorted(name for name, value in state_dict.items() if isinstance(value, Tensor)):
        value = state_dict[name].detach().cpu().contiguous()
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        # Through bytes: numpy has no bfloat16.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_data(runner) -> dict[str, dict[str, Any] | None]:
    """Return :func:`hash_data_list` of a run's training and validation data."""
    loaders = dict(train=runner.train_dataloader, val=runner.val_dataloader)
    return {split: hash_data_list(loader.dataset) for split, loader in loaders.items()}


def hash_data_list(dataset: Any) -> dict[str, Any] | None:
    """Return the number of samples and the SHA-256 of the list of their files; None of a data set without a list.

    Files are named from the data root, so that the same data in another folder has the same hash.
    """
    if hasattr(dataset, 'times') and hasattr(dataset, 'dataset'):  # the same files so often
        inner = hash_data_list(dataset.dataset)
        return None if inner is None else dict(inner, samples=len(dataset))
    if not hasattr(dataset, 'get_data_info'):
        return None
    root = str(getattr(dataset, 'data_root', '') or '')
    digest = hashlib.sha256()
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        paths = [info.get('img_path'), info.get('seg_map_path')]
        paths = [path if is_list_of(path, str) else [str(path)] for path in paths if path is not None]
        names = [os.path.relpath(path, root) if root and path.startswith(root) else path for p in paths for path in p]
        digest.update('\t'.join(names).encode(errors='surrogateescape') + b'\n')
    return dict(samples=len(dataset), files=digest.hexdigest())


@functools.cache
def _versions() -> dict[str, str]:
    versions = {'mmseg_ext': mmseg_ext.__version__}
    for name in _PACKAGES:
        for distribution in (name, f'onedl-{name}'):
            try:
                versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    return versions


@functools.cache
def _commit() -> str | None:
    """Return the commit of this package's code, marked where files differ from it; None where it is no checkout."""
    folder = Path(mmseg_ext.__file__).parent
    command = ['git', '-C', str(folder), 'describe', '--always', '--dirty', '--abbrev=12']
    if not (folder.parent / '.git').exists():
        return None
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
