"""Cars, vans, trucks, buses and trams of the procedural street scenes, as small polygon meshes.

A vehicle's own frame is metres (x right, y up, z forward); the meshes are convex prisms with flat details on them, so
back-face culling and the order of drawing are all the visibility they need.
"""

import math

import numpy as np

from .street_drawing import BUS, CAR, TRAIN, TRUCK, Canvas, Colour, jitter, scale

_TYRE = (24.0, 24.0, 26.0)
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 15)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 15)[:-1])], axis=1)
_PAINTS = (
    (232, 232, 230), (36, 37, 40), (168, 170, 173), (104, 107, 112), (44, 66, 122), (158, 32, 34), (52, 92, 60),
    (206, 176, 60), (176, 160, 130), (94, 66, 50), (70, 130, 170), (128, 150, 96), (196, 92, 40), (66, 70, 76),
)  # fmt: skip
_PAINT_ODDS = np.array([5, 5, 5, 5, 3, 3, 2, 1, 2, 1, 2, 1, 1, 4]) / 40


class _Mesh:
    """Polygons in the order of drawing; each is visible, and lit, as its host face is."""

    def __init__(self) -> None:
        self.faces: list[tuple[np.ndarray, Colour, int, bool]] = []

    def add(self, points: np.ndarray, colour: Colour, host: int | None = None, glows: bool = False) -> int:
        self.faces.append((np.asarray(points, float), colour, len(self.faces) if host is None else host, glows))
        return len(self.faces) - 1

    def prism(self, profile: list[tuple[float, float, float]], colour: Colour) -> '_Prism':
        """Adds the hull of a convex side profile of (z, y, half width): rear bottom, over the top, front bottom."""
        return _Prism(self, np.array(profile), colour)

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
                a, b, c = flat[start], flat[start + 1], flat[start + 2]
                shown = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0
                visible.append(shown)
                lit.append(_normal(world[start : start + 3]) if shown else None)
            else:
                visible.append(visible[host])
                lit.append(lit[host])
            if visible[-1]:
                away = world[start, 2]
                shaded = canvas.light.hazed(colour, away) if glows else canvas.light.shade(colour, lit[-1], away)
                canvas.polygon(flat[start:stop], shaded, label)
            start = stop


class _Prism:
    """The faces of one convex prism, and places on them to put details."""

    def __init__(self, mesh: _Mesh, profile: np.ndarray, colour: Colour) -> None:
        self.mesh, self.profile = mesh, profile
        z, y, half = profile.T
        right, left = np.stack([half, y, z], 1), np.stack([-half, y, z], 1)
        self.edges = []
        for i in range(len(profile)):
            j = (i + 1) % len(profile)
            self.edges.append(mesh.add([right[j], right[i], left[i], left[j]], colour))
        self.right, self.left = mesh.add(right, colour), mesh.add(left[::-1], colour)

    def on_sides(self, outline: np.ndarray, colour: Colour, proud: float = 0.0, glows: bool = False) -> None:
        """Puts a polygon of (z, y) on both sides; `proud` moves it outwards by metres."""
        z, y = np.asarray(outline, float).T
        order = np.argsort(self.profile[:, 1], kind='stable')
        half = np.interp(y, self.profile[order, 1], self.profile[order, 2]) + proud
        self.mesh.add(np.stack([half, y, z], 1), colour, self.right, glows)
        self.mesh.add(np.stack([-half, y, z], 1), colour, self.left, glows)

    def on_edge(self, edge: int, outline: np.ndarray, colour: Colour, glows: bool = False) -> None:
        """Puts a polygon of (u, t) on the face of a profile edge: u in -1..1 across, t in 0..1 along the edge."""
        u, t = np.asarray(outline, float).T
        start, end = self.profile[edge], self.profile[(edge + 1) % len(self.profile)]
        z, y, half = start[:, None] + (end - start)[:, None] * t
        self.mesh.add(np.stack([u * half, y, z], 1), colour, self.edges[edge], glows)

    def wheels(self, centres: list[float], radius: float, hub: Colour) -> None:
        for z in centres:
            self.on_sides(_CIRCLE * radius * 1.16 + (z, radius), (18.0, 18.0, 20.0))
            self.on_sides(_CIRCLE * radius + (z, radius), _TYRE)
            self.on_sides(_CIRCLE * radius * 0.6 + (z, radius), hub)


