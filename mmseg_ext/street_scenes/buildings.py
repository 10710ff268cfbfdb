"""What stands along the procedural streets: buildings with windows and roofs, walls, fences, hedges and gardens."""

import numpy as np

from .drawing import BUILDING, FENCE, VEGETATION, WALL, Canvas, Colour, jitter, scale
from .furniture import draw_bush, draw_tree, leaf_colour

_PLASTER = (
    (206, 186, 146), (196, 150, 110), (180, 110, 90), (214, 208, 196), (160, 166, 172), (188, 172, 120),
    (150, 176, 150), (176, 140, 150), (126, 130, 136), (228, 222, 210), (140, 160, 180), (110, 104, 98),
)  # fmt: skip
_BRICK = ((146, 82, 62), (164, 110, 84), (118, 66, 54), (176, 148, 116), (96, 84, 78))
_ROOFS = ((136, 66, 50), (92, 62, 54), (74, 76, 82), (110, 106, 102), (154, 88, 60))
_FENCES = ((128, 92, 60), (96, 100, 104), (70, 84, 66), (206, 204, 198), (52, 56, 60), (150, 130, 104))
_AWNINGS = ((150, 40, 40), (40, 90, 60), (40, 60, 110), (210, 190, 150), (70, 70, 74))


class _Front:
    """One upright face of a building; `a` is metres along it from its near end, or from the street side."""

    def __init__(self, canvas: Canvas, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.canvas = canvas
        self.start, self.end = np.array(start), np.array(end)
        self.length = float(np.hypot(*(self.end - self.start)))
        along_street = abs(end[1] - start[1]) > abs(end[0] - start[0])
        self.normal = (-float(np.sign(start[0])), 0.0, 0.0) if along_street else (0.0, 0.0, -1.0)
        self.depth = float((self.start[1] + self.end[1]) / 2)

    def patches(self, a0: np.ndarray, a1: np.ndarray, y0: np.ndarray, y1: np.ndarray, colour: Colour) -> None:
        """Draws rectangles given by arrays of equal length; a rectangle is skipped where it comes too near."""
        if len(a0) == 0:
            return
        direction = (self.end - self.start) / self.length
        a = np.stack([a0, a1, a1, a0], axis=1)
        y = np.stack([y0, y0, y1, y1], axis=1)
        ground = self.start + a[..., None] * direction
        quads = np.stack([ground[..., 0], y, ground[..., 1]], axis=-1)
        shaded = self.canvas.light.shade(colour, self.normal, self.depth)
        self.canvas.quads(quads[quads[..., 2].min(axis=1) > 1.2], shaded, BUILDING)

    def band(self, y0: float, y1: float, colour: Colour) -> None:
        one = np.ones(1)
        self.patches(0 * one, self.length * one, y0 * one, y1 * one, colour)

    def pixels_a_metre(self) -> float:
        return self.canvas.camera.f / max(self.depth, 1.0)


def draw_building(
    canvas: Canvas, rng: np.random.Generator, side: int, s: float, z0: float, z1: float,
    depth: float, height: float, style: str,
) -> None:  # fmt: skip
    """A building between depths z0 and z1 whose street front is at |s|; `side` is -1 (left) or 1 (right).

    Styles: plaster, brick, office, glass, hall. The first two may carry a pitched roof.
    """
    texture, tile = {
        'plaster': ('plaster', 7.0), 'brick': ('brick', 2.2), 'office': ('panels', 6.0), 'glass': ('plaster', 20.0),
        'hall': ('corrugated' if rng.random() < 0.5 else 'panels', 5.0),
    }[style]  # fmt: skip
    palette = _BRICK if style == 'brick' else _PLASTER
    colour = jitter(rng, palette[rng.integers(len(palette))], 12)
    if style == 'glass':
        colour = jitter(rng, (96, 118, 138), 18)
    pitched = style in ('plaster', 'brick') and height < 16 and rng.random() < 0.7
    front = side * s
    back = side * (s + depth)
    if pitched:
        roof = jitter(rng, _ROOFS[rng.integers(len(_ROOFS))], 10)
        ridge = height + min(depth, 12) * rng.uniform(0.3, 0.5)
        middle = side * (s + min(depth, 12) / 2)
        eave = front - side * 0.3
        low = height - 0.1
        slope = np.array([[(eave, low, z0), (eave, low, z1), (middle, ridge, z1), (middle, ridge, z0)]])
        canvas.quads(slope, canvas.light.shade(roof, (-side * 0.6, 0.8, 0.0), (z0 + z1) / 2), BUILDING)
        gable = np.array([[(front, height, z0), (side * (s + min(depth, 12)), height, z0), (middle, ridge, z0)]])
        canvas.quads(gable, canvas.light.shade(scale(colour, 0.97), (0.0, 0.0, -1.0), z0), BUILDING)
        if rng.random() < 0.6:
            z = rng.uniform(z0, z1)
            chimney = (ridge - 0.8, ridge + 1.1)
            canvas.facade((middle - 0.4, z), (middle + 0.4, z), *chimney, _BRICK[0], BUILDING, 'brick', 2.0)
    glass = jitter(rng, (66, 80, 94) if style != 'glass' else (110, 140, 166), 16)
    frame = jitter(rng, ((222, 220, 214), (70, 60, 54), (150, 120, 90), (96, 98, 100))[rng.integers(4)], 10)
    plan = _WindowPlan(rng, style, height, glass, frame, scale(colour, 0.72))
    for end in ((back, z0), (front, z1)):
        canvas.facade((front, z0), end, -0.2, height, colour, BUILDING, texture, tile)
        face = _Front(canvas, (front, z0), end)
        if face.depth > 1.5:
            plan.draw(face, rng)


class _WindowPlan:
    """The storeys and bays that all fronts of a building share."""

    def __init__(
        self, rng: np.random.Generator, style: str, height: float, glass: Colour, frame: Colour, trim: Colour
    ) -> None:
        self.style, self.height, self.glass, self.frame, self.trim = style, height, glass, frame, trim
        self.storey = rng.uniform(2.8, 3.6)
        self.ground = rng.uniform(3.2, 4.2) if rng.random() < 0.6 else 0.4
        self.shop = self.ground > 1 and style != 'hall' and rng.random() < 0.75
        self.bay = rng.uniform(1.9, 3.4)
        self.width = self.bay * rng.uniform(0.34, 0.55)
        self.tall = rng.uniform(1.3, 2.0)
        self.cornice = rng.random() < 0.6
        self.balconies = style == 'plaster' and rng.random() < 0.3
        self.awning = jitter(rng, _AWNINGS[rng.integers(len(_AWNINGS))], 16)
        if style == 'office':
            self.width, self.tall = self.bay * 0.9, 1.7
        elif style == 'glass':
            self.width, self.tall = self.bay * 0.93, self.storey - 0.3
        elif style == 'hall':
            self.ground, self.tall, self.storey = max(2.2, height - 2.2), 0.9, 3.0

    def draw(self, face: _Front, rng: np.random.Generator) -> None:
        fine = face.pixels_a_metre() > 9
        sills = np.arange(self.ground + 0.5, self.height - self.tall - 0.3, self.storey)
        count = int((face.length - 0.6) / self.bay)
        if count > 0 and len(sills):
            step = face.length / count
            left = (np.arange(count) + 0.5) * step - self.width / 2
            a, y = (grid.ravel() for grid in np.meshgrid(left, sills))
            if fine and self.style in ('plaster', 'brick', 'hall'):
                face.patches(a - 0.12, a + self.width + 0.12, y - 0.14, y + self.tall + 0.1, self.frame)
            face.patches(a, a + self.width, y, y + self.tall, self.glass)
            self._vary(face, rng, a, y)
            if fine and self.style in ('plaster', 'brick'):
                bar = 0.07
                face.patches(a + self.width / 2 - bar / 2, a + self.width / 2 + bar / 2, y, y + self.tall, self.frame)
            if self.balconies:
                pick = rng.random(len(a)) < 0.35
                b, floor = a[pick], y[pick] - 0.35
                face.patches(b - 0.25, b + self.width + 0.25, floor, floor + 1.05, self.trim)
        if self.cornice and self.style != 'glass':
            face.band(self.height - 0.35, self.height, self.trim)
        if self.ground > 1 and self.style != 'hall':
            face.band(self.ground - 0.15, self.ground + 0.05, self.trim)
        self._ground_floor(face, rng)

    def _vary(self, face: _Front, rng: np.random.Generator, a: np.ndarray, y: np.ndarray) -> None:
        """Curtains, reflections of the sky and lit rooms in some of the windows."""
        lit = face.canvas.light.lamps
        for colour, share in (((170, 168, 160), 0.12), (scale(self.glass, 0.6), 0.3), ((120, 140, 160), 0.12)):
            pick = rng.random(len(a)) < share
            drop = rng.uniform(0.35, 1.0)
            face.patches(a[pick], a[pick] + self.width, y[pick] + self.tall * (1 - drop), y[pick] + self.tall, colour)
        pick = rng.random(len(a)) < (0.45 if lit and max(face.canvas.light.ambient_rgb) < 0.5 else 0.0)
        # Lit rooms outshine the dusk: the factor undoes the dim light.
        face.patches(a[pick], a[pick] + self.width, y[pick], y[pick] + self.tall, (640.0, 540.0, 330.0))

    def _ground_floor(self, face: _Front, rng: np.random.Generator) -> None:
        if self.style == 'hall' or face.pixels_a_metre() < 4:
            return
        if self.shop:
            count = max(1, int(face.length / 4.2))
            step = face.length / count
            left = np.arange(count) * step + 0.35
            right, one = left + step - 0.7, np.ones(count)
            face.patches(left, right, 0.35 * one, (self.ground - 0.8) * one, scale(self.glass, 0.8))
            face.patches(left + 0.2, left + 1.3, 0.05 * one, 2.3 * one, scale(self.frame, 0.7))
            face.patches(left, right, (self.ground - 0.8) * one, (self.ground - 0.3) * one, self.awning)
            glow = rng.random(count) < 0.4
            face.patches(left[glow] + 1.5, right[glow] - 0.2, 0.6 * one[glow], 2.2 * one[glow], (206, 196, 160))
        else:
            at = rng.uniform(0.1, 0.8) * max(face.length - 1.2, 0.1) * np.ones(1)
            face.patches(at, at + 1.1, 0 * at, 0 * at + 2.2, self.trim)


def draw_wall(canvas: Canvas, rng: np.random.Generator, side: int, s: float, z0: float, z1: float) -> None:
    """A free-standing wall along the street with a coping and piers."""
    texture, tile, palette = (
        ('brick', 1.8, _BRICK), ('stone', 2.6, _PLASTER), ('panels', 4.0, _PLASTER), ('plaster', 5.0, _PLASTER)
    )[rng.integers(4)]  # fmt: skip
    colour = jitter(rng, palette[rng.integers(len(palette))], 12)
    height = rng.uniform(1.3, 2.8)
    x = side * s
    canvas.facade((x, z0), (x + side * 0.4, z0), 0, height, colour, WALL, texture, tile)
    canvas.facade((x, z0), (x, z1), 0, height, colour, WALL, texture, tile)
    canvas.facade((x, z0), (x, z1), height - 0.16, height, scale(colour, 0.75), WALL, 'plaster', tile)
    if rng.random() < 0.5:
        for z in np.arange(z1, z0 - 0.1, -4.0):
            pier = ((x - side * 0.05, float(z)), (x - side * 0.05, float(z) - 0.5))
            canvas.facade(*pier, 0, height + 0.15, scale(colour, 0.9), WALL, texture, tile)


def draw_fence(canvas: Canvas, rng: np.random.Generator, side: int, s: float, z0: float, z1: float) -> None:
    """A fence along the street: planks, wire mesh or bars; the last two let the view through but are labelled whole."""
    kind = rng.choice(3, p=[0.45, 0.25, 0.3])
    colour = jitter(rng, _FENCES[rng.integers(len(_FENCES))], 12)
    x = side * s
    if kind == 0:
        height = rng.uniform(0.9, 1.9)
        canvas.facade((x, z0), (x, z1), 0, height, colour, FENCE, 'planks', 1.4)
    else:
        height = rng.uniform(1.2, 2.3)
        texture, tile = (('mesh', 1.2), ('bars', 1.3))[kind - 1]
        canvas.facade((x, z0), (x, z1), 0, height, colour, FENCE, texture, tile, see_through=0.7)
    for z in np.arange(z1, z0 - 0.1, -2.5):
        canvas.facade((x, float(z)), (x, float(z) - 0.14), 0, height + 0.1, scale(colour, 0.8), FENCE, 'plaster', 3.0)


def draw_hedge(canvas: Canvas, rng: np.random.Generator, side: int, s: float, z0: float, z1: float) -> None:
    """A trimmed hedge with an uneven top."""
    colour, height = leaf_colour(rng), rng.uniform(0.9, 2.2)
    x = side * s
    canvas.facade((x, z0), (x + side * 1.0, z0), 0, height, scale(colour, 0.85), VEGETATION, 'leaves', 2.0)
    canvas.facade((x, z0), (x, z1), 0, height, scale(colour, 0.9), VEGETATION, 'leaves', 2.0)
    for z in np.arange(z1, z0, -1.1):
        canvas.sprite(canvas.crown(rng, 'wide'), x + side * 0.3, float(z), height - 0.5, 1.9, 0.85, colour, VEGETATION)


def draw_garden(
    canvas: Canvas, rng: np.random.Generator, side: int, s: float, z0: float, z1: float, density: float
) -> None:
    """Trees and bushes behind the street's edge, `density` of them a square metre over a strip of 14 m."""
    count = int(rng.poisson(density * (z1 - z0) * 14))
    for z in sorted(rng.uniform(z0, z1, count), reverse=True):
        at = side * (s + rng.uniform(1.0, 14.0))
        if rng.random() < 0.7:
            draw_tree(canvas, rng, at, max(float(z), 3.0), leaf_colour(rng), rng.uniform(4.5, 12))
        else:
            draw_bush(canvas, rng, at, max(float(z), 3.0), leaf_colour(rng), rng.uniform(0.8, 2.2))


def draw_backdrop(canvas: Canvas, rng: np.random.Generator, z: float, built: float) -> None:
    """Closes the view at depth z with a skyline and trees; `built` is the share of buildings in it."""
    f, width = canvas.camera.f, canvas.pixels.shape[1]
    bend = canvas.camera.bend * z * z
    left, right = -canvas.camera.cx * z / f - bend, (width - canvas.camera.cx) * z / f - bend
    s = left - 10
    while s < right + 10:
        wide = rng.uniform(9, 28)
        if rng.random() < built:
            colour = jitter(rng, _PLASTER[rng.integers(len(_PLASTER))], 12)
            top = rng.uniform(7, 24)
            canvas.facade((s, z), (s + wide, z), -1.0, top, colour, BUILDING, 'panels', 6.0)
            face = _Front(canvas, (s, z), (s + wide, z))
            rows = np.arange(1.5, top - 2, 3.2)
            a, y = (grid.ravel() for grid in np.meshgrid(np.arange(1.0, wide - 1.6, 2.8), rows))
            face.patches(a, a + 1.3, y, y + 1.6, (84, 92, 104))
        else:
            wide *= 0.6
            canvas.facade((s - 2, z), (s + wide + 2, z), -1.0, 2.5, leaf_colour(rng), VEGETATION, 'leaves', 6.0)
            for _ in range(3):
                size = rng.uniform(7, 15)
                at = s + rng.uniform(0, wide)
                canvas.sprite(canvas.crown(rng, 'round'), at, z, -1.0, size * 1.1, size, leaf_colour(rng), VEGETATION)
        s += wide
