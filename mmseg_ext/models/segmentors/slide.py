"""Prediction by sliding windows, as mmseg's ``slide_inference``, that holds a band of the image as high as a window.

Windows come row by row. Rows of the image that no later window touches are averaged, resized to the original image and
handed on, and the band moves on.
"""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor

from mmseg_ext.layers import Resampling
from mmseg_ext.layers.products import may_multiply
from mmseg_ext.layers.resampling import compute_dtype, stream_tiles

from .image_logits import ImageLogits, Tile, each_within, to_original

# Start and end along an axis.
Span = tuple[int, int]


def window_sizes(test_cfg: Mapping) -> tuple[Sequence[int], Sequence[int]]:
    """Return ``crop_size`` and ``stride`` of the windows, height and width each.

    Raises:
        ValueError: one of them is not there or not two positive integers, or windows leave gaps between them.
    """
    missing = [name for name in ('crop_size', 'stride') if test_cfg.get(name) is None]
    if missing:
        raise ValueError(f"test_cfg.mode='slide' needs {' and '.join(missing)} of the windows: two numbers each")
    for name in ('crop_size', 'stride'):
        value = test_cfg[name]
        if not (isinstance(value, Sequence) and len(value) == 2 and all(map(_is_length, value))):
            example = f', such as ({value}, {value})' if _is_length(value) else ''
            raise ValueError(
                f'test_cfg.{name}={value!r} must be two positive integers, the height and the width{example}'
            )
    crop, stride = test_cfg['crop_size'], test_cfg['stride']
    if stride[0] > crop[0] or stride[1] > crop[1]:
        raise ValueError(
            f'test_cfg.stride={tuple(stride)} is larger than crop_size={tuple(crop)}: no window would see the pixels '
            'between two of them; make it as large as crop_size at most'
        )
    return crop, stride


def _is_length(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def slide_logits(segmentor, inputs: Tensor, metas: list[dict]) -> list[ImageLogits]:
    """Run the windows of preprocessed images ``(B, C, H, W)`` through the network, when the tiles are asked for.

    Args:
        segmentor: an ``EncoderDecoder``, with ``crop_size`` and ``stride`` of the windows and, optionally, how many of
            an image go through the network at once (``batch``) in its ``test_cfg``.
        inputs: the images.
        metas: what is known of each.
    """
    return [
        ImageLogits(tuple(meta['ori_shape'][:2]), each_within(torch.no_grad, _tiles(segmentor, image, meta)))
        for image, meta in zip(inputs, metas, strict=True)
    ]


def _tiles(segmentor, image: Tensor, meta: dict) -> Iterator[Tile]:
    size, align_corners = image.shape[1:], segmentor.align_corners
    rows, columns = map(_windows, size, *window_sizes(segmentor.test_cfg))
    row_counts, column_counts = map(_counts, (rows, columns), size)
    runs = _run_windows(segmentor, image, [(row, column) for row in rows for column in columns])
    band = None
    for (start, stop), (following, _) in zip(rows, [*rows[1:], (size[0], None)], strict=True):
        for left, right in columns:
            logits = next(runs)
            if band is None:
                band = logits.new_zeros(logits.shape[1], stop - start, size[1], dtype=compute_dtype(logits))
                original = _Original(to_original(Resampling(size, band.dtype), meta, align_corners), band)
            _add_resized(band[:, :, left:right], logits, align_corners)
        finished = band[:, : following - start] / (row_counts[start:following, None] * column_counts).to(band)
        # The rows that stay, and zeros for those that the next windows reach.
        band = torch.cat([band[:, following - start :], torch.zeros_like(finished)], dim=1)
        original.take(finished)
        del logits, finished
        yield from original.tiles()


def _add_resized(part: Tensor, logits: Tensor, align_corners: bool) -> None:
    chain = Resampling(logits.shape[2:], part.dtype).resize(part.shape[1:], align_corners)
    for (_, rows, columns), tile in stream_tiles(logits, chain):
        part[:, rows, columns] += tile


def _windows(length: int, crop: int, stride: int) -> list[Span]:
    """Start and end of the windows along an axis; the last one is moved back into the image."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(count)]
    return [(max(end - crop, 0), end) for end in ends]


def _counts(windows: list[Span], length: int) -> Tensor:
    """In how many windows each position lies."""
    counts = torch.zeros(length, dtype=torch.float32)
    for start, stop in windows:
        counts[start:stop] += 1
    return counts


def _run_windows(segmentor, image: Tensor, windows: list[tuple[Span, Span]]) -> Iterator[Tensor]:
    """Yield the low-resolution logits ``(1, C, h, w)`` of the windows of an image ``(C, H, W)``, in order."""
    batch = segmentor.test_cfg.get('batch', 1)
    for i in range(0, len(windows), batch):
        crops = [image[:, slice(*row), slice(*column)] for row, column in windows[i : i + batch]]
        yield from segmentor.logits(torch.stack(crops)).split(1)


class _Original:
    """The original image's logits: takes rows of those of the input, gives the tiles of which all is there."""

    def __init__(self, resampling: Resampling, like: Tensor):
        self.resampling, self.products = resampling, True
        # Under a vertical flip the first rows to come are the last of the output.
        rows, self.columns = resampling.tiles(len(like), like)
        self.pending = sorted(rows, key=lambda row: row.last)
        self.kept, self.top = like.new_empty(len(like), 0, like.shape[2]), 0

    def take(self, rows: Tensor) -> None:
        """Take the next rows ``(C, n, W)``."""
        if self.products and not may_multiply(rows):
            self.products, due = False, {row.start for row in self.pending}
            blocks, self.columns = self.resampling.tiles(len(rows), rows, products=False)
            self.pending = sorted((row for row in blocks if row.start in due), key=lambda row: row.last)
        self.kept = torch.cat([self.kept, rows], dim=1)

    def tiles(self) -> Iterator[Tile]:
        """Give the tiles that are due, and forget the rows that none needs any more."""
        end = self.top + self.kept.shape[1]
        while self.pending and self.pending[0].last <= end:
            row = self.pending.pop(0)
            strip = row._replace(first=row.first - self.top, last=row.last - self.top).rows(self.kept)
            for column in self.columns:
                yield (0, row.outputs, column.outputs), column.columns(strip)
        needed = min((row.first for row in self.pending), default=end)
        if self.top < needed <= end:
            self.kept, self.top = self.kept[:, needed - self.top :].clone(), needed
