"""Predict images and videos into files; ``tools/predict.py`` only parses arguments and calls this."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import ProgressBar

from mmseg_ext.datasets.file_facts import UnreadableError

from .outputs import OUTPUTS, OutputWriter, output_path
from .predictor import Predictor
from .sources import Source, find_sources, open_video


def predict_files(
    cfg: Config,
    checkpoint: str | os.PathLike,
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    outputs: Sequence[str] = ('overlay',),
    opacity: float = 0.5,
    batch_size: int = 1,
    workers: int = 2,
    **options: Any,
) -> dict[str, str]:
    """Predict images and videos, write the results, and print a summary and what could not be read.

    Args:
        cfg, checkpoint, options: as :class:`.predictor.Predictor`.
        inputs: image files, videos, folders and globs, see :func:`.sources.find_sources`.
        out: folder for the results, see :class:`.outputs.OutputWriter`. Files there are overwritten.
        outputs: some of 'overlay', 'labels' and 'side'.
        opacity: share of the colours in overlays.
        batch_size, workers: as :meth:`.predictor.Predictor.predict`.

    Returns:
        The inputs that could not be read, with the reason.

    Raises:
        FileNotFoundError: none of the inputs leads to an image or a video, or there is no such checkpoint.
        ValueError: a result would overwrite an input, or an argument is wrong.
    """
    out = Path(out)
    unknown = [kind for kind in outputs if kind not in OUTPUTS]
    if unknown or not outputs:
        raise ValueError(f'outputs={list(outputs)} must be some of {list(OUTPUTS)}')
    if not 0 <= opacity <= 1:
        raise ValueError(f'opacity={opacity} must be between 0 and 1')
    # Results of an earlier run are no inputs.
    sources, failed = find_sources(inputs, skip=[out / kind for kind in OUTPUTS])
    if not sources:
        raise FileNotFoundError('there is nothing to predict:\n' + _listed(failed))
    paths = {source.path for source in sources}
    for target in (output_path(out, kind, source) for source in sources for kind in outputs):
        if os.path.abspath(target) in paths:
            raise ValueError(f'--out {out}: a result would overwrite the input {target}; choose another folder')
    total = len(sources) + len(failed)

    predictor = Predictor(cfg, checkpoint, **options)
    bar = ProgressBar(_count(sources), file=sys.stderr) if sys.stderr.isatty() else None
    start, images, frames = time.monotonic(), 0, 0
    with OutputWriter(out, outputs, predictor.classes, predictor.palette, opacity) as writer:
        for prediction in predictor.predict_sources(sources, batch_size, workers, failed):
            writer.write(prediction)
            images += prediction.frame is None
            frames += prediction.frame is not None
            if bar is not None:
                bar.update()
    if bar is not None:
        print(file=sys.stderr)
    counts = ' and '.join(
        f'{count} {noun}{"s" * (count > 1)}' for count, noun in ((images, 'image'), (frames, 'video frame')) if count
    )
    print(f'{counts or "nothing"} in {time.monotonic() - start:.1f} s: {out}/{{{",".join(outputs)}}}')
    if failed:
        print(f'{len(failed)} of {total} inputs could not be read:\n{_listed(failed)}', file=sys.stderr)
    return failed


def _count(sources: Sequence[Source]) -> int:
    """Return the number of images and of frames, as far as videos tell."""
    total = 0
    for source in sources:
        try:
            total += max(open_video(source.path).frame_cnt, 0) if source.is_video else 1
        except UnreadableError:
            continue
    return total


def _listed(failed: dict[str, str]) -> str:
    return '\n'.join(f'  {path}: {reason}' for path, reason in failed.items())
