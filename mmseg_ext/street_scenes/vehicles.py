"""Cars, vans, trucks, buses and trams of the procedural street scenes."""

import math

import numpy as np

from .drawing import BUS, CAR, TRAIN, TRUCK, Canvas, Colour, jitter, scale
from .mesh import TYRE, Mesh, Prism

_PAINTS = (
    (232, 232, 230), (36, 37, 40), (168, 170, 173), (104, 107, 112), (44, 66, 122), (158, 32, 34), (52, 92, 60),
    (206, 176, 60), (176, 160, 130), (94, 66, 50), (70, 130, 170), (128, 150, 96), (196, 92, 40), (66, 70, 76),
)  # fmt: skip
_LIVERIES = ((220, 190, 60), (182, 38, 42), (230, 230, 226), (44, 96, 154), (70, 130, 80))
_CARGOES = ((232, 232, 228), (150, 154, 158), (60, 80, 120), (92, 108, 78), (190, 110, 50))
_PAINT_ODDS = np.array([5, 5, 5, 5, 3, 3, 2, 1, 2, 1, 2, 1, 1, 4]) / 40


def _box(u0: float, u1: float, t0: float, t1: float) -> np.ndarray:
    return np.array([[u0, t0], [u1, t0], [u1, t1], [u0, t1]])


def _lamps(prism: Prism, rear: int, front: int, lit: bool, low: float, high: float, width: float = 0.26) -> None:
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

    mesh = Mesh()
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
            tyre = [(sign * half * k, y, z_wheel) for k, y in ((0.98, 0), (0.72, 0), (0.72, 0.4), (0.98, 0.4))]
            mesh.add(tyre, TYRE, body.edges[0] if z_wheel < 0 else body.edges[5])
    hub = jitter(rng, (150, 152, 156), 30)
    radius = 0.33 if kind < 3 else 0.37
    body.on_sides([(back + 0.05, sill), (back + 0.02, sill + 0.12), (nose, sill + 0.12), (nose - 0.06, sill)], trim)
    body.wheels([back + 0.78, nose - 0.85], radius, hub)
    seam = scale(paint, 0.7)
    for z_seam in (cabin_front - 0.25, (cabin_back + cabin_front) / 2 - 0.1):
        body.on_sides(_box(z_seam, z_seam + 0.03, sill + 0.15, waist), seam)
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
    paint = jitter(rng, _LIVERIES[rng.integers(len(_LIVERIES))], 12)
    _coach(
        canvas, rng, s, z, heading, BUS, paint,
        length=11.0, half=1.25, floor=0.32, top=rng.uniform(2.9, 3.3), snubs=(0.1, 0.1),
    )  # fmt: skip


def draw_tram(canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float) -> None:
    """A tram of two cars of 12 m with sloped ends and a pantograph."""
    paint = jitter(rng, _LIVERIES[rng.integers(len(_LIVERIES))], 12)
    offsets = (6.25, -6.25) if math.cos(heading) > 0 else (-6.25, 6.25)
    seed = int(rng.integers(1 << 30))
    for offset in offsets:
        at, ahead = s + offset * math.sin(heading), z + offset * math.cos(heading)
        _coach(
            canvas, np.random.default_rng(seed), at, ahead, heading, TRAIN, paint,
            length=12.4, half=1.2, floor=0.18, top=3.35, snubs=(0.0, 0.75) if offset > 0 else (0.75, 0.0),
        )  # fmt: skip
        pantograph = [canvas.camera.pixel(at, y, ahead + dz) for y, dz in ((3.4, -1), (4.2, 0.2), (4.9, -1))]
        width = 0.08 * canvas.camera.f / max(ahead, 2.0)
        canvas.line(pantograph, width, canvas.light.shade((70.0, 70.0, 74.0), (0.0, 0.0, -1.0), ahead), TRAIN)


