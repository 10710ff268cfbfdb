"""Poles, traffic lights, traffic signs, trees and bins of the procedural street scenes."""

import math

import numpy as np

from .drawing import (
    FENCE,
    IGNORE,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    Canvas,
    Colour,
    jitter,
    round_outline,
    scale,
)

_CASINGS = ((34, 36, 36), (44, 66, 52), (206, 170, 50), (112, 116, 118))
_TOWARDS_US = (0.0, 0.0, -1.0)
_LEAVES = (
    (66, 96, 44), (52, 84, 46), (92, 112, 56), (40, 66, 40), (120, 128, 60), (150, 120, 52), (140, 84, 44),
    (84, 92, 66),
)  # fmt: skip
_LEAF_ODDS = np.array([6, 6, 4, 4, 2, 1.5, 1, 2]) / 26.5
_METAL = ((120, 124, 126), (84, 88, 90), (58, 62, 62), (150, 152, 150), (60, 80, 66), (104, 88, 70))
_TRIANGLE = np.array([[-1.0, -0.75], [1.0, -0.75], [0.0, 1.0]])
_SQUARE = np.array([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]])
_CIRCLE, _OCTAGON = round_outline(20), round_outline(8, math.pi / 8)
_PANEL = np.array([[-1.7, -0.6], [1.7, -0.6], [1.7, 0.6], [-1.7, 0.6]])
_SIGNS = (
    (_CIRCLE, (198, 30, 36), 0.74, (238, 238, 234)), (_TRIANGLE, (198, 30, 36), 0.62, (238, 238, 234)),
    (-_TRIANGLE, (198, 30, 36), 0.62, (238, 238, 234)), (_CIRCLE, (32, 76, 160), 1.0, None),
    (_SQUARE, (32, 80, 160), 1.0, None), (_OCTAGON, (196, 28, 34), 1.0, None),
    (_SQUARE @ np.array([[0.74, 0.74], [-0.74, 0.74]]), (238, 238, 234), 0.7, (238, 196, 50)),
    (_PANEL, (236, 200, 60), 0.9, (236, 200, 60)), (_PANEL, (36, 84, 150), 0.9, (36, 84, 150)),
    (_CIRCLE, (198, 30, 36), 0.8, (36, 84, 160)),
)  # fmt: skip


def leaf_colour(rng: np.random.Generator) -> Colour:
    """A leaf colour: mostly greens, some dry and some autumn."""
    return jitter(rng, _LEAVES[rng.choice(len(_LEAVES), p=_LEAF_ODDS)], 9)


def metal_colour(rng: np.random.Generator) -> Colour:
    """The paint or zinc of a pole."""
    return jitter(rng, _METAL[rng.integers(len(_METAL))], 10)


def _flat(canvas: Canvas, outline: np.ndarray, s: float, y: float, z: float, colour: Colour, label: int) -> None:
    """Fills an outline in metres around (s, y), facing the camera at depth z."""
    u, v = canvas.camera.pixel(s, y, z)
    unit = canvas.camera.f / max(z, 1.0)
    canvas.polygon(np.asarray(outline) * (unit, -unit) + (u, v), canvas.light.shade(colour, _TOWARDS_US, z), label)


def _post(canvas: Canvas, s: float, z: float, height: float, width: float, colour: Colour) -> None:
    """An upright pole with a lighter edge."""
    w = width / 2
    _flat(canvas, [(-w, 0), (w, 0), (w * 0.8, height), (-w * 0.8, height)], s, 0, z, colour, POLE)
    side = -1 if canvas.light.sun[0] < 0 else 1
    edge = [(side * w * k, y) for k, y in ((0.9, 0), (0.25, 0), (0.25, height), (0.9, height))]
    _flat(canvas, edge, s, 0, z, scale(colour, 1.3), POLE)


def draw_lamp(canvas: Canvas, rng: np.random.Generator, s: float, z: float, colour: Colour) -> None:
    """A street lamp whose arm reaches over the road."""
    height = rng.uniform(5.0, 8.5)
    _post(canvas, s, z, height, rng.uniform(0.13, 0.2), colour)
    reach = -math.copysign(rng.uniform(0.8, 1.8), s)
    unit = canvas.camera.f / z
    tip = canvas.camera.pixel(s + reach, height + 0.25, z)
    shaded = canvas.light.shade(colour, _TOWARDS_US, z)
    canvas.line([canvas.camera.pixel(s, height - 0.1, z), tip], 0.1 * unit, shaded, POLE)
    shade = (255.0, 236.0, 190.0) if canvas.light.lamps else shaded
    canvas.line([tip, canvas.camera.pixel(s + reach * 1.35, height + 0.28, z)], 0.18 * unit, shade, POLE)