def _normal(points: np.ndarray) -> tuple[float, float, float]:
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points.tolist()
    x = (by - ay) * (cz - az) - (bz - az) * (cy - ay)
    y = (bz - az) * (cx - ax) - (bx - ax) * (cz - az)
    z = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    size = math.sqrt(x * x + y * y + z * z) or 1.0
    # The vertices run clockwise as seen from outside.
    return x / size, y / size, z / size


def _box(u0: float, u1: float, t0: float, t1: float) -> np.ndarray:
    return np.array([[u0, t0], [u1, t0], [u1, t1], [u0, t1]])


def _lamps(prism: _Prism, rear: int, front: int, lit: bool, low: float, high: float, width: float = 0.26) -> None:
    """Tail and head lamps at both corners of the rear and the front face."""
    for sign in (-1, 1):
        u = sorted((sign * 0.96, sign * (0.96 - width)))
        prism.on_edge(rear, _box(*u, low, high), (235.0, 40.0, 30.0) if lit else (150.0, 26.0, 26.0), lit)
        prism.on_edge(front, _box(*u, 1 - high, 1 - low), (255.0, 248.0, 215.0) if lit else (214.0, 218.0, 220.0), lit)


def draw_car(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float) -> None:
    """A hatchback, saloon, estate, SUV or van."""
    kind = rng.choice(5, p=[0.3, 0.25, 0.15, 0.2, 0.1])
    paint = jitter(rng, _PAINTS[rng.choice(len(_PAINTS), p=_PAINT_ODDS)], 12)
    length = (3.9, 4.6, 4.7, 4.5, 5.2)[kind] * rng.uniform(0.95, 1.05)
    half = (0.86, 0.9, 0.9, 0.95, 1.0)[kind]
    waist = (0.9, 0.88, 0.9, 1.05, 1.15)[kind]
    top = (1.48, 1.43, 1.48, 1.72, 2.15)[kind] * rng.uniform(0.97, 1.03)
    back, nose = -length / 2, length / 2
    sill = 0.24 if kind < 3 else 0.32
    bonnet = waist - (0.12 if kind < 4 else 0.02)
    cabin_back = back + (0.08, 0.75, 0.1, 0.1, 0.04)[kind]
    cabin_front = nose - (0.95, 1.15, 1.1, 1.05, 0.6)[kind]
    lean_back = (0.35, 0.6, 0.3, 0.22, 0.05)[kind]
    lean_front = (0.7, 0.75, 0.75, 0.65, 0.55)[kind]
    glass = jitter(rng, (44, 52, 60), 12)
    trim = (34.0, 35.0, 38.0)

    mesh = _Mesh()
    body = mesh.prism(
        [
            (back + 0.05, sill, half * 0.96), (back, sill + 0.32, half), (back + 0.06, waist, half),
            (cabin_front, waist, half), (nose - 0.12, bonnet, half * 0.96), (nose, sill + 0.36, half * 0.94),
            (nose - 0.06, sill, half * 0.92),
        ],
        paint,
    )  # fmt: skip
    for z_wheel in (back + 0.2, nose - 0.25):
        for sign in (-1, 1):
            tyre = np.array([[sign * half * k, y, z_wheel] for k, y in ((0.98, 0), (0.72, 0), (0.72, 0.4), (0.98, 0.4))])
            mesh.add(tyre, _TYRE, body.edges[0] if z_wheel < 0 else body.edges[5])
    hub = jitter(rng, (150, 152, 156), 30)
    radius = 0.33 if kind < 3 else 0.37
    body.on_sides([(back + 0.05, sill), (back + 0.02, sill + 0.12), (nose, sill + 0.12), (nose - 0.06, sill)], trim)
    body.wheels([back + 0.78, nose - 0.85], radius, hub)
    seam = scale(paint, 0.7)
    for z_seam in (cabin_front - 0.25, (cabin_back + cabin_front) / 2 - 0.1):
        body.on_sides([(z_seam, sill + 0.15), (z_seam, waist), (z_seam + 0.03, waist), (z_seam + 0.03, sill + 0.15)], seam)
    body.on_edge(0, _box(-1, 1, 0.0, 0.45), trim)
    body.on_edge(5, _box(-1, 1, 0.5, 1.0), trim)
    body.on_edge(1, _box(-0.28, 0.28, 0.1, 0.4), (225.0, 225.0, 215.0))
    body.on_edge(4, _box(-0.55, 0.55, 0.35, 0.8), (40.0, 42.0, 44.0))
    body.on_edge(5, _box(-0.28, 0.28, 0.15, 0.5), (225.0, 225.0, 215.0))
    _lamps(body, 1, 4, canvas.light.lamps, 0.4, 0.92)

    roof_half = half * (0.78 if kind < 4 else 0.9)
    cabin = mesh.prism(
        [
            (cabin_back, waist, half * 0.97), (cabin_back + lean_back, top, roof_half),
            (cabin_front - lean_front, top, roof_half), (cabin_front, waist, half * 0.95),
        ],
        paint,
    )  # fmt: skip
    cabin.on_edge(0, _box(-0.84, 0.84, 0.12 if kind < 4 else 0.3, 0.86), glass)
    cabin.on_edge(2, _box(-0.9, 0.9, 0.1, 0.94), glass)
    low, high = waist + 0.04, top - 0.09
    share = (high - waist) / (top - waist)
    z0, z1 = cabin_back + 0.12, cabin_front - 0.14
    z0_top, z1_top = cabin_back + lean_back * share + 0.1, cabin_front - lean_front * share - 0.1
    pillar, pillar_top = (z0 + z1) / 2 - 0.1, (z0_top + z1_top) / 2
    if kind < 4 or rng.random() < 0.4:
        cabin.on_sides([(z0, low), (z0_top, high), (pillar_top - 0.05, high), (pillar - 0.05, low)], glass)
    cabin.on_sides([(pillar + 0.05, low), (pillar_top + 0.05, high), (z1_top, high), (z1, low)], glass)
    mesh.draw(canvas, s, z, heading, CAR)


