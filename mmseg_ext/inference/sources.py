"""What to predict: image files and videos, found from paths, folders and globs, each with a name for its results."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mmcv

from mmseg_ext.datasets.file_facts import UnreadableError

IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.m4v', '.mpg', '.mpeg', '.webm', '.wmv')


class Source(NamedTuple):
    """An image or a video, and the name of its results: a relative path without suffix, of its own among all."""

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        return _is(VIDEOS, self.path)


def find_sources(
    inputs: str | os.PathLike | Sequence[str | os.PathLike], skip: Sequence[Path] = ()
) -> tuple[list[Source], dict[str, str]]:
    """Find the images and videos that paths, folders and globs stand for.

    Of a folder these are its images, those of its folders too; of a glob (``**`` for folders of any depth) images and
    videos. Names keep the folders below a folder that was given, or below a glob's first wildcard. Where two would be
    the same, all names start from the folder that the inputs share; where that is not enough they keep their suffixes.

    Args:
        inputs: one or several; each file is taken once.
        skip: folders that folders and globs don't look into.

    Returns:
        The sources, and the inputs in which nothing was found, with the reason.
    """
    found: dict[Path, Path] = {}  # each file, and where its name starts
    missing = {}
    skipped = [_absolute(folder) for folder in skip]
    for text in [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs:
        path = Path(text).expanduser()
        if path.is_file():
            found.setdefault(_absolute(path), _absolute(path.parent))
            continue
        if path.is_dir():
            root, files, nothing = path, _in_folder(path, IMAGES), 'holds no images'
        elif glob.has_magic(str(path)):
            (root, files), nothing = _in_glob(path), 'matches no images or videos'
        else:
            missing[str(text)] = 'does not exist'
            continue
        files = [file for file in map(_absolute, files) if not any(map(file.is_relative_to, skipped))]
        if not files:
            missing[str(text)] = f'{nothing} ({" ".join(IMAGES)})'
        for file in files:
            found.setdefault(file, _absolute(root))
    names = _names(found)
    return [Source(str(path), name) for path, name in zip(found, names, strict=True)], missing


def open_video(path: str) -> mmcv.VideoReader:
    """Open a video.

    Raises:
        UnreadableError: OpenCV can't decode it.
    """
    video = mmcv.VideoReader(path, cache_capacity=1)
    if not video.opened:
        raise UnreadableError('not a video that OpenCV can decode')
    return video


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _is(suffixes: tuple[str, ...], path: str | Path) -> bool:
    return Path(path).suffix.lower() in suffixes


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.rglob('*') if _is(suffixes, path) and path.is_file())


def _in_glob(pattern: Path) -> tuple[Path, list[Path]]:
    fixed = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    files = []
    for match in map(Path, sorted(glob.glob(str(pattern), recursive=True))):
        if match.is_dir():
            files += _in_folder(match, IMAGES + VIDEOS)
        elif _is(IMAGES + VIDEOS, match):
            files.append(match)
    return Path(*pattern.parts[:fixed]), files


def _names(roots: dict[Path, Path]) -> list[str]:
    """Return a name for each path, from its root where that is enough to tell them apart."""
    names = [str(path.relative_to(root).with_suffix('')) for path, root in roots.items()]
    if len(set(names)) < len(names):
        shared = os.path.commonpath(roots.values())
        whole = [path.relative_to(shared) for path in roots]
        names = [str(path.with_suffix('')) for path in whole]
        if len(set(names)) < len(names):
            names = [str(path) for path in whole]
    return names
