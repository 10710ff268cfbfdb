"""Write predictions: overlays, label maps, image and overlay side by side; every file whole or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmseg_ext.visualization import draw_overlay, draw_side_by_side

from .predictor import Prediction
from .sources import Source, open_video

OUTPUTS = ('overlay', 'labels', 'side')
# What a video without a frame rate is played at.
_FRAME_RATE = 25


def output_path(out: Path, kind: str, source: Source) -> Path:
    """Return the file that results go to, or, for the labels of a video, the folder."""
    if kind == 'labels':
        suffix = '' if source.is_video else '.png'
    else:
        suffix = '.mp4' if source.is_video else '.jpg'
    return Path(out, kind, source.name + suffix)


class OutputWriter:
    """Writes predictions below a folder, a folder for each kind of output. A context, which closes the last video.

    - ``overlay/NAME.jpg``: the image with the colours of its labels laid over it.
    - ``labels/NAME.png``: class indices, as ``tools/test.py --out`` writes them; 16 bits a pixel above 256 classes.
    - ``side/NAME.jpg``: image | overlay over a legend of the classes that occur.

    A video gives ``NAME.mp4`` at its frame rate, with all classes in the legend, and ``labels/NAME/000000.png``, ....

    Args:
        out: the folder; made if missing.
        kinds: some of ``OUTPUTS``.
        classes, palette: names and colours of the classes.
        opacity: share of the colours in overlays.
    """

    def __init__(
        self,
        out: Path,
        kinds: Sequence[str],
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        opacity: float,
    ):
        self.out, self.kinds = out, kinds
        self.classes, self.palette, self.opacity = classes, palette, opacity
        self._source: Source | None = None
        self._videos: dict[Path, cv2.VideoWriter] = {}

    def __enter__(self) -> 'OutputWriter':
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        self._close_videos(keep=kind is None)

    def write(self, prediction: Prediction) -> None:
        """Write all outputs of an image, or the next frame of a video."""
        source = prediction.source
        if source != self._source:
            self._close_videos(keep=True)
            self._source = source
        for kind in self.kinds:
            path = output_path(self.out, kind, source)
            picture = self._draw(kind, prediction)
            if source.is_video and kind == 'labels':
                path = path / f'{prediction.frame:06}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == '.mp4':
                self._write_frame(path, picture)
            else:
                _write_image(path, picture)

    def _draw(self, kind: str, prediction: Prediction) -> np.ndarray:
        image, labels = prediction.image, prediction.labels
        if kind == 'labels':
            return labels
        if kind == 'overlay':
            return draw_overlay(image, labels, self.palette, self.opacity)
        whole = prediction.source.is_video
        return draw_side_by_side(image, labels, self.classes, self.palette, self.opacity, whole_legend=whole)

    def _write_frame(self, path: Path, picture: np.ndarray) -> None:
        if path not in self._videos:
            rate = open_video(self._source.path).fps or _FRAME_RATE
            codec = cv2.VideoWriter_fourcc(*'mp4v')
            self._videos[path] = cv2.VideoWriter(str(_part(path)), codec, rate, picture.shape[1::-1])
            if not self._videos[path].isOpened():
                raise RuntimeError(f'OpenCV cannot write the video {path}; its build needs FFmpeg')
        self._videos[path].write(picture[..., ::-1])

    def _close_videos(self, keep: bool) -> None:
        for path, video in self._videos.items():
            video.release()
            if keep:
                os.replace(_part(path), path)
            else:
                _part(path).unlink(missing_ok=True)
        self._videos.clear()


def _part(path: Path) -> Path:
    # The end tells OpenCV the format.
    return path.with_name(f'{path.stem}.part{path.suffix}')


def _write_image(path: Path, picture: np.ndarray) -> None:
    part = _part(path)
    try:
        Image.fromarray(picture).save(part, **(dict(quality=95) if path.suffix == '.jpg' else {}))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
