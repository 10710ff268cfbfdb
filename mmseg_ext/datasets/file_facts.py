"""What a picture file holds (size, label values), read once and remembered until the file changes."""

import hashlib
import io
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from mmseg_ext.files import written_whole

FORMAT = 1
_EXIF_ORIENTATION = 0x0112
_JPEG_END = b'\xff\xd9'
_CHUNK = 32  # files that a thread takes at a time


class UnreadableError(Exception):
    """A file that does not decode; the message says why."""


class Facts(NamedTuple):
    """Size in pixels, and for a label its raw values with their pixel counts; ``shape`` is that of the label array."""

    width: int
    height: int
    shape: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


def read_image(data: bytes) -> Facts:
    """Return the size that training sees (EXIF rotation applied) and check that the file is whole.

    A PNG is checked by its chunks' checksums, a JPEG by its end marker, without decoding; other formats are decoded.
    """
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if image.format == 'PNG':
            image.verify()
        elif image.format in ('JPEG', 'MPO'):
            if image.getexif().get(_EXIF_ORIENTATION, 1) >= 5:
                width, height = height, width
            if not data.rstrip(b'\0').endswith(_JPEG_END):
                image.load()  # cut off, or other data after the end: only decoding tells
        else:
            image.load()
    return Facts(width, height)


def read_label(data: bytes, backend: str) -> Facts:
    """Read a label as mmseg's ``LoadAnnotations(imdecode_backend=backend)`` does, before its conversion to uint8."""
    read_image(data)  # OpenCV decodes a truncated file without an error, and Pillow one that lost only its end
    label = mmcv.imfrombytes(data, flag='unchanged', backend=backend)
    if label is None:
        raise UnreadableError(f'the backend {backend!r} does not decode it')
    label = label.squeeze()
    if label.ndim != 2:
        height, width = (*label.shape, 1, 1)[:2]
        return Facts(width, height, label.shape)
    if label.dtype in (np.uint8, bool):
        counts = np.bincount(label.ravel(), minlength=1)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(label.astype(np.int64), return_counts=True)
    return Facts(label.shape[1], label.shape[0], label.shape, tuple(values.tolist()), tuple(counts.tolist()))


def read_facts(path: str, reader: str) -> Facts:
    try:
        data = Path(path).read_bytes()
        if not data:
            raise UnreadableError('empty file (0 bytes)')
        return read_image(data) if reader == 'image' else read_label(data, reader)
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError('not a picture in a known format') from error
    except Exception as error:  # a damaged file can raise whatever its decoder meets
        raise UnreadableError(str(error) or type(error).__name__) from error


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/mmseg_ext``, or ``~/.cache/mmseg_ext`` where that is not set."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'mmseg_ext')


class FactStore:
    """Facts of the files of a dataset, kept in one cache file per set of folders.

    Args:
        files: (path, reader) pairs; reader is ``'image'``, or mmcv's decoding backend for a label.

    Attributes:
        num_read: files that were read, not taken from the cache.
        cache_error: why the facts could not be kept, or None.
    """

    def __init__(self, files: Iterable[tuple[str, str]]):
        self.files = list(dict.fromkeys((os.path.abspath(path), reader) for path, reader in files))
        folders = sorted({os.path.dirname(path) for path, _ in self.files})
        digest = hashlib.sha256('\n'.join(folders).encode(errors='surrogateescape')).hexdigest()[:20]
        self.path = cache_folder() / f'scan-{digest}.json'
        self.num_read = 0
        self.cache_error: str | None = None
        self._cache = self._load_cache()

    def collect(self) -> dict[tuple[str, str], Facts | UnreadableError | None]:
        """Return what each file holds; an error for one that does not decode, None for one that does not exist."""
        chunks = [self.files[i : i + _CHUNK] for i in range(0, len(self.files), _CHUNK)]
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:
            found = list(chain.from_iterable(pool.map(lambda chunk: [self._look(*file) for file in chunk], chunks)))
        facts = {}
        for (path, reader), (stamp, result, was_read) in zip(self.files, found, strict=True):
            facts[path, reader] = result
            self.num_read += was_read
            if was_read and isinstance(result, Facts) and len(result.values) <= 256:
                self._cache[f'{reader}:{path}'] = (stamp, result)
        if self.num_read:
            self._save_cache()
        return facts

    def _look(self, path: str, reader: str):
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None, None, False
        stamp = (stat.st_size, stat.st_mtime_ns)
        known_stamp, known = self._cache.get(f'{reader}:{path}', (None, None))
        if known_stamp == stamp:
            return stamp, known, False
        try:
            return stamp, read_facts(path, reader), True
        except UnreadableError as error:
            return stamp, error, True

    def _load_cache(self) -> dict[str, tuple[tuple[int, int], Facts]]:
        try:
            content = json.loads(self.path.read_bytes())
            if content['format'] != FORMAT:
                return {}
            return {
                key: ((size, mtime), Facts(width, height, tuple(shape), tuple(values), tuple(counts)))
                for key, (size, mtime, width, height, shape, values, counts) in content['files'].items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}  # no cache, or one that something else wrote or cut off

    def _save_cache(self) -> None:
        content = {'format': FORMAT, 'files': {key: [*stamp, *facts] for key, (stamp, facts) in self._cache.items()}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(self.path) as part:
                part.write_text(json.dumps(content, separators=(',', ':')))
        except OSError as error:
            self.cache_error = str(error)
