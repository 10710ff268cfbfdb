"""Pictures: prediction panels and training curves."""

from .curves import plot_curves, read_scalars
from .panels import draw_panel

__all__ = ['draw_panel', 'plot_curves', 'read_scalars']
