"""Pedestrians, riders, bicycles and motorcycles of the procedural street scenes.

Figures are jointed limbs in their own frame, metres (x right, y up, z forward), drawn as round-ended strokes.
"""

import math

import cv2
import numpy as np

from .drawing import BICYCLE, MOTORCYCLE, PERSON, RIDER, Canvas, Colour, jitter, round_outline, scale

_CLOTHES = (
    (40, 42, 48), (70, 74, 80), (190, 190, 186), (52, 70, 116), (150, 40, 44), (60, 92, 62), (196, 170, 96),
    (110, 84, 60), (130, 150, 170), (206, 206, 214), (176, 96, 50), (92, 60, 110), (84, 88, 92), (30, 34, 50),
)  # fmt: skip
_SKIN = ((224, 186, 160), (198, 150, 120), (150, 106, 80), (96, 66, 50))
_HAIR = ((40, 30, 26), (90, 62, 40), (168, 136, 90), (120, 120, 120), (24, 22, 22))
_RING = round_outline(18)


def _pick(rng: np.random.Generator, colours: tuple, spread: float = 10) -> Colour:
    return jitter(rng, colours[int(rng.integers(len(colours)))], spread)


class _Figure:
    """Strokes, tapered hulls and balls of one figure, placed on the street and drawn from far to near."""

    def __init__(self, canvas: Canvas, s: float, z: float, heading: float) -> None:
        self.canvas, self.s, self.z = canvas, s, z
        self.cos, self.sin = math.cos(heading), math.sin(heading)
        self.unit = canvas.camera.f / max(z, 1.0)

    def at(self, point: tuple[float, float, float]) -> tuple[float, float]:
        x, y, ahead = point
        s, z = self.s + x * self.cos + ahead * self.sin, self.z - x * self.sin + ahead * self.cos
        return self.canvas.camera.pixel(s, y, z)

    def depth(self, point: tuple[float, float, float]) -> float:
        return point[2] * self.cos - point[0] * self.sin

    def lit(self, colour: Colour, gain: float = 1.0) -> Colour:
        return self.canvas.light.shade(scale(colour, gain), (0.0, 0.35, -0.94), self.z)

    def stroke(self, joints: list, width: float, colour: Colour, label: int) -> None:
        self.canvas.line([self.at(joint) for joint in joints], width * self.unit, self.lit(colour), label)

    def hull(self, balls: list, colour: Colour, label: int) -> None:
        """Fills the convex hull of ((x, y, z), radius) balls."""
        ring = np.concatenate([np.array(self.at(point)) + _RING * radius * self.unit for point, radius in balls])
        self.canvas.polygon(cv2.convexHull(ring.astype(np.float32))[:, 0], self.lit(colour), label)

    def ball(self, point: tuple[float, float, float], radius: float, colour: Colour, label: int) -> None:
        self.canvas.disc(self.at(point), radius * self.unit, self.lit(colour), label)

    def wheel(self, ahead: float, radius: float, tyre: float, fill: Colour | None, label: int) -> None:
        """A wheel in the figure's upright plane: solid if `fill` is given, else spokes that let the street through."""
        rim = np.array([self.at((0.0, radius * (1 + y), ahead + radius * x)) for x, y in _RING])
        if fill is None:
            self.canvas.veil(rim, self.lit((120.0, 122.0, 126.0)), label, 0.45)
        else:
            self.canvas.polygon(rim, self.lit(fill), label)
        self.canvas.line(rim, tyre * self.unit, self.lit((26.0, 26.0, 28.0)), label, closed=True)


