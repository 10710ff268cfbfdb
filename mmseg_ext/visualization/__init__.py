"""Pictures: overlays, prediction panels, training curves and confusion matrices."""

from .confusion import draw_confusion
from .curves import plot_curves, read_log, read_scalars
from .overlay import draw_overlay, draw_side_by_side
from .panels import draw_panel

__all__ = [
    'draw_confusion',
    'draw_overlay',
    'draw_panel',
    'draw_side_by_side',
    'plot_curves',
    'read_log',
    'read_scalars',
]
