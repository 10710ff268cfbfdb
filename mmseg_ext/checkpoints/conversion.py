"""Convert a checkpoint file of another project into one with mmseg's keys; behind ``tools/convert_checkpoint.py``."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.registry import MODELS, DefaultScope

from mmseg_ext.engine.config import load_config

from .coverage import load_pretrained
from .download import load_checkpoint
from .layouts import convert, tensors_of


def convert_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    config: str | None = None,
    upgrade: bool = False,
    allow_missing: Sequence[str] = (),
) -> str:
    """Convert ``source`` and write ``target``; return a report.

    The result holds a ``state_dict`` with mmseg's keys and no optimizer. Classifiers, and heads that we have no
    counterpart of, are left out and named in the report, as is what the keys can't carry.

    Args:
        source: a path, an http(s) URL, or a name like ``torchvision://resnet50``.
        target: the file to write; an existing one is replaced when the new one is whole.
        config: a config whose model, or its backbone if ``source`` holds no more, must find all weights in ``target``.
        upgrade: use our classes in place of mmseg's of the same name in ``config``.
        allow_missing: prefixes of keys that need not be there, as for :func:`.coverage.load_pretrained`.

    Raises:
        ValueError: the layout is unknown, or the model of ``config`` is not covered; see also
            :func:`.download.load_checkpoint`.
    """
    converted = convert(tensors_of(load_checkpoint(source), f'checkpoint {source}'))
    left_out = converted.left_out
    state_dict = {key: value for key, value in converted.state_dict.items() if key not in left_out}
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'{target.name}.{uuid.uuid4().hex}.part')
    try:
        torch.save(dict(meta=dict(source=str(source), layout=converted.layout), state_dict=state_dict), part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)

    lines = [f'{source} -> {target}', f'layout: {converted.layout}', f'converted: {len(state_dict)}']
    if left_out:
        lines.append(f'left out: {len(left_out)} ({", ".join(left_out)})')
    if converted.note:
        lines.append(f'for the config: {converted.note}')
    if config is not None:
        cfg = load_config(config, upgrade=upgrade)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmseg')):
            model = MODELS.build(cfg.model)
        whole = any(key.startswith('decode_head.') for key in state_dict)
        coverage = load_pretrained(model if whole else model.backbone, target, allow_missing=allow_missing)
        lines.append(f'in the {"model" if whole else "backbone"} of {config}: {coverage}')
    return '\n'.join(lines)