def _head(
    figure: _Figure, rng: np.random.Generator, neck: tuple, size: float, label: int, helmet: Colour | None
) -> None:
    x, y, z = neck
    skin, hair = _pick(rng, _SKIN), _pick(rng, _HAIR)
    faces_us = figure.cos < -0.2
    centre = (x, y + 0.115 * size, z + 0.02)
    figure.stroke([neck, centre], 0.1 * size, skin, label)
    figure.ball(centre, 0.108 * size, skin if faces_us or abs(figure.cos) <= 0.2 else hair, label)
    if helmet is None:
        cap = [((x, y + 0.18 * size, z), 0.075 * size), ((x, y + 0.14 * size, z - 0.06), 0.085 * size)]
    else:
        cap = [((x, y + 0.16 * size, z), 0.12 * size), ((x, y + 0.14 * size, z - 0.04), 0.12 * size)]
    figure.hull(cap, helmet or hair, label)


def draw_person(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float) -> None:
    """A standing or walking pedestrian, grown-up or child, perhaps with a bag, a skirt or a long coat."""
    size = rng.uniform(0.9, 1.08) if rng.random() < 0.87 else rng.uniform(0.58, 0.78)
    figure = _Figure(canvas, s, z, heading)
    top, legs_colour, shoes = _pick(rng, _CLOTHES), _pick(rng, _CLOTHES), _pick(rng, _CLOTHES[:2])
    swing = rng.uniform(-0.5, 0.5) if rng.random() < 0.75 else 0.06
    hip, shoulder = 0.88 * size, 1.42 * size
    skin = _pick(rng, _SKIN)
    short_sleeves = rng.random() < 0.35
    limbs = []
    for sign in (-1, 1):
        angle = sign * swing
        hip_at = (sign * 0.1 * size, hip, 0.0)
        knee = (sign * 0.1 * size, 0.47 * size, 0.42 * size * math.sin(angle) + 0.03)
        bend = 0.12 * size if angle < -0.1 else 0.0
        ankle = (sign * 0.1 * size, 0.06 * size + bend * 0.6, 0.85 * size * math.sin(angle) - bend)
        elbow = (sign * 0.25 * size, 1.12 * size, -0.25 * size * math.sin(angle))
        hand = (sign * 0.24 * size, 0.86 * size, -0.42 * size * math.sin(angle) + 0.1)
        limbs.append((figure.depth(knee), 'leg', [hip_at, knee, ankle]))
        shoulder_at = (sign * 0.2 * size, shoulder - 0.04, 0.0)
        limbs.append((figure.depth(elbow) - 0.01, 'arm', [shoulder_at, elbow, hand]))
    limbs.sort(key=lambda limb: -limb[0])
    bag = rng.random()
    coat = rng.random() < 0.3

    def limb(kind: str, joints: list, near: bool) -> None:
        tone = 1.0 if near else 0.78
        if kind == 'leg':
            figure.stroke(joints, 0.15 * size, scale(legs_colour, tone), PERSON)
            toe = (joints[2][0], 0.03, joints[2][2] + 0.13 * size)
            figure.stroke([joints[2], toe], 0.09 * size, shoes, PERSON)
        else:
            figure.stroke(joints, 0.105 * size, scale(skin if short_sleeves else top, tone * 0.92), PERSON)
            figure.ball(joints[2], 0.05 * size, skin, PERSON)

    for _, kind, joints in limbs[:2]:
        limb(kind, joints, False)
    for _, kind, joints in limbs[2:]:
        if kind == 'leg':
            limb(kind, joints, True)
    hem = 0.55 * size if coat else 0.86 * size
    flare = 0.17 if coat else 0.1
    trunk = [((-0.15 * size, shoulder - 0.06, 0), 0.075 * size), ((0.15 * size, shoulder - 0.06, 0), 0.075 * size)]
    trunk += [((-0.08 * size, hem, 0), flare * size * 0.9), ((0.08 * size, hem, 0), flare * size * 0.9)]
    figure.hull(trunk, top, PERSON)
    if bag < 0.22:
        pack = [((0.0, y * size, -0.2 * size), 0.13 * size) for y in (1.0, 1.3)]
        figure.hull(pack, _pick(rng, _CLOTHES, 16), PERSON)
    for _, kind, joints in limbs[2:]:
        if kind == 'arm':
            limb(kind, joints, True)
    if 0.22 <= bag < 0.4:
        x, y, ahead = next(joints for _, kind, joints in reversed(limbs) if kind == 'arm')[2]
        carried = [((x, y - 0.12 * size, ahead), 0.1), ((x, y - 0.3 * size, ahead), 0.13)]
        figure.hull(carried, _pick(rng, _CLOTHES, 16), PERSON)
    _head(figure, rng, (0.0, shoulder + 0.02, 0.0), size, PERSON, None)


