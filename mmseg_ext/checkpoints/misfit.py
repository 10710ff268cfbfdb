"""Say why a checkpoint is refused, and what to do: one sentence for each."""

import itertools
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from .fit import Fit, first, is_head
from .layouts import BACKBONE, convert


def describe_misfit(module: nn.Module, name: str, fit: Fit, remedy: str) -> str:
    """Return what does not fit, with names and shapes, and ``remedy`` behind it."""
    coverage, refused = fit.coverage, set(fit.refused)
    missing = [key for key in coverage.missing if key in refused]
    other = [
        f'{key}: {there} in the file, {here} in the model'
        for key, (there, here) in coverage.mismatched.items()
        if key in refused
    ]
    unexpected = [key for key in coverage.unexpected if key in refused]
    kinds = ((missing, 'missing'), (other, 'of another shape or type'), (unexpected, 'unexpected'))
    counts = [f'{len(keys)} {kind} ({first(keys)})' for keys, kind in kinds if keys]
    what = f'{", ".join(counts)}, {len(coverage.loaded)} fit' if counts else 'it has none of its weights'
    return f'checkpoint {name} does not fit {type(module).__name__}: {what}. {remedy}'


def remedy_for_model(module: nn.Module, weights: Mapping[str, Tensor], name: str, fit: Fit) -> str:
    """Return what helps where a checkpoint was meant for a whole model: another config, a conversion, a flag."""
    classes = _class_counts(fit)
    if classes is not None:
        there, here = classes
        return (
            f'It was trained for {there} classes, the model has {here}: to fine-tune it, train with --load-from {name} '
            '--reset-head (reset_head=True in the config), which leaves out its classifiers; to use it as it is, set '
            f'num_classes={there} in the heads'
        )
    if any(isinstance(there, str) for there, _ in fit.coverage.mismatched.values()):
        return 'Weights have to be floating-point numbers: take the checkpoint from before it was quantized or packed'
    own = list(module.state_dict())
    refused = sorted({key.split('.')[0] for key in fit.refused})
    absent = [part for part in refused if not _count(weights, part)]
    other = [part for part in refused if part not in absent and _differs_throughout(part, own, fit)]
    if not fit.found or 'backbone' in absent + other or {*absent, *other} == {key.split('.')[0] for key in own}:
        return _other_architecture(module, weights, name)
    texts = [f'It has no {part}. ' for part in absent]
    texts += [f'Its {part} is another one. ' for part in other]
    missing, unexpected = prefixes(fit)
    flags = [f'--allow-missing {" ".join(missing)}'] if missing else []
    flags += [f'--allow-unexpected {" ".join(unexpected)}'] if unexpected else []
    return (
        f'{"".join(texts)}Use the config that it was trained with, or if this is meant, say so: {" ".join(flags)} '
        f'(in a config: {as_options(fit)})'
    )


def _differs_throughout(part: str, own: list[str], fit: Fit) -> bool:
    """Whether hardly anything of a part of the model fits, or much of it, and all over, does not."""
    size, refused = _count(own, part), [key for key in fit.refused if key.split('.')[0] == part]
    is_wide = _common(refused) == [f'{part}.'] and 4 * len(refused) > size
    return 2 * _count(fit.coverage.loaded, part) < size or is_wide


def _class_counts(fit: Fit) -> tuple[int, int] | None:
    """Return the class counts of file and model if classifiers, and nothing else, differ by these."""
    counts = set()
    for key in fit.refused:
        there, here = fit.coverage.mismatched.get(key, ((), ()))
        if not (is_head(key) and isinstance(there, tuple) and there and here and there[1:] == here[1:]):
            return None
        counts.add((there[0], here[0]))
    return counts.pop() if len(counts) == 1 else None


def _other_architecture(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> str:
    use_config = 'Use the config that it was trained with'
    try:
        converted = convert(weights)
    except ValueError as error:
        reason = str(error).split('; known are')[0]
        return f'It is of another architecture: {reason}. {use_config}'
    is_backbone = not any(key.startswith(BACKBONE) for key in converted.state_dict)
    if is_backbone and any(child == 'backbone' for child, _ in module.named_children()):
        return (
            f'It holds a backbone and no heads (its layout: {converted.layout}): begin a training with it by '
            f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint={name!r})"
        )
    if converted.state_dict.keys() != weights.keys():
        return (
            f'It has the layout of another project: {converted.layout}. Convert it first: '
            f'python tools/convert_checkpoint.py {name} OUT.pth'
        )
    return f'It is of another architecture (its layout: {converted.layout}). {use_config}'


def prefixes(fit: Fit) -> tuple[list[str], list[str]]:
    """Return what ``allow_missing`` and ``allow_unexpected`` would have to hold, one for each part of the model."""
    unexpected = [key for key in fit.refused if key in fit.coverage.unexpected]
    missing = [key for key in fit.refused if key not in fit.coverage.unexpected]
    return _common(missing), _common(unexpected)


def as_options(fit: Fit) -> str:
    """Return these as they are written in a config."""
    named = zip(('allow_missing', 'allow_unexpected'), prefixes(fit), strict=True)
    return ', '.join(f'{option}={keys}' for option, keys in named if keys)


def _common(keys: list[str]) -> list[str]:
    """Return the longest common prefix, up to a dot, of the keys of each part."""
    found = []
    for part in dict.fromkeys(key.split('.')[0] for key in keys):
        names = [key.split('.') for key in keys if key.split('.')[0] == part]
        if len(names) == 1:
            found.append('.'.join(names[0]))
            continue
        same = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*names, strict=False))
        found.append('.'.join(level[0] for level in same) + '.')
    return found


def _count(keys: Iterable[str], part: str) -> int:
    return sum(key.split('.')[0] == part for key in keys)