def draw_bus(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float) -> None:
    """A city bus of 11 m."""
    paint = jitter(rng, ((214, 182, 60), (176, 36, 40), (230, 230, 226), (40, 86, 150), (60, 120, 70))[rng.integers(5)], 12)
    _coach(canvas, rng, s, z, heading, BUS, paint, length=11.0, half=1.25, floor=0.32, top=rng.uniform(2.9, 3.3), snub=0.1)


def draw_tram(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float) -> None:
    """A tram of two cars of 12 m with sloped ends and a pantograph."""
    paint = jitter(rng, ((226, 200, 60), (190, 40, 44), (228, 228, 224), (48, 110, 160), (80, 140, 90))[rng.integers(5)], 12)
    offsets = (6.3, -6.3) if math.cos(heading) > 0 else (-6.3, 6.3)
    seed = int(rng.integers(1 << 30))
    for offset in offsets:
        _coach(
            canvas, np.random.default_rng(seed), s + offset * math.sin(heading), z + offset * math.cos(heading), heading,
            TRAIN, paint, length=12.4, half=1.2, floor=0.18, top=3.35, snub=0.75,
        )  # fmt: skip
        f = canvas.camera.f / max(z, 2.0)
        joints = [canvas.camera.pixel(s, y, z + offset * math.cos(heading) + d) for y, d in ((3.4, -1), (4.2, 0.2), (4.9, -1))]
        canvas.line(joints, 0.08 * f, canvas.light.shade((70.0, 70.0, 74.0), (0.0, 0.0, -1.0), z), TRAIN)