def _light_head(canvas: Canvas, rng: np.random.Generator, s: float, y: float, z: float) -> None:
    casing = jitter(rng, _CASINGS[rng.choice(4, p=[0.5, 0.2, 0.15, 0.15])], 8)
    board = [(-0.2, -0.52), (0.2, -0.52), (0.2, 0.52), (-0.2, 0.52)]
    _flat(canvas, board, s, y, z, casing, TRAFFIC_LIGHT)
    if rng.random() < 0.2:
        return
    on = int(rng.integers(3))
    for k, bright in enumerate(((255.0, 48.0, 36.0), (255.0, 186.0, 40.0), (60.0, 240.0, 150.0))):
        centre = canvas.camera.pixel(s, y + 0.32 - 0.32 * k, z)
        radius = 0.125 * canvas.camera.f / z
        colour = canvas.light.hazed(bright, z) if k == on else canvas.light.shade(scale(bright, 0.24), _TOWARDS_US, z)
        canvas.disc(centre, radius, colour, TRAFFIC_LIGHT)


def draw_traffic_light(canvas: Canvas, rng: np.random.Generator, s: float, z: float, colour: Colour) -> None:
    """A signal on a kerbside pole, in part of the cases with a second one on an arm over the road."""
    if rng.random() < 0.4:
        height, reach = rng.uniform(5.0, 5.8), -math.copysign(rng.uniform(2.5, 4.5), s)
        _post(canvas, s, z, height + 0.2, 0.2, colour)
        unit = canvas.camera.f / z
        ends = [canvas.camera.pixel(s, height, z), canvas.camera.pixel(s + reach, height + 0.2, z)]
        canvas.line(ends, 0.13 * unit, canvas.light.shade(colour, _TOWARDS_US, z), POLE)
        _light_head(canvas, rng, s + reach, height - 0.25, z)
    else:
        _post(canvas, s, z, 3.3, 0.15, colour)
    _light_head(canvas, rng, s, rng.uniform(2.7, 3.0), z)


def draw_sign(canvas: Canvas, rng: np.random.Generator, s: float, z: float, colour: Colour) -> None:
    """One or two traffic signs on a pole, some of them seen from behind."""
    height = rng.uniform(2.3, 3.0)
    _post(canvas, s, z, height + 0.4, 0.09, colour)
    y = height
    for _ in range(1 if rng.random() < 0.65 else 2):
        outline, rim, inner, field = _SIGNS[rng.integers(len(_SIGNS))]
        radius = rng.uniform(0.32, 0.45)
        if rng.random() < 0.15:
            _flat(canvas, outline * radius, s, y, z, jitter(rng, (138, 140, 142), 12), TRAFFIC_SIGN)
        else:
            rim = jitter(rng, rim, 8)
            _flat(canvas, outline * radius, s, y, z, rim, TRAFFIC_SIGN)
            field = rim if field is None else jitter(rng, field, 6)
            _flat(canvas, outline * radius * inner, s, y, z, field, TRAFFIC_SIGN)
            ink = (28.0, 28.0, 30.0) if sum(field) > 380 else (240.0, 240.0, 238.0)
            w, h = rng.uniform(0.12, 0.5), rng.uniform(0.12, 0.4)
            _flat(canvas, np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) * radius, s, y, z, ink, TRAFFIC_SIGN)
        y -= radius * 2.1


