"""Puts traffic, street furniture and people on a procedural street."""

import math

import numpy as np

from . import drawing as d
from . import furniture as furniture
from .people import draw_bicycle, draw_motorcycle, draw_person
from .plan import Street
from .stage import VEHICLES, Stage


def place_traffic(stage: Stage, street: Street, required: int | None) -> None:
    """Moving, parked and crossing vehicles, and a tram if there is a track."""
    rng = stage.rng
    density = rng.uniform(0.3, 1.3)
    wanted = required if required in (d.CAR, d.TRUCK, d.BUS) else None
    for index, (s, way) in enumerate(street.lanes):
        z = rng.uniform(7, 30) / density**0.5 if index == 0 else rng.uniform(2, 22)
        while z < street.end:
            label = (d.CAR, d.TRUCK, d.BUS)[rng.choice(3, p=[0.88, 0.075, 0.045])]
            if wanted is not None and index == len(street.lanes) - 1:
                label, wanted, z = wanted, None, rng.uniform(9, 18)
            length = VEHICLES[label][1]
            heading = (0.0 if way > 0 else math.pi) + rng.normal(0, 0.025)
            stage.add_vehicle(label, s + rng.normal(0, 0.15), z + length / 2, heading)
            z += length + rng.uniform(3, 12) + rng.exponential(16 / density)
    for index, side in enumerate((-1, 1)):
        if street.parking[index]:
            _park(stage, street, street.road[index] - side * 1.05, side)
    if street.track:
        s = street.track[0]
        if required == d.TRAIN or rng.random() < 0.7:
            stage.add_vehicle(d.TRAIN, s, rng.uniform(8, 32) + 12.5, math.pi if rng.random() < 0.6 else 0.0)
    for z0, z1, side in street.side_streets:
        if rng.random() < 0.35:
            edge = street.road[(side + 1) // 2]
            heading = rng.choice([-1, 1]) * math.pi / 2
            stage.add_vehicle(d.CAR, edge + side * rng.uniform(-1.0, 5), (z0 + z1) / 2, heading)


def _park(stage: Stage, street: Street, s: float, side: int) -> None:
    rng = stage.rng
    z = rng.uniform(2, 10)
    share = rng.uniform(0.4, 0.95)
    while z < min(street.end, 110):
        if rng.random() < share and street.is_kerb(side, z) and street.is_kerb(side, z + 5):
            label = d.CAR if rng.random() < 0.95 else d.TRUCK
            length = VEHICLES[label][1]
            heading = (0.0 if side > 0 or rng.random() < 0.2 else math.pi) + rng.normal(0, 0.03)
            stage.add_vehicle(label, s + rng.normal(0, 0.08), z + length / 2, heading)
            z += length + rng.uniform(0.6, 1.8)
        else:
            z += rng.uniform(3, 7)


def place_kerbside(stage: Stage, street: Street, required: int | None) -> None:
    """Lamps, trees, signs, bins, railings and traffic lights; decides where the crossings are."""
    rng = stage.rng
    metal = furniture.metal_colour(rng)
    planted = rng.random() < {'centre': 0.4, 'suburb': 0.5, 'green': 0.75, 'works': 0.25}[street.area]
    leaves = furniture.leaf_colour(rng)
    tree_size = rng.uniform(5, 9.5)
    for index, side in enumerate((-1, 1)):
        kerb, verge = street.kerb[index], abs(street.kerb[index] - street.road[index])
        line = kerb + side * 0.45 if verge < 0.8 else kerb - side * verge / 2
        lamp_gap, tree_gap = rng.uniform(18, 32), rng.uniform(7, 13)
        for z in np.arange(rng.uniform(4, 16), street.end, lamp_gap):
            stage.add(kerb + side * 0.4, float(z), furniture.draw_lamp, metal, reach=0.1, height=6)
        if planted and rng.random() < 0.85:
            for z in np.arange(rng.uniform(4, 14), street.end, tree_gap):
                if street.is_kerb(side, z) and rng.random() < 0.85:
                    colour = d.jitter(rng, leaves, 6)
                    stage.add_tree(line, float(z) + rng.normal(0, 0.4), colour, tree_size * rng.uniform(0.8, 1.2))
        if verge >= 0.8 and rng.random() < 0.4:
            for z in np.arange(rng.uniform(3, 9), min(street.end, 70), rng.uniform(2, 5)):
                bush = (furniture.leaf_colour(rng), rng.uniform(0.4, 0.9))
                stage.add(line, float(z), furniture.draw_bush, *bush, reach=0.4, height=0.5)
        for z in rng.uniform(5, 60, int(rng.poisson(2.2)) + (required == d.TRAFFIC_SIGN)):
            stage.add(kerb + side * 0.5, float(z), furniture.draw_sign, metal, reach=0.06, height=2.8)
        for z in rng.uniform(5, 40, int(rng.poisson(0.7))):
            stage.add(kerb + side * 0.7, float(z), furniture.draw_bin)
        if rng.random() < 0.14 or (required == d.FENCE and side == 1):
            beam, colour = rng.random() < 0.5, furniture.metal_colour(rng)
            z = rng.uniform(4, 25)
            for _ in range(int(rng.integers(2, 8))):
                s = kerb + side * 0.15
                stage.add_railing(s, z, colour, beam)
                z += 4
    crossings = [z0 - 2.0 for z0, _, _ in street.side_streets if z0 > 10]
    signals = {round(z) for z in crossings if rng.random() < 0.5}
    if required == d.TRAFFIC_LIGHT or rng.random() < 0.3:
        signals.add(round(rng.uniform(9, 28)))
    for z in sorted(signals):
        for index, side in enumerate((-1, 1)):
            at = float(z) + rng.uniform(-0.5, 0.5)
            stage.add(street.kerb[index] + side * 0.5, at, furniture.draw_traffic_light, metal, reach=0.1, height=3)
    street.crossings = [float(z) + 1.0 for z in sorted(signals)]
    if rng.random() < 0.1:
        stage.add(street.kerb[1] + 0.6, rng.uniform(18, 45), furniture.draw_gantry, metal, reach=0.2, height=6)
    if street.median:
        _plant_median(stage, street, sum(street.median) / 2)


def _plant_median(stage: Stage, street: Street, s: float) -> None:
    rng = stage.rng
    kind = ('trees', 'bushes', 'railing', 'bare')[rng.choice(4, p=[0.35, 0.2, 0.3, 0.15])]
    step = {'trees': 9.0, 'bushes': 2.2, 'railing': 4.0, 'bare': 200.0}[kind]
    beam, metal = rng.random() < 0.6, furniture.metal_colour(rng)
    for z in np.arange(rng.uniform(4, 9), street.end, step).tolist():
        if kind == 'trees':
            stage.add_tree(s, z, furniture.leaf_colour(rng), rng.uniform(4, 8))
        elif kind == 'bushes':
            bush = (furniture.leaf_colour(rng), rng.uniform(0.6, 1.2))
            stage.add(s, z, furniture.draw_bush, *bush, reach=0.5, height=0.7)
        elif kind == 'railing':
            stage.add_railing(s, z, metal, beam)


def place_people(stage: Stage, street: Street, required: int | None) -> None:
    """Pedestrians, riders and parked two-wheelers."""
    rng = stage.rng
    busy = rng.uniform(0.2, 1.6) * (1.5 if street.area == 'centre' else 0.8)
    for index, side in enumerate((-1, 1)):
        kerb, walk = street.kerb[index], street.walk[index]
        for _ in range(int(rng.poisson(3.4 * busy))):
            z = rng.uniform(5, 18) if rng.random() < 0.4 else rng.uniform(10, 70)
            s = kerb + (walk - kerb) * rng.uniform(0.3, 0.9)
            heading = rng.choice([0, math.pi]) + rng.normal(0, 0.4)
            for _ in range(1 + int(rng.random() < 0.25)):
                stage.add(s, z, draw_person, heading)
                s, z = s + side * rng.uniform(-0.7, 0.7), z + rng.uniform(-0.3, 0.6)
        for _ in range(int(rng.poisson(0.5)) + (required == d.BICYCLE)):
            z = rng.uniform(5, 26)
            heading = rng.normal(0, 0.25) if rng.random() < 0.5 else math.pi / 2 + rng.normal(0, 0.3)
            for k in range(int(rng.integers(1, 4))):
                stage.add(kerb + side * 0.8, z + 0.8 * k, draw_bicycle, heading, False, reach=0.3, height=0.8)
        if rng.random() < 0.2 or (required == d.MOTORCYCLE and side == 1):
            at = kerb + side * 0.7 if rng.random() < 0.5 or street.parking[index] else street.road[index] - side * 0.8
            z, heading = rng.uniform(5, 18), rng.uniform(-0.9, 0.9) + rng.choice([0, math.pi])
            for k in range(int(rng.integers(1, 3))):
                stage.add(at, z + 1.1 * k, draw_motorcycle, heading, False, reach=0.4, height=0.9)
        if rng.random() < 0.3 or (required == d.RIDER and side == 1):
            lane = street.road[index] - side * (2.9 if street.parking[index] else 0.8)
            heading = (0.0 if side > 0 else math.pi) + rng.normal(0, 0.12)
            stage.add_to_road(lane, 5.5, 32, draw_bicycle, heading, True)
        if rng.random() < 0.16 or (required == d.MOTORCYCLE and side == -1):
            s, way = street.lanes[int(rng.integers(len(street.lanes)))]
            heading = (0.0 if way > 0 else math.pi) + rng.normal(0, 0.08)
            stage.add_to_road(s + 0.9 * way, 6, 26, draw_motorcycle, heading, True)
    for z in street.crossings:
        for _ in range(int(rng.poisson(1.6 * busy))):
            s = rng.uniform(*street.road)
            way = rng.choice([-1, 1]) * math.pi / 2 + rng.normal(0, 0.2)
            stage.add_to_road(s, z + 0.4, z + 2.6, draw_person, way)
    if rng.random() < 0.15:
        stage.add_to_road(rng.uniform(*street.road), 9, 30, draw_person, rng.choice([-1, 1]) * math.pi / 2)
    if rng.random() < 0.12:
        way = rng.choice([-1, 1]) * math.pi / 2
        stage.add_to_road(rng.uniform(*street.road) * 0.6, 8, 24, draw_bicycle, way, True)
