"""Prediction by sliding windows, as mmseg's ``slide_inference``, that holds a band of the image as high as a window.

Windows come row by row. Rows of the image that no later window touches are averaged, resized to the original image and
handed on (to be reduced to labels, say), and the band moves on.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mmseg_ext.layers import Resampling
from mmseg_ext.layers.resampling import compute_dtype, stream_tiles

from .streaming import to_original


@torch.no_grad()
def slide_maps(segmentor, inputs: Tensor, metas: list[dict], new_map: Callable) -> list:
    """Fill a map of each image, at its original size, from the mean of the windows' logits.

    Args:
        segmentor: an ``EncoderDecoder``, with ``crop_size`` and ``stride`` of the windows and, optionally, how many of
            them go through the network at once (``batch``) in its ``test_cfg``.
        inputs: preprocessed images, ``(B, C, H, W)``.
        metas: what is known of each.
        new_map: makes the map of an image from its shape ``(1, H, W)``, the number of classes and the device. Its
            ``set`` takes logits tile by tile, as that of ``layers.streamed_labels.LabelMap``.

    Returns:
        The maps.
    """
    size, align_corners = inputs.shape[2:], segmentor.align_corners
    rows, columns = map(_windows, size, segmentor.test_cfg.crop_size, segmentor.test_cfg.stride)
    row_counts, column_counts = map(_counts, (rows, columns), size)
    band, top, sinks = None, 0, None
    for i, (start, stop) in enumerate(rows):
        for image, (left, right), logits in _run_windows(segmentor, inputs, (start, stop), columns):
            if band is None:
                dtype, classes = compute_dtype(logits), logits.shape[1]
                band = logits.new_zeros(len(inputs), classes, stop - start, size[1], dtype=dtype)
                chains = [to_original(Resampling(size, dtype), meta, align_corners) for meta in metas]
                sinks = [_Sink(chain, band, new_map) for chain in chains]
            part = band[image, :, start - top : stop - top, left:right]
            chain = Resampling(logits.shape[2:], dtype).resize(part.shape[1:], align_corners)
            for (_, r, c), tile in stream_tiles(logits, chain):
                part[:, r, c] += tile
        finished = rows[i + 1][0] if i + 1 < len(rows) else size[0]
        counts = row_counts[top:finished, None] * column_counts
        mean = band[:, :, : finished - top] / counts.to(band)
        for sink, logits in zip(sinks, mean, strict=True):
            sink.add(logits)
        # The rows that stay, and zeros for those that the next windows reach.
        band = torch.cat([band[:, :, finished - top :], torch.zeros_like(mean)], dim=2)
        top = finished
    return [sink.result for sink in sinks]


def _windows(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """Start and end of the windows along an axis; the last one is moved back into the image."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(count)]
    return [(max(end - crop, 0), end) for end in ends]


def _counts(windows: list[tuple[int, int]], length: int) -> Tensor:
    """In how many windows each position lies."""
    counts = torch.zeros(length)
    for start, stop in windows:
        counts[start:stop] += 1
    return counts


def _run_windows(segmentor, inputs, row, columns) -> Iterator[tuple[int, tuple[int, int], Tensor]]:
    """Yield image, columns and low-resolution logits ``(1, C, h, w)`` of the windows of a row."""
    windows = [(image, column) for column in columns for image in range(len(inputs))]
    batch = segmentor.test_cfg.get('batch', 1)
    for i in range(0, len(windows), batch):
        some = windows[i : i + batch]
        crops = torch.stack([inputs[image, :, slice(*row), slice(*column)] for image, column in some])
        logits = segmentor.logits(crops)
        for (image, column), logit in zip(some, logits, strict=True):
            yield image, column, logit[None]


class _Sink:
    """Takes the rows of an image's logits as they come, and puts those of which all is there into its map."""

    def __init__(self, resampling: Resampling, band: Tensor, new_map: Callable):
        classes = band.shape[1]
        self.result = new_map((1, *resampling.out_size), classes, band.device)
        rows, self.columns = resampling.tiles(classes, band)
        # Under a vertical flip the first rows to come are the last of the output.
        self.pending = sorted(rows, key=lambda row: row.last)
        self.kept, self.top = band.new_empty(classes, 0, band.shape[3]), 0

    def add(self, logits: Tensor) -> None:
        """Take the next rows ``(C, n, W)``."""
        self.kept = torch.cat([self.kept, logits], dim=1)
        end = self.top + self.kept.shape[1]
        while self.pending and self.pending[0].last <= end:
            row = self.pending.pop(0)
            strip = row._replace(first=row.first - self.top, last=row.last - self.top).rows(self.kept)
            for column in self.columns:
                self.result.set((0, row.outputs, column.outputs), column.columns(strip))
        needed = min((row.first for row in self.pending), default=end)
        if self.top < needed <= end:
            self.kept, self.top = self.kept[:, needed - self.top :].clone(), needed
