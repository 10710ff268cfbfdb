"""Procedurally drawn street scenes in the Cityscapes layout: data with known truth for demos and tests.

Needs numpy and OpenCV only. ``write.py`` writes data sets, ``layout.py`` composes a scene, and the
other files draw its parts.
"""

from .write import render_scene, write_street_scenes

__all__ = ['render_scene', 'write_street_scenes']
