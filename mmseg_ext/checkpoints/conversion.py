"""Convert a checkpoint file of another project into one with mmseg's keys; behind ``tools/convert_checkpoint.py``."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mmseg_ext.engine.config import load_config
from mmseg_ext.files import written_whole

from .building import build_model
from .coverage import check_converted
from .download import load_checkpoint
from .layouts import convert, tensors_of


def convert_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    config: str | None = None,
    upgrade: bool = False,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> str:
    """Convert ``source`` and write ``target``; return a report.

    The result holds a ``state_dict`` with mmseg's keys and no optimizer. Classifiers, and heads that we have no
    counterpart of, are left out and named in the report, as is what the keys can't carry.

    Args:
        source: a path, an http(s) URL, or a name like ``torchvision://resnet50``.
        target: the file to write; an existing one is replaced when the new one is whole.
        config: a config whose model, or its backbone if ``source`` holds no more, the result has to fit.
        upgrade: use our classes in place of mmseg's of the same name in ``config``.
        allow_missing, allow_unexpected: what may miss in either, as for :func:`.coverage.load_weights`.

    Raises:
        ValueError: the layout is unknown, or the result doesn't fit the model of ``config``; nothing is written. See
            also :func:`.download.load_checkpoint`.
    """
    weights = tensors_of(load_checkpoint(source), f'checkpoint {source}')
    try:
        converted = convert(weights)
    except ValueError as error:
        raise ValueError(f'checkpoint {source}: {error}') from None
    left_out = converted.left_out
    state_dict = {key: value for key, value in converted.state_dict.items() if key not in left_out}
    lines = [f'{source} -> {target}', f'layout: {converted.layout}', f'converted: {len(state_dict)}']
    if left_out:
        lines.append(f'left out: {len(left_out)} ({", ".join(left_out)})')
    if converted.note:
        lines.append(f'for the config: {converted.note}')
    if config is not None:
        cfg = load_config(config, upgrade=upgrade)
        model = build_model(cfg.model, cfg.get('default_scope'))
        whole = any(key.startswith('decode_head.') for key in state_dict)
        coverage = check_converted(
            model if whole else model.backbone,
            replace(converted, state_dict=state_dict),
            f'{source}, converted,',
            allow_missing=allow_missing,
            allow_unexpected=allow_unexpected,
        )
        lines.append(f'in the {"model" if whole else "backbone"} of {config}: {coverage}')

    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as part:
        torch.save(dict(meta=dict(source=str(source), layout=converted.layout), state_dict=state_dict), part)
    return '\n'.join(lines)