def _coach(
    canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float, label: int, paint: Colour,
    length: float, half: float, floor: float, top: float, snub: float,
) -> None:  # fmt: skip
    """A long body with a row of windows, doors and a stripe; `snub` is how far, in metres, the ends slope back."""
    back, nose = -length / 2, length / 2
    belt = floor + 1.0
    glass = jitter(rng, (40, 48, 58), 10)
    second = jitter(rng, ((236, 236, 232), (60, 62, 68), (190, 40, 40), (40, 80, 140))[rng.integers(4)], 10)
    mesh = _Mesh()
    body = mesh.prism(
        [
            (back, floor, half), (back, belt, half), (back + snub, top, half * 0.96),
            (nose - snub, top, half * 0.96), (nose, belt, half), (nose, floor, half),
        ],
        paint,
    )  # fmt: skip
    low, high = belt + 0.12, top - 0.42
    lean = snub * (high - belt) / (top - belt)
    body.on_sides([(back, floor), (back, floor + 0.3), (nose, floor + 0.3), (nose, floor)], scale(second, 0.8))
    body.on_sides([(back, belt - 0.3), (back, belt - 0.05), (nose, belt - 0.05), (nose, belt - 0.3)], second)
    body.on_sides([(back + 0.15, low), (back + lean + 0.15, high), (nose - lean - 0.15, high), (nose - 0.15, low)], glass)
    count = round(length / 1.7)
    for k in range(1, count):
        z_post = back + length * k / count
        body.on_sides([(z_post, low), (z_post, high), (z_post + 0.1, high), (z_post + 0.1, low)], scale(paint, 0.9))
    for z_door in (back + length * 0.3, nose - length * 0.2):
        door = np.array([(z_door, floor + 0.1), (z_door, high), (z_door + 1.1, high), (z_door + 1.1, floor + 0.1)])
        body.on_sides(door, scale(second, 0.9))
        for shift in (0.1, 0.6):
            pane = [(z_door + shift, floor + 0.35), (z_door + shift, high - 0.08)]
            body.on_sides(pane + [(z_door + shift + 0.4, high - 0.08), (z_door + shift + 0.4, floor + 0.35)], glass)
    if label == BUS:
        body.wheels([back + 2.6, nose - 2.5], 0.48, (120.0, 122.0, 126.0))
    else:
        for z_bogie in (back + 2.6, nose - 2.6):
            box = [(z_bogie - 1.2, 0.05), (z_bogie - 1.2, floor + 0.12), (z_bogie + 1.2, floor + 0.12), (z_bogie + 1.2, 0.05)]
            body.on_sides(box, (42.0, 42.0, 46.0))
    share = (high - belt) / (top - belt)
    body.on_edge(1, _box(-0.86, 0.86, 0.1, share), glass)
    body.on_edge(3, _box(-0.92, 0.92, 1 - share, 0.95), glass)
    sign = (250.0, 170.0, 40.0) if rng.random() < 0.7 else (40.0, 42.0, 44.0)
    for edge, t in ((1, share + 0.04), (3, 0.03)):
        body.on_edge(edge, _box(-0.6, 0.6, t, t + 0.1), sign, sign[0] > 200)
    body.on_edge(0, _box(-1, 1, 0, 0.22), scale(second, 0.7))
    body.on_edge(4, _box(-1, 1, 0.78, 1), scale(second, 0.7))
    _lamps(body, 0, 4, canvas.light.lamps, 0.35, 0.6, 0.2)
    mesh.draw(canvas, s, z, heading, label)


