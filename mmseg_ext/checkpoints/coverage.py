"""Load foreign weights into a module, and account for every one of them."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from .download import load_checkpoint
from .input_channels import adapt_input_channels
from .layouts import BACKBONE, Converted, convert, tensors_of


@dataclass(frozen=True)
class Coverage:
    """What became of the keys of a module and of a checkpoint.

    Args:
        layout: the recognised key layout of the checkpoint.
        loaded: keys of the module that the checkpoint has.
        missing: keys of the module that it doesn't have.
        unexpected: keys of the checkpoint that the module doesn't have.
        mismatched: keys with their two shapes, where these differ.
        left_out: keys of the checkpoint that no backbone or segmentor of ours has: classifiers, foreign heads.
    """

    layout: str
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    left_out: list[str]

    def __str__(self) -> str:
        lines = [f'layout {self.layout}: {len(self.loaded)} loaded']
        for name in ('missing', 'unexpected', 'mismatched', 'left_out'):
            keys = list(getattr(self, name))
            lines.append(f'{len(keys)} {name.replace("_", " ")}' + (f' ({_first(keys)})' if keys else ''))
        return ', '.join(lines)


def _first(names: Collection[str], count: int = 3) -> str:
    return ', '.join(list(names)[:count]) + (', ...' if len(names) > count else '')


def match(module: nn.Module, converted: Converted) -> tuple[dict[str, Tensor], Coverage]:
    """Find the weights of ``module`` in a converted checkpoint; return them and the account.

    A module without a ``backbone`` takes the backbone of a segmentor or classifier, and the other way round. The first
    convolution is adapted to the module's input channels (:func:`.input_channels.adapt_input_channels`).
    """
    target = module.state_dict()
    left_out = set(converted.left_out) - target.keys()
    source = {key: value for key, value in converted.state_dict.items() if key not in left_out}
    nested, wanted = (any(key.startswith(BACKBONE) for key in keys) for keys in (source, target))
    if wanted and not nested:
        source = {BACKBONE + key: value for key, value in source.items()}
    elif nested and not wanted:
        left_out |= {key for key in source if not key.startswith(BACKBONE)}
        source = {key.removeprefix(BACKBONE): value for key, value in source.items() if key.startswith(BACKBONE)}
    first = next((key for key, value in target.items() if value.ndim == 4), None)
    if first in source and source[first].shape[1:2] == (3,) and target[first].shape[1] != 3:
        source[first] = adapt_input_channels(source[first], target[first].shape[1])

    found, mismatched = {}, {}
    for key in target.keys() & source.keys():
        if target[key].shape == source[key].shape:
            found[key] = source[key]
        else:
            mismatched[key] = (tuple(source[key].shape), tuple(target[key].shape))
    return found, Coverage(
        converted.layout,
        loaded=[key for key in target if key in found],
        # Weights from before 2018 don't count their batches, and nothing needs it.
        missing=[key for key in target if key not in source and not key.endswith('num_batches_tracked')],
        unexpected=[key for key in source if key not in target],
        mismatched={key: mismatched[key] for key in target if key in mismatched},
        left_out=sorted(left_out),
    )


def load_pretrained(
    module: nn.Module,
    checkpoint: str | os.PathLike,
    *,
    prefix: str | None = None,
    allow_missing: Sequence[str] = (),
    map_location: Any = 'cpu',
) -> Coverage:
    """Load a checkpoint of any known layout into a backbone or segmentor, and report what was found.

    Args:
        module: receives the weights; unchanged if an error is raised.
        checkpoint: a path, an http(s) URL, or a name like ``torchvision://resnet50``.
        prefix: take only the keys of the checkpoint that begin so.
        allow_missing: keys of ``module`` that begin so need not be found, or may have another shape.
        map_location: as in :func:`torch.load`.

    Raises:
        ValueError: not all weights of ``module`` are found, or the file can't be used; see also
            :func:`.download.load_checkpoint`.
    """
    if isinstance(allow_missing, str):
        raise TypeError(
            f'allow_missing={allow_missing!r} must be a list of prefixes: allow_missing=[{allow_missing!r}]'
        )
    state_dict = tensors_of(load_checkpoint(checkpoint, map_location), f'checkpoint {checkpoint}')
    if prefix:
        state_dict = _below(prefix, state_dict, checkpoint)
    try:
        converted = convert(state_dict)
    except ValueError as error:
        if not state_dict.keys() & module.state_dict().keys():
            raise ValueError(f'checkpoint {checkpoint}: {error}') from None
        converted = Converted('its own', dict(state_dict))
    found, coverage = match(module, converted)
    failed = [key for key in [*coverage.missing, *coverage.mismatched] if not key.startswith(tuple(allow_missing))]
    if failed:
        raise ValueError(_incomplete(module, checkpoint, coverage, failed, converted.note))
    module.load_state_dict(found, strict=False)
    level = logging.WARNING if coverage.unexpected or coverage.missing or coverage.mismatched else logging.INFO
    print_log(f'weights of {type(module).__name__} from {checkpoint}: {coverage}', logger='current', level=level)
    return coverage


def _below(prefix: str, state_dict: Mapping[str, Tensor], checkpoint: str | os.PathLike) -> dict[str, Tensor]:
    prefix = prefix if prefix.endswith('.') else f'{prefix}.'
    below = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    if not below:
        there = sorted({key.split('.')[0] + '.' for key in state_dict})
        raise ValueError(f'checkpoint {checkpoint} has no keys with prefix={prefix!r}; its keys begin with {there}')
    return below


def _incomplete(
    module: nn.Module, checkpoint: str | os.PathLike, coverage: Coverage, failed: list[str], note: str
) -> str:
    missing = [key for key in failed if key in coverage.missing]
    shapes = [
        f'{key}: {there} in the file, {here} in the model'
        for key, (there, here) in coverage.mismatched.items()
        if key in failed
    ]
    parts = [f'{len(missing)} are missing ({_first(missing)})'] if missing else []
    parts += [f'{len(shapes)} have another shape ({_first(shapes)})'] if shapes else []
    prefixes = list(dict.fromkeys(key.split('.')[0] + '.' for key in failed))
    return (
        f'checkpoint {checkpoint} does not hold all weights of {type(module).__name__}: {" and ".join(parts)}, '
        f'{len(coverage.loaded)} were found. Its layout: {coverage.layout}'
        + (f' ({note})' if note else '')
        + '. Fit the config to the weights or choose others; if these may be missing, say so: '
        f"init_cfg=dict(type='Pretrained', checkpoint={os.fspath(checkpoint)!r}, allow_missing={prefixes})"
    )
