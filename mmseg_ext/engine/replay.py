"""The very batch of an iteration as pictures: what the network was shown, after augmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.registry import DefaultScope
from PIL import Image

from mmseg_ext.checkpoints import safe_loading
from mmseg_ext.files import written_whole
from mmseg_ext.visualization.panels import IGNORED_COLOUR, colourise, draw_tiles, legend_entries

from .loops import build_train_loader
from .numbered_loader import NumberedLoader
from .runner import Runner


def replay_batch(cfg: Config, iteration: int, out_dir: str | Path | None = None) -> list[Path]:
    """Write the samples of a training's batch as panels: image after augmentation | labels.

    In a distributed run, started as the training was, each process writes its part of the batch.

    Args:
        cfg: the training's config; ``randomness.seed`` has to be its seed, as in the config that a run leaves in its
            work directory.
        iteration: number of the iteration, from 1 as the log has it.
        out_dir: folder for the panels; None: ``replay_N`` in the work directory.

    Returns:
        The panels, ``POSITION_NAME.png`` each.

    Raises:
        ValueError: the iteration is not one of the training's, the config has no seed, or the loader's batches have no
            numbers (:func:`.numbered_loader.not_numbered`).
    """
    if iteration < 1:
        raise ValueError(f'--replay {iteration}: iterations are counted from 1')
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is None:
        raise ValueError(
            f'--replay {iteration}: the config has no randomness.seed, so batches differ from run to run; use the '
            'config that the run has left in its work directory'
        )
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmseg'), safe_loading():
        different = cfg.randomness.get('diff_rank_seed', False)
        loader = build_train_loader(cfg.train_dataloader, seed, different, Runner.build_dataloader)
        last = _iterations(cfg, len(loader))
        if last is not None and iteration > last:
            raise ValueError(f'--replay {iteration}: the training of this config has {last} iterations')
        own_seed = seed + get_rank() if different else seed
        places, samples = NumberedLoader(loader, own_seed).samples(iteration - 1)
    folder = Path(out_dir or Path(cfg.work_dir, f'replay_{iteration}'))
    folder.mkdir(parents=True, exist_ok=True)
    metainfo = getattr(loader.dataset, 'metainfo', None) or {}
    paths = []
    for place, sample in zip(places, samples, strict=True):
        source = _source(sample)
        path = folder / f'{place.position}_{Path(source).stem if source else place.index}.png'
        panel = _panel(sample, metainfo.get('classes') or (), metainfo.get('palette') or ())
        with written_whole(path) as part:
            Image.fromarray(panel).save(part, format='png')
        print(f'{path}: sample {place.index}, {source or "without a file"}')
        paths.append(path)
    return paths


def _iterations(cfg: Config, epoch_length: int) -> int | None:
    if 'max_iters' in cfg.train_cfg:
        return cfg.train_cfg.max_iters
    return cfg.train_cfg.max_epochs * epoch_length if 'max_epochs' in cfg.train_cfg else None


def _source(sample: Any) -> str | None:
    return getattr(sample['data_samples'], 'img_path', None) if 'data_samples' in sample else None


def _panel(sample: dict[str, Any], classes: Sequence[str], palette: Sequence[Sequence[int]]) -> np.ndarray:
    tiles = [('image', _picture(sample['inputs']))]
    entries = []
    labels = sample.get('data_samples')
    if labels is not None and 'gt_sem_seg' in labels:
        labels = labels.gt_sem_seg.data.squeeze(0).numpy()
        if not len(palette):
            palette = np.random.RandomState(42).randint(0, 255, size=(max(len(classes), 1), 3)).tolist()
        tiles.append(('labels', colourise(labels, palette)))
        entries = legend_entries(labels, classes, palette)
        if (labels >= len(classes)).any():
            entries.append(('ignored', IGNORED_COLOUR))
    return draw_tiles(tiles, entries)


def _picture(image: torch.Tensor) -> np.ndarray:
    """Return ``(H, W, 3)`` uint8 RGB of an input ``(C, H, W)``: mmcv's BGR, or one channel in grey."""
    image = image.numpy()
    image = image[2::-1] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    if image.dtype != np.uint8:
        low, high = float(np.nanmin(image)), float(np.nanmax(image))
        image = ((image - low) * (255 / max(high - low, 1e-12))).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0))
