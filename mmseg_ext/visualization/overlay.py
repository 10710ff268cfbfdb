"""The picture of a prediction: an image with the colours of its labels laid over it."""

from collections.abc import Sequence

import cv2
import numpy as np

from .panels import colourise, draw_tiles, legend_entries


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]], opacity: float = 0.5
) -> np.ndarray:
    """Blend an image with the colours of its labels; pixels whose label has no colour (255) stay as they are.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        labels: ``(H, W)``.
        palette: colours of the classes, RGB in 0..255.
        opacity: share of the colours, from 0 (the image) to 1 (the colours).

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ValueError: the opacity is not between 0 and 1, or the label map's size differs from the image's.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f'opacity={opacity} must be between 0 and 1')
    if labels.shape != image.shape[:2]:
        raise ValueError(f'labels of size {labels.shape} do not fit the image of size {image.shape[:2]}')
    blended = cv2.addWeighted(image, 1 - opacity, colourise(labels, palette), opacity, 0)
    unknown = labels >= len(palette)
    blended[unknown] = image[unknown]
    return blended


def draw_side_by_side(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
    whole_legend: bool = False,
) -> np.ndarray:
    """Draw image | overlay over a legend.

    Args:
        image, labels, palette, opacity: as :func:`draw_overlay`.
        classes: names of the classes.
        whole_legend: name all classes and not only those that occur, so that frames of a video have the same size.

    Returns:
        The panel, ``(H', W', 3)`` uint8, RGB.
    """
    shown = np.arange(len(classes)) if whole_legend else labels
    tiles = [('image', image), ('prediction', draw_overlay(image, labels, palette, opacity))]
    return draw_tiles(tiles, legend_entries(shown, classes, palette))
