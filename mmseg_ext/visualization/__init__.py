"""Pictures: prediction panels, training curves and confusion matrices."""

from .confusion import draw_confusion
from .curves import plot_curves, read_scalars
from .panels import draw_panel

__all__ = ['draw_confusion', 'draw_panel', 'plot_curves', 'read_scalars']