def draw_bicycle(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float, ridden: bool) -> None:
    """A bicycle, with its rider if `ridden`."""
    figure = _Figure(canvas, s, z, heading)
    paint = _pick(rng, _CLOTHES, 20)
    rear, front, radius = -0.52, 0.54, 0.34
    for ahead in sorted((rear, front), key=lambda value: -figure.depth((0, 0, value))):
        figure.wheel(ahead, radius, 0.05, None, BICYCLE)
    crank, seat, head = (0.0, 0.3, -0.05), (0.0, 0.88, -0.2), (0.0, 0.9, 0.36)
    figure.stroke([(0, radius, rear), crank, seat, (0, radius, rear)], 0.045, paint, BICYCLE)
    figure.stroke([seat, (0, 0.8, 0.38), crank], 0.05, paint, BICYCLE)
    figure.stroke([(0, radius, front), head, (0, 1.03, 0.32)], 0.045, paint, BICYCLE)
    figure.stroke([(-0.26, 1.04, 0.26), (0, 1.03, 0.34), (0.26, 1.04, 0.26)], 0.045, (36.0, 36.0, 38.0), BICYCLE)
    figure.stroke([(0, 0.94, -0.32), (0, 0.96, -0.08)], 0.09, (30.0, 28.0, 28.0), BICYCLE)
    if rng.random() < 0.3:
        figure.hull([((0, 1.0, 0.55), 0.12), ((0, 0.85, 0.55), 0.1)], (70.0, 54.0, 40.0), BICYCLE)
    if ridden:
        helmet = _pick(rng, _CLOTHES, 30) if rng.random() < 0.5 else None
        spin = rng.uniform(0, 2 * math.pi)
        turn = (0.16 * math.sin(spin), 0.16 * math.cos(spin))
        feet = [(sign * 0.12, 0.3 + sign * turn[0], -0.02 + sign * turn[1]) for sign in (-1, 1)]
        _rider(figure, rng, seat=0.98, lean=0.26, hands=(0.25, 1.06, 0.28), feet=feet, helmet=helmet)