def draw_gantry(canvas: Canvas, rng: np.random.Generator, s: float, z: float, colour: Colour) -> None:
    """A direction sign of several metres on a pole that leans over the road."""
    _post(canvas, s, z, 6.2, 0.26, colour)
    reach = -math.copysign(3.2, s)
    unit = canvas.camera.f / z
    ends = [canvas.camera.pixel(s, 5.9, z), canvas.camera.pixel(s + reach * 1.5, 5.9, z)]
    canvas.line(ends, 0.2 * unit, canvas.light.shade(colour, _TOWARDS_US, z), POLE)
    field = jitter(rng, ((34, 82, 150), (40, 116, 78), (236, 204, 64), (236, 236, 232))[rng.integers(4)], 8)
    ink = (30.0, 30.0, 32.0) if sum(field) > 400 else (240.0, 240.0, 238.0)
    panel = np.array([(-1.5, -0.85), (1.5, -0.85), (1.5, 0.85), (-1.5, 0.85)])
    _flat(canvas, panel, s + reach, 5.6, z, ink, TRAFFIC_SIGN)
    _flat(canvas, panel * 0.95, s + reach, 5.6, z, field, TRAFFIC_SIGN)
    for y in (0.4, -0.05, -0.5):
        x = rng.uniform(0.2, 1.1)
        line = [(-1.2, y - 0.1), (x, y - 0.1), (x, y + 0.1), (-1.2, y + 0.1)]
        _flat(canvas, line, s + reach, 5.6, z, ink, TRAFFIC_SIGN)


def draw_tree(canvas: Canvas, rng: np.random.Generator, s: float, z: float, colour: Colour, size: float) -> None:
    """A tree of about `size` metres: trunk, branches and crown are all vegetation."""
    shape = ('round', 'tall', 'wide', 'cone')[rng.choice(4, p=[0.42, 0.2, 0.26, 0.12])]
    clear = size * (0.1 if shape == 'cone' else rng.uniform(0.24, 0.36))
    width = size * {'round': 0.75, 'tall': 0.62, 'wide': 1.0, 'cone': 0.62}[shape] * rng.uniform(0.85, 1.15)
    bark = jitter(rng, ((78, 64, 50), (96, 90, 80), (58, 48, 40))[rng.integers(3)], 10)
    w = 0.028 * size + 0.05
    trunk = [(-w, 0), (w, 0), (w * 0.6, clear + 0.3 * size), (-w * 0.6, clear + 0.3 * size)]
    _flat(canvas, trunk, s, 0, z, bark, VEGETATION)
    side = -1 if canvas.light.sun[0] < 0 else 1
    lit = [(side * w * k, y) for k, y in ((0.9, 0), (0.2, 0), (0.14, clear), (0.63, clear))]
    _flat(canvas, lit, s, 0, z, scale(bark, 1.25), VEGETATION)
    canvas.sprite(canvas.crown(rng, shape), s, z, clear * 0.92, width, size - clear, colour, VEGETATION)


def draw_bush(canvas: Canvas, rng: np.random.Generator, s: float, z: float, colour: Colour, size: float) -> None:
    """A bush of about `size` metres that stands on the ground."""
    canvas.sprite(canvas.crown(rng, 'wide'), s, z, -0.12 * size, size * 1.4, size * 1.12, colour, VEGETATION)


def draw_bin(canvas: Canvas, rng: np.random.Generator, s: float, z: float) -> None:
    """A litter bin, a box or a bollard: street furniture outside the 19 classes, so its label is ignore."""
    colour = jitter(rng, ((70, 84, 70), (90, 92, 96), (150, 120, 50), (60, 70, 100))[rng.integers(4)], 14)
    w, h = rng.uniform(0.2, 0.4), rng.uniform(0.8, 1.3)
    _flat(canvas, [(-w, 0), (w, 0), (w, h), (-w, h)], s, 0, z, colour, IGNORE)
    _flat(canvas, [(-w, h * 0.85), (w, h * 0.85), (w, h), (-w, h)], s, 0, z, scale(colour, 0.6), IGNORE)


def draw_railing(canvas: Canvas, s: float, z0: float, z1: float, colour: Colour, beam: bool) -> None:
    """A kerbside railing along the street: a crash barrier's beam on posts, or bars that can be seen through."""
    if beam:
        for z in np.arange(z1, z0, -1.5):
            _flat(canvas, [(-0.06, 0), (0.06, 0), (0.06, 0.6), (-0.06, 0.6)], s, 0, float(z), scale(colour, 0.8), FENCE)
        canvas.facade((s, z0), (s, z1), 0.42, 0.8, colour, FENCE, 'plaster', 2.0)
        canvas.facade((s, z0), (s, z1), 0.56, 0.64, scale(colour, 0.6), FENCE, 'plaster', 2.0)
    else:
        canvas.facade((s, z0), (s, z1), 0.0, 1.05, colour, FENCE, 'bars', 1.3, see_through=0.75)
        canvas.facade((s, z0), (s, z1), 0.98, 1.1, colour, FENCE, 'plaster', 2.0)
