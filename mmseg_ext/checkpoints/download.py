"""Download weights once, whole, and only if their hash is the published one."""

import hashlib
import http.client
import os
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import urlopen

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log

from mmseg_ext.files import written_whole

from .loading import load_file
from .urls import resolve

_HASH = re.compile(r'.*-([0-9a-f]{8,64})\.pth(\.tar)?')
_CHUNK = 1 << 20
_SECONDS = 30
# Of 255 that file systems allow; `written_whole` adds some of its own. The end is kept: the hash and the suffix.
_LONGEST_NAME = 200


def published_hash(file_name: str) -> str | None:
    """Return the first digits of the SHA-256 that a published file carries in its name, or None."""
    found = _HASH.fullmatch(file_name)
    return found.group(1) if found else None


def load_checkpoint(source: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Load a checkpoint from a path, an http(s) URL, or a name like ``torchvision://resnet50``.

    Raises:
        ValueError: the name is unknown; or as :func:`download`.
        ConnectionError: the download failed.
        FileNotFoundError, UnsafeCheckpointError, ValueError: as :func:`.loading.load_file`.
    """
    resolved = resolve(os.fspath(source))
    if not resolved.startswith(('http://', 'https://')):
        return load_file(resolved, map_location)
    # One process downloads, the others find the file; a failure there is met again by each of them.
    try:
        if get_rank() == 0:
            download(resolved)
    finally:
        barrier()
    return load_file(download(resolved), map_location)


def download(url: str, folder: str | os.PathLike | None = None) -> Path:
    """Download ``url`` into ``folder``, or find it there, and return its path.

    A file whose name ends in a hash, ``NAME-0123abcd.pth``, has that SHA-256, whether it was there or is new. Any other
    is in a folder of its own in ``folder``, named by the address, as two addresses may end in one name.

    Args:
        url: an http or https address; all of it counts, with what follows a question mark.
        folder: by default where torch.hub and mmengine keep theirs.

    Raises:
        ValueError: the address names no file; the downloaded file has another hash, and nothing of it is kept; or the
            folder can't be written to.
        ConnectionError: the download failed or broke off; nothing of it is kept.
    """
    name = _file_name(url)
    expected = published_hash(name)
    folder = Path(folder or Path(torch.hub.get_dir(), 'checkpoints'))
    if expected is None:
        folder /= hashlib.sha256(url.encode()).hexdigest()[:16]
    path = folder / name
    if os.path.isfile(path) and (expected is None or _sha256(path).startswith(expected)):
        return path
    _make_folder(folder, url)
    print_log(f'downloading {url} to {path}', logger='current')
    with written_whole(path) as part:
        digest = hashlib.sha256()
        with part.open('xb') as file:
            for chunk in _chunks(url):
                file.write(chunk)
                digest.update(chunk)
        got = digest.hexdigest()
        if expected is not None and not got.startswith(expected):
            raise ValueError(
                f'the download of {url} was refused and deleted: by its name its SHA-256 starts with {expected}, '
                f'but it is {got}. The file is damaged or was replaced: try again, or download it by hand and '
                'give its path'
            )
    return path


def _file_name(url: str) -> str:
    """Return the name of the file that an address means.

    Raises:
        ValueError: it is none, or would lead out of its folder.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f'{url!r} is no address: {error}') from None
    if parts.scheme not in ('http', 'https') or not parts.netloc:
        raise ValueError(f'{url!r} is no address of a file: it begins with http:// or https:// and a host')
    # Separators first: a quoted one, %2F, is none of the address, but would be one of the path.
    name = unquote(parts.path.rpartition('/')[2])
    if name in ('', '.', '..') or not name.isprintable() or '/' in name or '\\' in name:
        raise ValueError(f'{url!r} does not end in the name of a file: give an address that does, http://HOST/NAME.pth')
    return name.encode()[-_LONGEST_NAME:].decode(errors='ignore')


def _make_folder(folder: Path, url: str) -> None:
    reason = None
    if str(folder).startswith('~'):
        reason = 'the home folder is not known'
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
    if reason or not os.access(folder, os.W_OK):
        raise ValueError(
            f'{url} can not be downloaded to the folder {folder}: {reason or "it may not be written to"}. Set the '
            'environment variable TORCH_HOME to a folder that may'
        )


def _chunks(url: str) -> Iterator[bytes]:
    got = 0
    try:
        with urlopen(quote(url, safe=string.punctuation), timeout=_SECONDS) as response:
            announced = response.headers.get('Content-Length', '')
            while chunk := response.read(_CHUNK):
                got += len(chunk)
                yield chunk
    except HTTPError as error:
        raise ConnectionError(
            f'the download of {url} failed: the server answers {error.code} {error.reason}. '
            'Download it by hand and give its path'
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise ConnectionError(
            f'the download of {url} failed: {reason}. Download it by hand and give its path'
        ) from error
    if announced.isdigit() and got != int(announced):
        raise ConnectionError(f'the download of {url} broke off after {got} of {announced} bytes: try again')


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
