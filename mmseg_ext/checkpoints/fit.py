"""Compare the weights in a checkpoint with those of a module: which fit, which are missing, which are too many."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .load_hooks import has_load_hooks, run_load_hooks


@dataclass(frozen=True)
class Coverage:
    """What became of the keys of a module and of a checkpoint.

    Args:
        layout: the key layout of the checkpoint.
        loaded: keys of the module that the checkpoint has.
        missing: keys of the module that it doesn't have.
        unexpected: keys of the checkpoint that the module doesn't have.
        mismatched: keys that don't fit, with their shapes in the checkpoint and in the module, or their types if the
            shapes are equal.
        left_out: keys of the checkpoint that no backbone or segmentor of ours has: classifiers, foreign heads.
        reset: keys of the module that keep their values because its heads' classifiers begin anew.
    """

    layout: str
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: dict[str, tuple[object, object]]
    left_out: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f'layout {self.layout}: {len(self.loaded)} loaded']
        for name in ('missing', 'unexpected', 'mismatched', 'left_out'):
            keys = list(getattr(self, name))
            parts.append(f'{len(keys)} {name.replace("_", " ")}' + (f' ({first(keys)})' if keys else ''))
        if self.reset:
            parts.append(f'{len(self.reset)} left as they are for a new classifier ({", ".join(self.reset)})')
        return ', '.join(parts)


@dataclass(frozen=True)
class Fit:
    """A comparison: the account, the tensors to load, and the keys of either side that stand against it."""

    coverage: Coverage
    found: dict[str, Tensor]
    refused: list[str]


def compare(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    layout: str = "the model's own",
    left_out: Collection[str] = (),
    *,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    reset_head: bool = False,
) -> Fit:
    """Compare ``weights`` with those of ``module``; neither is changed. Arguments as :func:`.coverage.load_weights`."""
    for name, prefixes in (('allow_missing', allow_missing), ('allow_unexpected', allow_unexpected)):
        if not isinstance(prefixes, (list, tuple)) or not all(isinstance(prefix, str) for prefix in prefixes):
            example = [prefixes] if isinstance(prefixes, str) else ['decode_head.']
            raise TypeError(f'{name}={prefixes!r} must be a list of prefixes of keys: {name}={example!r}')
    own = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    missing, unexpected, mismatched = _differences(own, weights)
    if (missing or unexpected or mismatched) and has_load_hooks(module):
        weights, disputed = run_load_hooks(module, weights)
        missing, unexpected, mismatched = _differences(own, weights)
        missing, unexpected = ([key for key in keys if key in disputed] for keys in (missing, unexpected))

    reset = []
    if reset_head:
        if not any(is_head(name) for name, _ in module.named_children()):
            raise ValueError(f'reset_head: {type(module).__name__} has no head whose classifier could begin anew')
        other = {_owner(key) for key in mismatched if is_head(key)}
        is_reset = {key for key in {**own, **weights} if is_head(key) and (_is_classifier(key) or _owner(key) in other)}
        reset = [key for key in own if key in is_reset]
        if not reset:
            raise ValueError(
                'reset_head: no head has a classifier that is called conv_seg, and all shapes in the heads are equal; '
                'leave reset_head (--reset-head) out, or name what is to begin anew by allow_missing'
            )
        missing, unexpected = ([key for key in keys if key not in is_reset] for keys in (missing, unexpected))
        mismatched = {key: pair for key, pair in mismatched.items() if key not in is_reset}

    found = {key: weights[key] for key in own if key in weights and key not in mismatched and key not in reset}
    parts = {name for name, _ in module.named_children()}
    refused = [key for key in (*missing, *mismatched) if not key.startswith(tuple(allow_missing))]
    refused += [key for key in unexpected if key.split('.')[0] in parts and not key.startswith(tuple(allow_unexpected))]
    coverage = Coverage(layout, list(found), missing, unexpected, mismatched, sorted(left_out), reset)
    return Fit(coverage, found, refused)


def _differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]):
    """Return the missing and the unexpected keys, and those with two shapes or types."""
    # Weights from before 2018 don't count their batches, and nothing needs it.
    missing = [key for key in own if key not in weights and not key.endswith('num_batches_tracked')]
    unexpected = [key for key in weights if key not in own]
    mismatched = {}
    for key in own.keys() & weights.keys():
        there, here = weights[key], own[key]
        # Those of torch 0.3 have one number where there is a scalar now; torch takes it.
        if there.shape != here.shape and (*there.shape, *here.shape) != (1,):
            mismatched[key] = (tuple(there.shape), tuple(here.shape))
        elif not _same_kind(there, here):
            mismatched[key] = (_kind(there), _kind(here))
    return missing, unexpected, {key: mismatched[key] for key in own if key in mismatched}


def _same_kind(there: Tensor, here: Tensor) -> bool:
    """Whether values of one tensor can be taken for the other: any real ones for integers, floating ones for these."""
    if there.layout != torch.strided or there.is_meta or there.is_complex() != here.is_complex():
        return False
    return there.is_floating_point() or there.is_complex() or not here.is_floating_point()


def _kind(value: Tensor) -> str:
    if value.layout != torch.strided:
        return str(value.layout)
    return 'no values' if value.is_meta else str(value.dtype)


def is_head(key: str) -> bool:
    """Whether a key, or the name of a child, is that of a segmentor's head."""
    return key.split('.')[0].endswith('head')


def _is_classifier(key: str) -> bool:
    return 'conv_seg' in key.split('.')[1:-1]


def _owner(key: str) -> str:
    """Return the module that a weight belongs to."""
    return key.rpartition('.')[0]


def first(names: Collection[str], count: int = 3) -> str:
    """Return the first of some names, for a message."""
    return ', '.join(list(names)[:count]) + (', ...' if len(names) > count else '')
