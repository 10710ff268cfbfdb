"""Download weights once, whole, and only if their hash is the published one."""

import hashlib
import http.client
import os
import re
import uuid
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlparse
from urllib.request import urlopen

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log

from .loading import load_file
from .urls import resolve

_HASH = re.compile(r'-([0-9a-f]{8,64})\.pth(\.tar)?$')
_CHUNK = 1 << 20


def published_hash(file_name: str) -> str | None:
    """Return the first digits of the SHA-256 that a published file carries in its name, or None."""
    found = _HASH.search(file_name)
    return found.group(1) if found else None


def load_checkpoint(source: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Load a checkpoint from a path, an http(s) URL, or a name like ``torchvision://resnet50``.

    Raises:
        ValueError: the name is unknown, or the download has another hash than its name says.
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

    A file whose name ends in a hash, ``NAME-0123abcd.pth``, has that SHA-256, whether it was there or is new.

    Args:
        url: an http or https address.
        folder: by default where torch.hub and mmengine keep theirs.

    Raises:
        ValueError: the downloaded file has another hash; nothing of it is kept.
        ConnectionError: the download failed or broke off; nothing of it is kept.
    """
    folder = Path(folder or Path(torch.hub.get_dir(), 'checkpoints'))
    path = folder / unquote(Path(urlparse(url).path).name)
    expected = published_hash(path.name)
    if path.is_file() and (expected is None or _sha256(path).startswith(expected)):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    print_log(f'downloading {url} to {path}', logger='current')
    part = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    try:
        with part.open('xb') as file:
            _fetch(url, file)
        if expected is not None:
            got = _sha256(part)
            if not got.startswith(expected):
                raise ValueError(
                    f'the download of {url} was refused and deleted: by its name its SHA-256 starts with {expected}, '
                    f'but it is {got}. The file is damaged or was replaced: try again, or download it by hand and '
                    'give its path'
                )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _fetch(url: str, file: IO[bytes]) -> None:
    try:
        with urlopen(url, timeout=60) as response:
            announced = response.headers.get('Content-Length')
            while chunk := response.read(_CHUNK):
                file.write(chunk)
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f'the download of {url} failed: {error}. Download it by hand and give its path'
        ) from error
    if announced is not None and file.tell() != int(announced):
        raise ConnectionError(f'the download of {url} broke off after {file.tell()} of {announced} bytes: try again')


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
