"""The things that stand on a procedural street: their shadows, their room and the order of drawing them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from . import drawing as d
from . import furniture as furniture
from . import ground as ground
from .vehicles import draw_bus, draw_car, draw_tram, draw_truck

VEHICLES = {
    d.CAR: (draw_car, 4.6, 1.8, 1.5), d.TRUCK: (draw_truck, 8.4, 2.4, 3.4), d.BUS: (draw_bus, 11.0, 2.5, 3.1),
    d.TRAIN: (draw_tram, 25.0, 2.4, 3.4),
}  # fmt: skip


@dataclass
class _Item:
    """Something that stands on the street: its depth range and |s| decide when it is drawn."""

    near: float
    far: float
    s: float
    draw: Callable[[], None]


class Stage:
    """Collects what stands on a street, then draws it far to near."""

    def __init__(self, rng: np.random.Generator, canvas: d.Canvas, sunny: bool) -> None:
        self.rng, self.canvas, self.sunny = rng, canvas, sunny
        self.shadows: list[tuple[np.ndarray, float]] = []
        self.items: list[_Item] = []
        self.taken: list[tuple[float, float, float, float]] = []

    def draw(self) -> None:
        """Draws all that was added."""
        for item in _far_to_near(self.items):
            item.draw()

    def shade_box(self, s0: float, s1: float, z0: float, z1: float, height: float) -> None:
        """Shadow that the sun casts of an upright box on the ground."""
        if self.sunny:
            base = np.array([[s0, z0], [s1, z0], [s1, z1], [s0, z1]])
            self.shadows.append((ground.cast_shadow(base, height, self.canvas.light.sun), 0.85))

    def shade_thing(self, base: np.ndarray, height: float) -> None:
        """Shadow of something that stands on the street: one on the ground under it, and one cast by the sun."""
        if self.sunny:
            self.shadows.append((ground.cast_shadow(base, height, self.canvas.light.sun), 0.85))
        self.shadows.append((base, 1.0))

    def add_vehicle(self, label: int, s: float, z: float, heading: float) -> None:
        """Adds a vehicle of the given class with its middle at (s, z), unless another one stands there."""
        draw, length, width, height = VEHICLES[label]
        span = abs(math.cos(heading)) * length + abs(math.sin(heading)) * width
        across = abs(math.sin(heading)) * length + abs(math.cos(heading)) * width
        # A vehicle that crosses the image plane cannot be projected.
        z = max(z, span / 2 + 3.0)
        if self._is_taken(s, z, across / 2, span / 2):
            return
        self.taken.append((s - across / 2, s + across / 2, z - span / 2, z + span / 2))
        self.shade_thing(ground.rectangle(s, z, length, width, heading), height * 0.8)
        inner = max(0.0, abs(s) - across / 2)
        self.items.append(_Item(z - span / 2, z + span / 2, inner, lambda: draw(self.canvas, self.rng, s, z, heading)))

    def _is_taken(self, s: float, z: float, half_width: float, half_length: float) -> bool:
        return any(
            s0 < s + half_width and s - half_width < s1 and z0 < z + half_length and z - half_length < z1
            for s0, s1, z0, z1 in self.taken
        )

    def add_to_road(self, s: float, low: float, high: float, draw: Callable, *args: object) -> None:
        """Adds a person or two-wheeler between two depths, where no vehicle stands."""
        for z in self.rng.uniform(low, high, 10).tolist():
            if not self._is_taken(s, z, 0.4, 1.0):
                self.add(s, z, draw, *args, reach=0.3, height=1.5)
                return

    def add(self, s: float, z: float, draw: Callable, *args: object, reach: float = 0.2, height: float = 1.7) -> None:
        """Adds something small; `reach` and `height`, in metres, shape its shadow."""
        self.shade_thing(ground.rectangle(s, z, 2 * reach, 2 * reach, 0.0), height)
        self.items.append(_Item(z - 0.2, z + 0.2, abs(s), lambda: draw(self.canvas, self.rng, s, z, *args)))

    def add_railing(self, s: float, z: float, colour: d.Colour, beam: bool) -> None:
        """Adds 4 m of railing that begins at depth z."""
        self.items.append(
            _Item(z, z + 4, abs(s), lambda: furniture.draw_railing(self.canvas, s, z, z + 4, colour, beam))
        )

    def add_tree(self, s: float, z: float, colour: d.Colour, size: float) -> None:
        """Adds a tree of about `size` metres, with a dappled shadow."""
        self.items.append(
            _Item(z - 0.2, z + 0.2, abs(s), lambda: furniture.draw_tree(self.canvas, self.rng, s, z, colour, size))
        )
        if not self.sunny:
            return
        self.shade_thing(ground.rectangle(s, z, 0.3, 0.3, 0.0), size * 0.4)
        sun = self.canvas.light.sun
        for _ in range(7):
            height, reach = self.rng.uniform(0.4, 0.95) * size, self.rng.uniform(0.08, 0.2) * size
            away = np.array([sun[0], sun[2]]) * (height / max(sun[1], 0.12))
            centre = (s, z) - away + self.rng.normal(0, 0.15 * size, 2)
            blob = cv2.convexHull((centre + reach * self.rng.normal(0, 1, (9, 2))).astype(np.float32))[:, 0]
            if blob[:, 1].min() > 1.5:
                self.shadows.append((blob, 0.8))


def _far_to_near(items: list[_Item]) -> list[_Item]:
    """Painter's order. Of two things side by side at the same depth the one farther out is drawn first."""
    near, far, out = (np.array([getattr(item, name) for item in items]) for name in ('near', 'far', 's'))
    behind = near[:, None] >= far[None, :]
    beside = ~behind & ~behind.T
    first = behind | (beside & (out[:, None] > out[None, :]))
    np.fill_diagonal(first, False)
    waits = first.sum(axis=0)
    order, left = [], np.ones(len(items), bool)
    while left.any():
        # A cycle has no right order; the farthest of those that wait least goes first.
        rank = np.where(left, waits * 1e4 - near, np.inf)
        pick = int(rank.argmin())
        order.append(items[pick])
        left[pick] = False
        waits = waits - first[pick]
    return order
