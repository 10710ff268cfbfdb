"""Load weights into a module: all of them, or those that the caller says may miss excepted, or none."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from .download import load_checkpoint
from .fit import Coverage, Fit, compare, first
from .input_channels import adapt_input_channels
from .layouts import BACKBONE, Converted, convert, tensors_of
from .misfit import as_options, describe_misfit, remedy_for_model

__all__ = ['Coverage', 'check_converted', 'check_fit', 'load_pretrained', 'load_weights']


def check_fit(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    name: str,
    *,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    reset_head: bool = False,
) -> Coverage:
    """Compare weights with those of a module, as :func:`load_weights` does, and load nothing.

    Arguments, result and errors are those of :func:`load_weights`.
    """
    return _checked(module, weights, name, allow_missing, allow_unexpected, reset_head).coverage


def load_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    name: str,
    *,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    reset_head: bool = False,
) -> Coverage:
    """Load the weights of a checkpoint into the module that they were saved from, or one that is like it.

    Keys of the checkpoint that begin with a part that the module doesn't have at all (``auxiliary_head.``,
    ``teacher.``) are left out and logged.

    Args:
        module: receives the weights; unchanged if an error is raised. Not in a wrapper for distributed training.
        weights: as :func:`.layouts.tensors_of` returns them.
        name: where they come from, for messages.
        allow_missing: keys of ``module`` that begin so need not be there, or may have another shape.
        allow_unexpected: keys that begin so may be there in ``weights`` and not in ``module``.
        reset_head: leave out the classifiers of the heads (``conv_seg``, and whatever has another shape there), for
            training with other classes.

    Raises:
        ValueError: the weights don't fit: some are missing, have other shapes, or are of layers that the module doesn't
            have; or ``reset_head`` finds no classifier.
        TypeError: a list of prefixes is a string.
    """
    fit = _checked(module, weights, name, allow_missing, allow_unexpected, reset_head)
    return _load(module, fit, name)


def load_pretrained(
    module: nn.Module,
    checkpoint: str | os.PathLike,
    *,
    prefix: str | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    map_location: Any = 'cpu',
) -> Coverage:
    """Load a checkpoint of any known layout into a backbone or segmentor, and report what was found.

    Args:
        module: receives the weights; unchanged if an error is raised.
        checkpoint: a path, an http(s) URL, or a name like ``torchvision://resnet50``.
        prefix: take only the keys of the checkpoint that begin so.
        allow_missing, allow_unexpected: as :func:`load_weights`.
        map_location: as in :func:`torch.load`.

    Raises:
        ValueError: the weights don't fit, or the file can't be used; see also :func:`.download.load_checkpoint`.
        TypeError: a list of prefixes is a string.
    """
    weights = tensors_of(load_checkpoint(checkpoint, map_location), f'checkpoint {checkpoint}')
    if prefix:
        weights = _below(prefix, weights, checkpoint)
    try:
        converted = convert(weights)
    except ValueError as error:
        if not weights.keys() & module.state_dict().keys():
            raise ValueError(f'checkpoint {checkpoint}: {error}') from None
        converted = Converted('its own', dict(weights))
    fit = _compare_converted(module, converted, allow_missing, allow_unexpected)
    if fit.refused or not fit.found:
        note = f' ({converted.note})' if converted.note else ''
        remedy = f'Its layout: {converted.layout}{note}. Fit the config to the weights or choose others'
        if fit.refused:
            options = f'checkpoint={os.fspath(checkpoint)!r}, {as_options(fit)}'
            remedy += f"; if this is meant, say so: init_cfg=dict(type='Pretrained', {options})"
        raise ValueError(describe_misfit(module, str(checkpoint), fit, remedy))
    return _load(module, fit, str(checkpoint))


def check_converted(
    module: nn.Module,
    converted: Converted,
    name: str,
    *,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> Coverage:
    """Compare a converted checkpoint with a module, as :func:`load_pretrained` does, and load nothing.

    Arguments and errors are those of :func:`load_weights`.
    """
    fit = _compare_converted(module, converted, allow_missing, allow_unexpected)
    if fit.refused or not fit.found:
        raise ValueError(describe_misfit(module, name, fit, remedy_for_model(module, converted.state_dict, name, fit)))
    return fit.coverage


def _compare_converted(
    module: nn.Module, converted: Converted, allow_missing: Sequence[str], allow_unexpected: Sequence[str]
) -> Fit:
    """Compare a converted checkpoint with the weights of a backbone or segmentor.

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
    stem = next((key for key, value in target.items() if value.ndim == 4), None)
    if stem in source and source[stem].shape[1:2] == (3,) and target[stem].shape[1] != 3:
        source[stem] = adapt_input_channels(source[stem], target[stem].shape[1])
    return compare(
        module, source, converted.layout, left_out, allow_missing=allow_missing, allow_unexpected=allow_unexpected
    )


def _checked(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    name: str,
    allow_missing: Sequence[str],
    allow_unexpected: Sequence[str],
    reset_head: bool,
) -> Fit:
    options = dict(allow_missing=allow_missing, allow_unexpected=allow_unexpected, reset_head=reset_head)
    fit = compare(module, weights, **options)
    if fit.refused or not fit.found:
        raise ValueError(describe_misfit(module, name, fit, remedy_for_model(module, weights, name, fit)))
    return fit


def _load(module: nn.Module, fit: Fit, name: str) -> Coverage:
    coverage = fit.coverage
    broken = [key for key, value in fit.found.items() if not value.isfinite().all()]
    module.load_state_dict(fit.found, strict=False)
    differs = coverage.unexpected or coverage.missing or coverage.mismatched
    level = logging.WARNING if differs else logging.INFO
    print_log(f'weights of {type(module).__name__} from {name}: {coverage}', logger='current', level=level)
    if broken:
        print_log(
            f'checkpoint {name}: {len(broken)} weights are infinite or nan ({first(broken)}); so is what it computes',
            logger='current',
            level=logging.WARNING,
        )
    return coverage


def _below(prefix: str, weights: Mapping[str, Tensor], checkpoint: str | os.PathLike) -> dict[str, Tensor]:
    prefix = prefix if prefix.endswith('.') else f'{prefix}.'
    below = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if not below:
        there = sorted({key.split('.')[0] + '.' for key in weights})
        raise ValueError(f'checkpoint {checkpoint} has no keys with prefix={prefix!r}; its keys begin with {there}')
    return below
