"""Which checkpoint a training in a folder goes on from."""

import os.path as osp
import re
import string
from collections.abc import Sequence
from pathlib import Path

from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook, Hook


def latest_checkpoint(work_dir: str, hooks: Sequence[Hook]) -> str | None:
    """Return the training checkpoint to go on from; None where there is none.

    It is the one that ``work_dir/last_checkpoint`` names, if that exists; else the one with the largest number among
    those that a ``CheckpointHook`` of the run would write, by its ``out_dir`` and ``filename_tmpl``.
    """
    hooks = [hook for hook in hooks if isinstance(hook, CheckpointHook)]
    named = _named(work_dir, hooks[0].backend_args if hooks else None)
    if named is not None:
        return named
    found = [entry for hook in hooks for entry in _written_by(hook, work_dir)]
    return max(found, default=(0, None))[1]


def number_pattern(template: str) -> str:
    """Return the regular expression of the file names of a template like ``iter_{}.pth``; group 1 is the number."""
    pattern = ''
    for text, field, _, _ in string.Formatter().parse(template):
        pattern += re.escape(text) + (r'0*(\d+)' if field is not None else '')
    return pattern


def _named(work_dir: str, backend_args: dict | None) -> str | None:
    record = Path(work_dir, 'last_checkpoint')
    if not record.is_file():
        return None
    named = record.read_text(errors='replace').strip()
    if not named:
        return None
    # A folder that was moved since still has its files.
    for path in (named, osp.join(work_dir, osp.basename(named))):
        if get_file_backend(path, backend_args=backend_args if path == named else None).isfile(path):
            return path
    return None


def _written_by(hook: CheckpointHook, work_dir: str) -> list[tuple[int, str]]:
    backend = get_file_backend(hook.out_dir or work_dir, backend_args=hook.backend_args)
    folder = work_dir
    if hook.out_dir is not None and hook.out_dir != work_dir:
        # As the hook does it: a folder of the work directory's name.
        folder = backend.join_path(hook.out_dir, osp.basename(work_dir.rstrip(osp.sep)))
    if not backend.isdir(folder):
        return []
    names = backend.list_dir_or_file(folder, list_dir=False, recursive=False)
    matches = [(name, re.fullmatch(number_pattern(hook.filename_tmpl), name)) for name in names]
    return [(int(match[1]), backend.join_path(folder, name)) for name, match in matches if match]