def draw_truck(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float) -> None:
    """A rigid lorry: a cab, and behind it a box, a tarpaulin or an open tipper body."""
    cab_paint = jitter(rng, _PAINTS[rng.integers(len(_PAINTS))], 12)
    cargo_paint = jitter(rng, ((232, 232, 228), (150, 154, 158), (60, 80, 120), (92, 108, 78), (190, 110, 50))[rng.integers(5)], 14)
    tipper = rng.random() < 0.3
    length = rng.uniform(6.8, 9.0)
    half, top = 1.2, 1.9 if tipper else rng.uniform(3.1, 3.7)
    back, nose = -length / 2, length / 2
    cab_back = nose - 1.9

    cab_mesh, cargo_mesh = _Mesh(), _Mesh()
    cab = cab_mesh.prism(
        [
            (cab_back, 0.5, half), (cab_back, 2.7, half * 0.95), (nose - 0.35, 2.75, half * 0.95),
            (nose, 1.5, half), (nose, 0.5, half),
        ],
        cab_paint,
    )  # fmt: skip
    glass = (42.0, 50.0, 58.0)
    cab.on_edge(2, _box(-0.9, 0.9, 0.18, 0.92), glass)
    cab.on_edge(3, _box(-0.7, 0.7, 0.15, 0.55), (44.0, 46.0, 48.0))
    cab.on_sides([(nose - 1.3, 1.55), (nose - 1.25, 2.4), (nose - 0.45, 2.4), (nose - 0.2, 1.55)], glass)
    cab.wheels([nose - 0.95], 0.5, (140.0, 142.0, 146.0))
    for sign in (-1, 1):
        u = sorted((sign * 0.95, sign * 0.65))
        lit = canvas.light.lamps
        cab.on_edge(3, _box(*u, 0.62, 0.82), (255.0, 248.0, 215.0) if lit else (214.0, 218.0, 220.0), lit)

    cargo = cargo_mesh.prism(
        [(back, 0.55, half), (back, top, half), (cab_back - 0.25, top, half), (cab_back - 0.25, 0.55, half)], cargo_paint
    )
    chassis = (46.0, 46.0, 50.0)
    cargo.on_sides([(back, 0.5), (back, 0.95), (cab_back, 0.95), (cab_back, 0.5)], chassis)
    cargo.on_edge(0, _box(-1, 1, 0, 0.14), chassis)
    if tipper:
        for z_rib in np.arange(back + 0.4, cab_back - 0.5, 0.9):
            cargo.on_sides([(z_rib, 1.0), (z_rib, top), (z_rib + 0.12, top), (z_rib + 0.12, 1.0)], scale(cargo_paint, 0.7))
    else:
        cargo.on_edge(0, _box(-0.015, 0.015, 0.16, 0.98), scale(cargo_paint, 0.55))
        cargo.on_edge(0, _box(-0.95, 0.95, 0.95, 0.97), scale(cargo_paint, 0.55))
        logo = jitter(rng, (120, 90, 90), 50)
        z0, z1 = back + rng.uniform(0.6, 1.5), cab_back - rng.uniform(1.0, 2.0)
        cargo.on_sides([(z0, 1.8), (z0, top - 0.7), (z1, top - 0.7), (z1, 1.8)], logo)
        if rng.random() < 0.5:
            cargo.on_edge(0, _box(-0.7, 0.7, 0.4, 0.75), logo)
    cargo.wheels([back + 1.0, back + 2.0], 0.48, (120.0, 122.0, 126.0))
    for sign in (-1, 1):
        u = sorted((sign * 0.95, sign * 0.72))
        lit = canvas.light.lamps
        cargo.on_edge(0, _box(*u, 0.03, 0.1), (235.0, 40.0, 30.0) if lit else (160.0, 30.0, 28.0), lit)
        tyre = [(sign * half * k, y, back + 0.3) for k, y in ((0.98, 0), (0.6, 0), (0.6, 0.56), (0.98, 0.56))]
        cargo_mesh.add(np.array(tyre), _TYRE, cargo.edges[0])
    cab_is_farther = math.cos(heading) > 0
    for mesh in (cab_mesh, cargo_mesh) if cab_is_farther else (cargo_mesh, cab_mesh):
        mesh.draw(canvas, s, z, heading, TRUCK)
