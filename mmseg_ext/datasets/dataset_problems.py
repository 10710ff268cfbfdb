"""What can be wrong with a dataset, and the error that lists it."""

import os
from typing import NamedTuple

_MAX_SHOWN = 10


class Problem(NamedTuple):
    """One thing that is wrong: its kind, the file, folder or config key, what was found there, and the remedy."""

    kind: str
    where: str
    found: str
    remedy: str


class DatasetError(ValueError):
    """Lists problems by kind, about ten of them in all, with the remedy once a kind; ``problems`` holds them all."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__(describe(problems))


def describe(problems: list[Problem]) -> str:
    """Return the text of a :class:`DatasetError`."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.kind, problem.remedy), []).append(problem)
    shown = max(1, _MAX_SHOWN // len(groups))
    lines = [f'{len(problems)} problem{"s" * (len(problems) > 1)} with the data']
    for (kind, remedy), group in groups.items():
        lines.append(f'{kind} ({len(group)}):')
        lines += [f'  {problem.where}: {problem.found}' for problem in group[:shown]]
        if len(group) > shown:
            lines.append(f'  and {len(group) - shown} more')
        lines.append(f'  remedy: {remedy}')
    return '\n'.join(lines)


def is_remote(path: str | None, backend_args: dict | None) -> bool:
    """Whether files are read through a backend other than the local file system."""
    backend = (backend_args or {}).get('backend', 'local')
    return backend not in ('local', 'LocalBackend') or '://' in (path or '')


def folder_problems(data_root: str | None, data_prefix: dict, ann_file: str, key: str) -> list[Problem]:
    """Return a problem for each of a dataset's folders, and its list of files, that does not exist.

    ``key`` leads to the dataset's config, for example ``train_dataloader.dataset``.
    """
    root = data_root or ''
    if data_root and not os.path.isdir(data_root):
        return [_missing('folder', data_root, f'{key}.data_root')]
    problems = []
    for name in ('img_path', 'seg_map_path'):
        folder = os.path.join(root, data_prefix.get(name) or '') or '.'
        if name in data_prefix and not os.path.isdir(folder):
            problems.append(_missing('folder', folder, f'{key}.data_prefix.{name}'))
    ann_file = os.path.join(root, ann_file) if ann_file else root
    if ann_file and not os.path.exists(ann_file):
        problems.append(_missing('file', ann_file, f'{key}.ann_file'))
    return problems


def _missing(what: str, path: str, key: str) -> Problem:
    remedy = 'bring the data there, or correct data_root, data_prefix or ann_file'
    if not os.path.isabs(path):
        remedy += f' (relative paths count from {os.getcwd()})'
    return Problem(f'missing {what}', path, f'does not exist; {key} names it', remedy)
