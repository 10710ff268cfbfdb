"""Read images and frames through a config's test pipeline, in threads, some ahead of the one that is used."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from mmengine.dataset import Compose

# It finds files that are cut off, too, which OpenCV decodes without an error.
from mmseg_ext.datasets.file_facts import UnreadableError, read_facts

from .sources import Source, open_video


class Item(NamedTuple):
    """An image (``frame`` None) or a video's frame: its pixels ``(H, W, 3)`` uint8, RGB, and what the pipeline made."""

    source: Source
    frame: int | None
    image: np.ndarray
    data: dict


class Reader:
    """Reads sources.

    Args:
        pipeline: the configs of a test pipeline whose first step loads the image; annotations are left out.
    """

    def __init__(self, pipeline: Sequence[dict]):
        first, *others = _without_annotations(pipeline)
        self._load = Compose([first])
        self._transform = Compose(others)

    def read(
        self, sources: Sequence[Source], workers: int, ahead: int, failed: dict[str, str] | None
    ) -> Iterator[Item]:
        """Yield images and frames in order.

        Args:
            sources: what to read.
            workers: number of threads.
            ahead: how many are read beyond the one that is used.
            failed: takes the paths of sources that can't be read, with the reason. None: the first one is raised.

        Raises:
            UnreadableError: a source can't be read.
        """
        pending = deque()

        def first() -> Iterator[Item]:
            source, future = pending.popleft()
            try:
                item = future.result()
            except Exception as error:  # a damaged file can raise whatever its decoder meets
                reason = str(error) if isinstance(error, UnreadableError) else f'{type(error).__name__}: {error}'
                if failed is None:
                    raise UnreadableError(f'{source.path}: {reason}') from error
                failed.setdefault(source.path, reason)
            else:
                yield item

        with ThreadPoolExecutor(workers) as pool:
            for source, frame, pixels in _jobs(sources):
                pending.append((source, pool.submit(self._item, source, frame, pixels)))
                if len(pending) > ahead:
                    yield from first()
            while pending:
                yield from first()

    def _item(self, source: Source, frame: int | None, pixels: np.ndarray | UnreadableError | None) -> Item:
        if isinstance(pixels, UnreadableError):
            raise pixels
        if pixels is None:
            read_facts(source.path, 'image')
            data = self._load(dict(img_path=source.path))
        else:
            # As mmseg's LoadImageFromNDArray. The pipeline has no file to look at.
            size = pixels.shape[:2]
            data = dict(img=pixels, img_path=None, img_shape=size, ori_shape=size)
        return Item(source, frame, _rgb(data['img']), self._transform(data))


def _jobs(sources: Sequence[Source]) -> Iterator[tuple[Source, int | None, np.ndarray | UnreadableError | None]]:
    """Yield images as (source, None, None), frames as (source, number, BGR pixels or why there are none)."""
    for source in sources:
        if not source.is_video:
            yield source, None, None
            continue
        frame = 0
        try:
            video = open_video(source.path)
            while (pixels := video.read()) is not None:
                yield source, frame, pixels
                frame += 1
            if frame == 0:
                raise UnreadableError('holds no frame that OpenCV can decode')
        except UnreadableError as error:
            yield source, frame, error


def _rgb(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3:
        raise UnreadableError(f'the pipeline loads it in the shape {image.shape}; it must be (H, W, 3)')
    return np.ascontiguousarray(image[..., ::-1].astype(np.uint8))


def _without_annotations(steps: Sequence) -> list:
    """Return the steps without loaders of annotations, and without the branches that held nothing else."""
    kept = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            step = _without_annotations(step)
            if not step:
                continue
        elif 'Annotation' in step['type']:
            continue
        elif 'transforms' in step:
            step = dict(step, transforms=_without_annotations(step['transforms']))
        kept.append(step)
    return kept
