"""Small polygon meshes of the procedural street scenes: convex prisms with flat details on their faces.

A mesh's own frame is metres (x right, y up, z forward). As every prism is convex, back-face culling and the order of
drawing are all the visibility that a mesh needs.
"""

import math

import numpy as np

from .drawing import Canvas, Colour, round_outline

TYRE = (24.0, 24.0, 26.0)
_CIRCLE = round_outline(16)


class Mesh:
    """Polygons in the order of drawing; each is visible, and lit, as its host face is."""

    def __init__(self) -> None:
        self.faces: list[tuple[np.ndarray, Colour, int, bool]] = []

    def add(self, points: np.ndarray, colour: Colour, host: int | None = None, glows: bool = False) -> int:
        self.faces.append((np.asarray(points, float), colour, len(self.faces) if host is None else host, glows))
        return len(self.faces) - 1

    def prism(self, profile: list[tuple[float, float, float]], colour: Colour) -> 'Prism':
        """Adds the hull of a convex side profile of (z, y, half width): rear bottom, over the top, front bottom."""
        return Prism(self, np.array(profile), colour)

    def draw(self, canvas: Canvas, s: float, z: float, heading: float, label: int) -> None:
        """Draws the mesh with its origin at (s, z) on the ground; heading 0 drives away from the camera."""
        local = np.concatenate([points for points, *_ in self.faces])
        cos, sin = math.cos(heading), math.sin(heading)
        x, y, ahead = local.T
        world = np.stack([s + x * cos + ahead * sin, y, z - x * sin + ahead * cos], axis=1)
        flat = canvas.camera.project(world)
        start = 0
        visible, lit = [], []
        for points, colour, host, glows in self.faces:
            stop = start + len(points)
            if host == len(visible):
                u, v = flat[start:stop].T
                shown = u[:-1] @ v[1:] - v[:-1] @ u[1:] + u[-1] * v[0] - v[-1] * u[0] > 0
                visible.append(shown)
                lit.append(_normal(world[start:stop]) if shown else None)
            else:
                visible.append(visible[host])
                lit.append(lit[host])
            if visible[-1]:
                away = world[start, 2]
                shaded = canvas.light.hazed(colour, away) if glows else canvas.light.shade(colour, lit[-1], away)
                canvas.polygon(flat[start:stop], shaded, label)
            start = stop


class Prism:
    """The faces of one convex prism, and places on them to put details."""

    def __init__(self, mesh: Mesh, profile: np.ndarray, colour: Colour) -> None:
        self.mesh, self.profile = mesh, profile
        z, y, half = profile.T
        order = np.argsort(y, kind='stable')
        self.heights, self.halves = y[order], half[order]
        right, left = np.stack([half, y, z], 1), np.stack([-half, y, z], 1)
        self.edges = []
        for i in range(len(profile)):
            j = (i + 1) % len(profile)
            self.edges.append(mesh.add([right[j], right[i], left[i], left[j]], colour))
        self.right, self.left = mesh.add(right, colour), mesh.add(left[::-1], colour)

    def on_sides(self, outline: np.ndarray, colour: Colour) -> None:
        """Puts a polygon of (z, y) on both sides."""
        z, y = np.asarray(outline, float).T
        half = np.interp(y, self.heights, self.halves)
        self.mesh.add(np.stack([half, y, z], 1), colour, self.right)
        self.mesh.add(np.stack([-half, y, z], 1), colour, self.left)

    def on_edge(self, edge: int, outline: np.ndarray, colour: Colour, glows: bool = False) -> None:
        """Puts a polygon of (u, t) on the face of a profile edge: u in -1..1 across, t in 0..1 along the edge."""
        u, t = np.asarray(outline, float).T
        start, end = self.profile[edge], self.profile[(edge + 1) % len(self.profile)]
        z, y, half = start[:, None] + (end - start)[:, None] * t
        self.mesh.add(np.stack([u * half, y, z], 1), colour, self.edges[edge], glows)

    def wheels(self, centres: list[float], radius: float, hub: Colour) -> None:
        for z in centres:
            self.on_sides(_CIRCLE * radius * 1.16 + (z, radius), (18.0, 18.0, 20.0))
            self.on_sides(_CIRCLE * radius + (z, radius), TYRE)
            self.on_sides(_CIRCLE * radius * 0.6 + (z, radius), hub)


def _normal(points: np.ndarray) -> tuple[float, float, float]:
    """Outward unit normal of a polygon (N, 3) whose vertices run clockwise as seen from outside (Newell's sum)."""
    normal = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)
    x, y, z = (normal / max(float(np.linalg.norm(normal)), 1e-9)).tolist()
    return x, y, z