def draw_motorcycle(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float, ridden: bool) -> None:
    """A motorcycle or scooter, with its rider if `ridden`."""
    figure = _Figure(canvas, s, z, heading)
    paint = _pick(rng, _CLOTHES, 30)
    dark = (38.0, 38.0, 42.0)
    rear, front, radius = -0.66, 0.7, 0.31
    for ahead in sorted((rear, front), key=lambda value: -figure.depth((0, 0, value))):
        figure.wheel(ahead, radius, 0.14, (88.0, 90.0, 94.0), MOTORCYCLE)
    nose_is_near = figure.cos < 0
    figure.hull([((0, 0.38, -0.2), 0.17), ((0, 0.42, 0.28), 0.17)], (74.0, 76.0, 80.0), MOTORCYCLE)

    def tail() -> None:
        cowl = [((0, 0.72, -0.7), 0.09), ((0, 0.68, 0.0), 0.13), ((0, 0.5, -0.4), 0.14)]
        figure.hull(cowl, scale(paint, 0.9), MOTORCYCLE)
        figure.hull([((0, 0.8, -0.6), 0.08), ((0, 0.78, 0.0), 0.09)], dark, MOTORCYCLE)
        if figure.cos > 0.3:
            figure.ball((0, 0.68, -0.78), 0.07, (190.0, 30.0, 30.0), MOTORCYCLE)
            figure.hull([((-0.06, 0.48, -0.78), 0.05), ((0.06, 0.48, -0.78), 0.05)], (220.0, 220.0, 210.0), MOTORCYCLE)

    def nose() -> None:
        figure.hull([((0, 0.84, 0.08), 0.15), ((0, 0.8, 0.42), 0.14)], paint, MOTORCYCLE)
        for side in (-0.08, 0.08):
            figure.stroke([(side, radius, front), (side, 0.92, 0.5)], 0.07, (130.0, 132.0, 136.0), MOTORCYCLE)
        figure.hull([((0, 0.62, front - 0.05), 0.07), ((0, 0.6, front + 0.12), 0.05)], paint, MOTORCYCLE)
        figure.hull([((0, 0.95, 0.56), 0.15), ((0, 0.8, 0.58), 0.13)], scale(paint, 1.1), MOTORCYCLE)
        figure.stroke([(-0.38, 1.02, 0.38), (0, 1.0, 0.5), (0.38, 1.02, 0.38)], 0.06, dark, MOTORCYCLE)
        if figure.cos < -0.3:
            lamp = (255.0, 250.0, 225.0) if canvas.light.lamps else (226.0, 230.0, 230.0)
            figure.ball((0, 0.9, 0.68), 0.1, lamp, MOTORCYCLE)

    for part in (tail, nose) if nose_is_near else (nose, tail):
        part()
    if ridden:
        helmet = _pick(rng, _CLOTHES, 30)
        feet = [(-0.2, 0.28, 0.05), (0.2, 0.28, 0.05)]
        _rider(figure, rng, seat=0.9, lean=0.22, hands=(0.34, 1.03, 0.36), feet=feet, helmet=helmet)
        if nose_is_near:
            nose()


def _rider(
    figure: _Figure, rng: np.random.Generator, seat: float, lean: float, hands: tuple, feet: list, helmet: Colour | None
) -> None:
    """A seated figure: `seat` height, `lean` of the shoulders ahead of the hips and the right `hands`, in metres."""
    top, legs = _pick(rng, _CLOTHES, 16), _pick(rng, _CLOTHES)
    skin = _pick(rng, _SKIN)
    hip_z, shoulder = -0.2, seat + 0.52
    near_last = sorted(((-1, feet[0]), (1, feet[1])), key=lambda side: -figure.depth((side[0], 0, 0)))
    for order, (sign, foot) in enumerate(near_last):
        tone = 0.78 if order == 0 else 1.0
        knee = (sign * 0.15, (seat + foot[1]) / 2 + 0.1, hip_z + 0.36)
        figure.stroke([(sign * 0.1, seat, hip_z), knee, foot], 0.14, scale(legs, tone), RIDER)
        figure.stroke([foot, (foot[0], foot[1] - 0.03, foot[2] + 0.13)], 0.09, (40.0, 38.0, 38.0), RIDER)
        if order == 0:
            trunk = [((side * 0.14, shoulder - 0.06, hip_z + lean), 0.085) for side in (-1, 1)]
            trunk += [((side * 0.09, seat + 0.04, hip_z), 0.11) for side in (-1, 1)]
            figure.hull(trunk, top, RIDER)
        x, y, ahead = hands
        elbow = (sign * (x + 0.06), (shoulder + y) / 2 - 0.05, (hip_z + lean + ahead) / 2)
        arm = [(sign * 0.19, shoulder - 0.06, hip_z + lean), elbow, (sign * x, y, ahead)]
        figure.stroke(arm, 0.1, scale(top, tone * 0.92), RIDER)
        figure.ball((sign * x, y, ahead), 0.05, skin, RIDER)
    _head(figure, rng, (0.0, shoulder + 0.02, hip_z + lean + 0.04), 1.0, RIDER, helmet)
