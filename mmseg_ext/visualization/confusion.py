"""A picture of a confusion matrix."""

import os
from collections.abc import Sequence

import matplotlib.figure
import numpy as np
from matplotlib.colors import PowerNorm

_CELL = 0.42  # inches: room for '100.0' at the font's size
_FONT = 9
_FEW = 40  # classes, above which cells shrink and values lose their decimal


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: str | os.PathLike) -> None:
    """Draw what the pixels of each class were predicted as, in percent of the class.

    Values that round to zero are left out; a class without pixels has an empty row.

    Args:
        matrix: ``(C, C)`` counts, row = truth, column = prediction.
        classes: names of the C classes.
        path: the picture; its ending gives the format.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    totals = matrix.sum(1, keepdims=True)
    percent = 100 * np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    many = len(classes) > _FEW
    cell, decimals, font = (_CELL / 2, 0, _FONT * 0.6) if many else (_CELL, 1, _FONT * 0.8)

    names = max(len(name) for name in classes) * font / 72 * (1.5 if many else 0.75)
    side = max(4, cell * len(classes) + names + 1)
    figure = matplotlib.figure.Figure(figsize=(side, side), layout='constrained')
    axes = figure.add_subplot()
    # By the square root, so that a confusion of a few percent can be seen.
    axes.imshow(percent, cmap='Blues', norm=PowerNorm(0.5, vmin=0, vmax=100))
    ticks = np.arange(len(classes))
    axes.set_xticks(ticks, classes, rotation=90, fontsize=font + 1)
    axes.set_yticks(ticks, classes, fontsize=font + 1)
    axes.set_xlabel('prediction')
    axes.set_ylabel('truth')
    axes.set_title('% of the pixels of each true class')
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which='minor', color='0.85', linewidth=0.5)
    axes.tick_params(which='minor', length=0)
    axes.tick_params(labeltop=many, labelright=many)
    for row, column in np.argwhere(percent.round(decimals) > 0):
        value = percent[row, column]
        colour = 'white' if value > 30 else 'black'
        axes.text(column, row, f'{value:.{decimals}f}', ha='center', va='center', fontsize=font, color=colour)
    figure.savefig(path, dpi=120)
