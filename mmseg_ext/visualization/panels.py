"""A picture that shows an image, its truth and a prediction side by side, with a legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

IGNORED_COLOUR = (0, 0, 0)
_GAP = 8
_BACKGROUND = (255, 255, 255)


def colourise(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Map labels ``(H, W)`` to colours ``(H, W, 3)`` uint8; labels without a colour (255, ignored) become black."""
    table = np.full((max(256, len(palette)), 3), IGNORED_COLOUR, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[labels.astype(np.uint16)]


def legend_entries(
    labels: np.ndarray, classes: Sequence[str], palette: Sequence[Sequence[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and colour of each class that occurs in ``labels``, an array of any shape."""
    return [(classes[i], tuple(palette[i])) for i in np.unique(labels).astype(int) if i < len(classes)]


def draw_panel(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> np.ndarray:
    """Draw image | truth | prediction over a legend of the classes that occur.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        truth: labels ``(H, W)``, 255 where ignored; None leaves the middle out.
        prediction: labels ``(H, W)``.
        classes: names of the classes.
        palette: their colours, RGB in 0..255.

    Returns:
        The panel, ``(H', W', 3)`` uint8, RGB.

    Raises:
        ValueError: a label map's size differs from the image's.
    """
    tiles = [('image', image)]
    for title, labels in (('truth', truth), ('prediction', prediction)):
        if labels is None:
            continue
        if labels.shape != image.shape[:2]:
            raise ValueError(f'{title} of size {labels.shape} does not fit the image of size {image.shape[:2]}')
        tiles.append((title, colourise(labels, palette)))
    shown = [labels for labels in (truth, prediction) if labels is not None]
    entries = legend_entries(np.concatenate([labels.ravel() for labels in shown]), classes, palette)
    if truth is not None and (truth >= len(classes)).any():
        entries.append(('ignored', IGNORED_COLOUR))
    return draw_tiles(tiles, entries)


def draw_tiles(tiles: Sequence[tuple[str, np.ndarray]], entries: Sequence[tuple[str, tuple[int, ...]]]) -> np.ndarray:
    """Draw pictures side by side over a legend.

    Args:
        tiles: title and picture of each, ``(H, W, 3)`` uint8, RGB, all of one size.
        entries: name and colour of each line of the legend.

    Returns:
        The panel, ``(H', W', 3)`` uint8, RGB.
    """
    height, width = tiles[0][1].shape[:2]
    size = max(11, min(height, width) // 24)
    font = ImageFont.load_default(size)
    line = int(size * 1.5)
    total_width = len(tiles) * width + (len(tiles) - 1) * _GAP
    rows = _wrap([font.getlength(name) + 2 * line for name, _ in entries], total_width)
    panel = Image.new('RGB', (total_width, line + height + _GAP + line * len(rows)), _BACKGROUND)
    draw = ImageDraw.Draw(panel)
    for i, (title, tile) in enumerate(tiles):
        left = i * (width + _GAP)
        draw.text((left, 0), title, fill='black', font=font)
        panel.paste(Image.fromarray(tile), (left, line))
    for r, row in enumerate(rows):
        top = line + height + _GAP + r * line
        for left, i in row:
            name, colour = entries[i]
            draw.rectangle((left, top, left + size, top + size), fill=colour, outline='black')
            draw.text((left + line, top), name, fill='black', font=font)
    return np.asarray(panel)


def _wrap(widths: Sequence[float], total: int) -> list[list[tuple[int, int]]]:
    """Place items of the given widths in rows; each row lists (left edge, index of the item)."""
    rows, left = [[]], 0
    for i, width in enumerate(widths):
        if left and left + width > total:
            rows.append([])
            left = 0
        rows[-1].append((int(left), i))
        left += width
    return rows