def _coach(
    canvas: Canvas, rng: np.random.Generator, s: float, z: float, heading: float, label: int, paint: Colour,
    length: float, half: float, floor: float, top: float, snubs: tuple[float, float],
) -> None:  # fmt: skip
    """A long body with windows, doors and a stripe; `snubs` is how far, in metres, its rear and front slope."""
    back, nose = -length / 2, length / 2
    belt = floor + 1.0
    glass = jitter(rng, (40, 48, 58), 10)
    second = jitter(rng, ((236, 236, 232), (60, 62, 68), (190, 40, 40), (40, 80, 140))[rng.integers(4)], 10)
    mesh = Mesh()
    body = mesh.prism(
        [
            (back, floor, half), (back, belt, half), (back + snubs[0], top, half * 0.96),
            (nose - snubs[1], top, half * 0.96), (nose, belt, half), (nose, floor, half),
        ],
        paint,
    )  # fmt: skip
    low, high = belt + 0.12, top - 0.42
    rear_lean, front_lean = (snub * (high - belt) / (top - belt) for snub in snubs)
    body.on_sides(_box(back, nose, floor, floor + 0.3), scale(second, 0.8))
    body.on_sides(_box(back, nose, belt - 0.3, belt - 0.05), second)
    z0, z1 = back + 0.15, nose - 0.15
    body.on_sides([(z0, low), (z0 + rear_lean, high), (z1 - front_lean, high), (z1, low)], glass)
    count = round(length / 1.7)
    for k in range(1, count):
        z_post = back + length * k / count
        body.on_sides(_box(z_post, z_post + 0.1, low, high), scale(paint, 0.9))
    for z_door in (back + length * 0.3, nose - length * 0.2):
        body.on_sides(_box(z_door, z_door + 1.1, floor + 0.1, high), scale(second, 0.9))
        for z_pane in (z_door + 0.1, z_door + 0.6):
            body.on_sides(_box(z_pane, z_pane + 0.4, floor + 0.35, high - 0.08), glass)
    if label == BUS:
        body.wheels([back + 2.6, nose - 2.5], 0.48, (120.0, 122.0, 126.0))
    else:
        for z_bogie in (back + 2.6, nose - 2.6):
            body.on_sides(_box(z_bogie - 1.2, z_bogie + 1.2, 0.05, floor + 0.12), (42.0, 42.0, 46.0))
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
    cargo_paint = jitter(rng, _CARGOES[rng.integers(len(_CARGOES))], 14)
    tipper = rng.random() < 0.3
    length = rng.uniform(6.8, 9.0)
    half, top = 1.2, 1.9 if tipper else rng.uniform(3.1, 3.7)
    back, nose = -length / 2, length / 2
    cab_back = nose - 1.9

    cab_mesh, cargo_mesh = Mesh(), Mesh()
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

    bulkhead = cab_back - 0.25
    cargo = cargo_mesh.prism(
        [(back, 0.55, half), (back, top, half), (bulkhead, top, half), (bulkhead, 0.55, half)], cargo_paint
    )
    chassis = (46.0, 46.0, 50.0)
    cargo.on_sides(_box(back, cab_back, 0.5, 0.95), chassis)
    cargo.on_edge(0, _box(-1, 1, 0, 0.14), chassis)
    if tipper:
        for z_rib in np.arange(back + 0.4, cab_back - 0.5, 0.9):
            cargo.on_sides(_box(z_rib, z_rib + 0.12, 1.0, top), scale(cargo_paint, 0.7))
    else:
        cargo.on_edge(0, _box(-0.015, 0.015, 0.16, 0.98), scale(cargo_paint, 0.55))
        cargo.on_edge(0, _box(-0.95, 0.95, 0.95, 0.97), scale(cargo_paint, 0.55))
        logo = jitter(rng, (120, 90, 90), 50)
        z0, z1 = back + rng.uniform(0.6, 1.5), cab_back - rng.uniform(1.0, 2.0)
        cargo.on_sides(_box(z0, z1, 1.8, top - 0.7), logo)
        if rng.random() < 0.5:
            cargo.on_edge(0, _box(-0.7, 0.7, 0.4, 0.75), logo)
    cargo.wheels([back + 1.0, back + 2.0], 0.48, (120.0, 122.0, 126.0))
    for sign in (-1, 1):
        u = sorted((sign * 0.95, sign * 0.72))
        lit = canvas.light.lamps
        cargo.on_edge(0, _box(*u, 0.03, 0.1), (235.0, 40.0, 30.0) if lit else (160.0, 30.0, 28.0), lit)
        tyre = [(sign * half * k, y, back + 0.3) for k, y in ((0.98, 0), (0.6, 0), (0.6, 0.56), (0.98, 0.56))]
        cargo_mesh.add(np.array(tyre), TYRE, cargo.edges[0])
    cab_is_farther = math.cos(heading) > 0
    for mesh in (cab_mesh, cargo_mesh) if cab_is_farther else (cargo_mesh, cab_mesh):
        mesh.draw(canvas, s, z, heading, TRUCK)
