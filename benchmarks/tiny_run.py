"""A training of a second that has everything a long one has: random augmentation, dropout, batch norm, EMA, early
stopping, accumulated gradients, a schedule, validation and checkpoints.

    python -m benchmarks.tiny_run WORK_DIR [KEY=VALUE ...]      # prints the hash of the final state
"""

import copy
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from mmseg_ext.checkpoints import load_file
from mmseg_ext.engine.receipts import hash_weights
from mmseg_ext.engine.runner import Runner
from mmseg_ext.registry import DATASETS, METRICS, MODELS

ITERATIONS = 12


@DATASETS.register_module()
class TinyPoints(Dataset):
    """Eleven points with a random "augmentation" from all three generators."""

    def __init__(self, size: int = 11, augment: bool = False):
        self.size, self.augment = size, augment

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.linspace(-1, 1, 8) * (index + 1) / self.size
        if self.augment:
            x = x * random.uniform(0.5, 1.5) + np.random.normal() * 0.1 + torch.randn(8) * 0.1
        return dict(x=x.float(), y=torch.tensor([(index % 3) / 3.0]))


@MODELS.register_module()
class TinyNet(BaseModel):
    """A network with dropout and batch normalisation."""

    def __init__(self, hidden: int = 16):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, 1)
        )

    def forward(self, x, y, mode: str = 'tensor'):
        x, y = torch.stack(x), torch.stack(y)
        out = self.net(x)
        if mode == 'loss':
            return dict(loss=(out - y).square().mean())
        return [dict(error=error) for error in (out - y).abs()]


@METRICS.register_module()
class TinyError(BaseMetric):
    """The mean error, called loss: less is better."""

    def process(self, data_batch, data_samples) -> None:
        self.results += [sample['error'].item() for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(loss=float(np.mean(results)))


def config(work_dir: Path, **changes: Any) -> Config:
    """Return the config of the training; ``changes`` are values by their keys with dots."""

    def loader(augment: bool) -> dict:
        sampler = dict(type='InfiniteSampler' if augment else 'DefaultSampler', shuffle=augment)
        return dict(
            batch_size=3, num_workers=0, sampler=sampler, dataset=dict(type='TinyPoints', augment=augment),
            collate_fn=dict(type='pseudo_collate'),
        )  # fmt: skip

    cfg = Config(
        dict(
            default_scope='mmseg_ext',
            custom_imports=dict(imports=['mmseg_ext']),
            work_dir=str(work_dir),
            model=dict(type='TinyNet'),
            train_dataloader=loader(True),
            val_dataloader=loader(False),
            val_evaluator=dict(type='TinyError'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=ITERATIONS, val_interval=3),
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(
                type='OptimWrapper',
                accumulative_counts=2,
                optimizer=dict(type='AdamW', lr=0.01),
                clip_grad=dict(max_norm=1.0),
            ),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, begin=0, end=4, by_epoch=False),
                dict(type='PolyLR', begin=4, end=ITERATIONS, eta_min=1e-5, by_epoch=False),
            ],
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=2, save_best='loss'),
                logger=dict(type='LoggerHook', interval=100),
            ),
            custom_hooks=[
                dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1),
                dict(type='EarlyStoppingHook', monitor='loss', patience=100),
            ],
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=1),
            log_level='WARNING',
        )
    )
    cfg.merge_from_dict(copy.deepcopy(changes))  # mmengine takes `_delete_` out of them
    return cfg


def train(work_dir: Path, resume: bool | str = 'auto', **changes: Any) -> Runner:
    cfg = config(work_dir, **changes)
    cfg.resume = resume
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def final_state(work_dir: Path) -> dict[str, Any]:
    """Return what has to be the same however often a training was killed: hashes, metrics and the files there are."""
    last = Path((work_dir / 'last_checkpoint').read_text())
    last = work_dir / last.name
    content = load_file(last)
    best = sorted(path for path in work_dir.glob('best_*.pth'))
    return dict(
        files=sorted(path.name for path in work_dir.iterdir() if path.is_file() and path.suffix != '.py'),
        weights=hash_weights(content['state_dict']),
        averaged=hash_weights(content.get('ema_state_dict', {})),
        optimizer=hash_nested(content['optimizer']),
        schedules=hash_nested(content['param_schedulers']),
        hooks=hash_nested(content['training_state']),
        best={path.name: hash_weights(load_file(path)['state_dict']) for path in best},
        receipts={path.name: json.loads(path.read_text())['metrics'] for path in sorted(work_dir.glob('best_*.json'))},
        score=repr(content['message_hub']['runtime_info'].get('best_score')),
    )


def hash_nested(value: Any) -> str:
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f'{value.dtype}{tuple(value.shape)}'.encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                digest.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    add(value)
    return digest.hexdigest()


if __name__ == '__main__':
    folder = Path(sys.argv[1])
    train(folder, **dict(pair.split('=', 1) for pair in sys.argv[2:]))
    print(json.dumps(final_state(folder), indent=1))
