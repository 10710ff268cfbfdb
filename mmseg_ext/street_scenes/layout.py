"""Composes a procedural street scene: sky, ground, what lines the street and what stands on it."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from . import buildings as buildings
from . import drawing as d
from . import ground as ground
from .plan import plan_street
from .stage import Stage
from .traffic import place_kerbside, place_people, place_traffic
from .weather import Weather, draw_sky, draw_weather

_AREAS = {
    # Shares of the lots: building, house with a front garden, wall, fence, hedge, open green, side street.
    'centre': (0.80, 0.02, 0.04, 0.03, 0.01, 0.02, 0.08),
    'suburb': (0.10, 0.58, 0.06, 0.08, 0.05, 0.05, 0.08),
    'green': (0.12, 0.10, 0.14, 0.17, 0.14, 0.25, 0.08),
    'works': (0.36, 0.04, 0.22, 0.24, 0.02, 0.06, 0.06),
}
_PAINT = (226.0, 226.0, 220.0)


class Composer:
    """Draws one scene; after `compose`, `canvas` holds it and `weather` says how the camera exposes it."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, required: int | None) -> None:
        self.rng, self.required = rng, required
        self.weather: Weather = draw_weather(rng)
        focal = rng.uniform(0.8, 1.1) * max(width, 1.5 * height)
        camera = d.Camera(
            f=focal,
            cx=width * rng.uniform(0.36, 0.64),
            cy=height * rng.uniform(0.38, 0.5),
            height=rng.uniform(1.25, 1.75),
            bend=float(rng.choice([-1, 1]) * rng.uniform(0.0003, 0.0016)) if rng.random() < 0.4 else 0.0,
        )
        self.canvas = d.Canvas(height, width, camera, self.weather.light)
        self.street = plan_street(rng, required)
        self.stage = Stage(rng, self.canvas, self.weather.casts_shadows)

    def compose(self) -> None:
        """Draws everything, far to near."""
        draw_sky(self.canvas, self.weather, self.rng)
        lots = self._lots()
        for place in (place_traffic, place_kerbside, place_people):
            place(self.stage, self.street, self.required)
        self._draw_ground()
        built = {'centre': 0.85, 'works': 0.6, 'suburb': 0.4, 'green': 0.2}[self.street.area]
        buildings.draw_backdrop(self.canvas, self.rng, self.street.end + 25, built)
        for _, draw in sorted(lots, key=lambda lot: -lot[0]):
            draw()
        self.stage.draw()
        if self.rng.random() < 0.4:
            self._draw_bonnet()

    def _lots(self) -> list[tuple[float, Callable[[], None]]]:
        """Plans both sides of the street; returns (depth, draw) of each lot."""
        rng, lots = self.rng, []
        base_height = {'centre': rng.uniform(9, 24), 'suburb': 6.5, 'green': 9.0, 'works': 8.0}[self.street.area]
        kinds = ('building', 'house', 'wall', 'fence', 'hedge', 'green', 'side street')
        for index, side in enumerate((-1, 1)):
            z = rng.uniform(1.5, 5.0)
            previous = 'side street'
            s = abs(self.street.front[index])
            forced = {d.WALL: 'wall', d.FENCE: 'fence'}.get(self.required) if index == rng.integers(2) else None
            while z < self.street.end:
                kind = kinds[rng.choice(7, p=_AREAS[self.street.area])]
                if forced and z > 8:
                    kind, forced = forced, None
                if kind == 'side street' and (previous == kind or z < 12):
                    kind = 'building'
                length = rng.uniform(6, 11) if kind == 'side street' else rng.uniform(9, 24)
                if kind == 'side street':
                    self.street.side_streets.append((z, z + length, side))
                else:
                    height = float(np.clip(base_height * rng.uniform(0.65, 1.4), 4.5, 40))
                    lots.append((z, self._lot(kind, side, s, z, z + length, height)))
                z += length + (rng.uniform(2, 6) if kind in ('house', 'green') and rng.random() < 0.5 else 0.0)
                previous = kind
        return lots

    def _lot(self, kind: str, side: int, s: float, z0: float, z1: float, height: float) -> Callable[[], None]:
        rng, canvas = self.rng, self.canvas
        if kind == 'building':
            odds = {'centre': [0.45, 0.2, 0.2, 0.15, 0.0], 'works': [0.1, 0.2, 0.2, 0.1, 0.4]}
            p = odds.get(self.street.area, [0.5, 0.3, 0.15, 0.05, 0.0])
            style = ('plaster', 'brick', 'office', 'glass', 'hall')[rng.choice(5, p=p)]
            if style == 'hall':
                height = min(height, 9.0)
            setback = rng.uniform(0, 1.5) if rng.random() < 0.2 else 0.0
            self.stage.shade_box(side * (s + setback), side * (s + 14), z0, z1, height)
            return lambda: buildings.draw_building(canvas, rng, side, s + setback, z0, z1, 26.0, height, style)

        border = kind if kind in ('wall', 'fence', 'hedge') else None
        setback = rng.uniform(2.5, 9.0)
        house = kind == 'house' or rng.random() < 0.4
        if kind == 'house':
            border = (None, 'wall', 'fence', 'hedge')[rng.choice(4, p=[0.3, 0.2, 0.28, 0.22])]
        trees = {'house': 0.006, 'green': 0.03}.get(kind, 0.014)
        style = 'brick' if rng.random() < 0.35 else 'plaster'
        roof = min(height, rng.uniform(5.0, 8.5))
        if house:
            self.stage.shade_box(side * (s + setback), side * (s + setback + 10), z0 + 1, z1 - 1, roof)
        if border == 'wall':
            self.stage.shade_box(side * s, side * (s + 0.4), z0, z1, 2.0)

        def draw() -> None:
            if house:
                buildings.draw_building(canvas, rng, side, s + setback, z0 + 1, z1 - 1, 10.0, roof, style)
            buildings.draw_garden(canvas, rng, side, s, z0, z1, trees if not house else trees * 0.6)
            if border:
                getattr(buildings, f'draw_{border}')(canvas, rng, side, s, z0, z1)

        return draw

    def _draw_ground(self) -> None:
        rng, street, canvas = self.rng, self.street, self.canvas
        surfaces = ground.pick_surfaces(rng)
        road, walk, soil = surfaces[d.ROAD], surfaces[d.SIDEWALK], surfaces[d.TERRAIN]
        paved = self.street.area == 'centre'
        yard = walk if paved else soil

        def area(
            s0: float, s1: float, surface: ground.Surface, gain: float = 1.0, z0: float = 1.0, z1: float = 400.0
        ) -> None:
            ground.draw_area(canvas, s0, s1, z0, z1, d.scale(surface.colour, gain), surface.label)

        area(-400, street.walk[0], yard)
        area(street.walk[1], 400, yard)
        for index, side in enumerate((-1, 1)):
            area(street.road[index], street.kerb[index], soil)
            area(street.kerb[index], street.walk[index], walk)
            area(street.kerb[index], street.kerb[index] + side * 0.16, walk, 1.18)
        area(*street.road, road)
        for z0, z1, side in street.side_streets:
            edge, end = street.road[(side + 1) // 2], side * 400.0
            area(edge + side * 0.5, end, walk, 1.0, z0, z1)
            area(edge, end, road, 0.98, z0 + 1.6, z1 - 1.6)
        for index, side in enumerate((-1, 1)):
            edge = street.road[index]
            if abs(street.kerb[index] - edge) < 0.01:
                for z0, z1 in street.kerb_runs(side):
                    area(edge, edge + side * 0.1, walk, 0.55, z0, z1)
        if street.median:
            area(*street.median, soil)
            for s in street.median:
                area(s - 0.1, s + 0.1, walk, 1.1)
        if street.track:
            self._draw_track(*street.track, soil, area)
        self._draw_markings(road)
        strength = 0.62 if self.weather.casts_shadows else 0.5
        ground.finish_ground(canvas, surfaces, self.stage.shadows, strength, rng)

    def _draw_track(self, s: float, grassy: bool, soil: ground.Surface, area: Callable) -> None:
        if grassy:
            area(s - 1.6, s + 1.6, soil)
        for rail in (s - 0.72, s + 0.72):
            if grassy:
                area(rail - 0.05, rail + 0.05, soil, 1.4)
            else:
                ground.draw_dashes(self.canvas, rail, 0.16, 1.0, 200.0, 1.0, 0.0, (54.0, 54.0, 58.0))
                ground.draw_dashes(self.canvas, rail, 0.06, 1.0, 200.0, 1.0, 0.0, (150.0, 150.0, 154.0))

    def _draw_markings(self, road: ground.Surface) -> None:
        rng, street, canvas = self.rng, self.street, self.canvas
        for _ in range(int(rng.poisson(2.5))):
            s, z = rng.uniform(*street.road), rng.uniform(4, 40)
            patch = d.scale(road.colour, rng.uniform(0.75, 1.15))
            right = min(s + rng.uniform(0.6, 2.4), street.road[1])
            ground.draw_area(canvas, s, right, z, z + rng.uniform(1, 9), patch, d.ROAD)
        worn = rng.uniform(0.3, 1.0)
        paint = tuple(r + (p - r) * worn for p, r in zip(_PAINT, road.colour, strict=True))
        phase = rng.uniform(1, 8)
        ways = sorted(street.lanes)
        if rng.random() < 0.8:
            for (left, way), (right, other) in pairwise(ways):
                if right - left < street.lane_width + 0.1:
                    solid = way != other and rng.random() < 0.4
                    ground.draw_dashes(canvas, (left + right) / 2, 0.14, phase, 120, 3.0, 0.0 if solid else 5.0, paint)
        if rng.random() < 0.5:
            for index, side in enumerate((-1, 1)):
                at = street.road[index] - side * (2.1 if street.parking[index] else 0.3)
                ground.draw_dashes(canvas, at, 0.12, 1.0, 120, 1.0, 0.0, paint)
        for z in street.crossings:
            ground.draw_area(canvas, *street.road, z - 0.2, z + 3.2, road.colour, d.ROAD)
            ground.draw_crossing(canvas, *street.road, z, 3.0, paint)
            ground.draw_area(
                canvas, ways[-1][0] - street.lane_width / 2, street.road[1], z - 1.6, z - 1.2, paint, d.ROAD
            )

    def _draw_bonnet(self) -> None:
        """The camera car's own bonnet at the lower edge, which Cityscapes does not evaluate."""
        rng, (height, width) = self.rng, self.canvas.pixels.shape[:2]
        top = height * rng.uniform(0.9, 0.96)
        tone = rng.uniform(14, 120)
        x = np.linspace(-0.05, 1.05, 24)
        for step in range(4):
            y = top + (height - top) * (0.1 + 0.9 * np.abs(x * 2 - 1) ** 3.0) + step * 0.18 * (height - top)
            edge = np.stack([x * width, y], axis=1)
            outline = np.concatenate([edge, [[1.05 * width, height + 2], [-0.05 * width, height + 2]]])
            colour = self.canvas.light.shade((tone, tone, tone + 4), (0.0, 1.0, 0.0), 0.0)
            self.canvas.polygon(outline, d.scale(colour, 1.15 - 0.16 * step), d.IGNORE)
