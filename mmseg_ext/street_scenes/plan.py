"""The plan of a procedural street: its cross-section, its side streets and what kind of quarter it lies in."""

from dataclasses import dataclass, field

import numpy as np

from . import drawing as d


@dataclass
class Street:
    """The plan, in metres right of the camera; index 0 is the left side, 1 the right.

    `area` is centre, suburb, green or works; `end` is the depth at which the street ends. `lanes` are (centre, way),
    way 1 for those that lead away from the camera. From the middle outwards lie road, verge, kerb, sidewalk (`walk` is
    its outer edge) and the building line `front`. A `track` is (centre, whether it lies in grass). A side street is
    (near depth, far depth, side), a crossing a depth.
    """

    area: str
    end: float
    lanes: list[tuple[float, int]]
    road: tuple[float, float]
    kerb: tuple[float, float]
    walk: tuple[float, float]
    front: tuple[float, float]
    parking: tuple[bool, bool]
    lane_width: float
    median: tuple[float, float] | None
    track: tuple[float, bool] | None
    side_streets: list[tuple[float, float, int]] = field(default_factory=list)
    crossings: list[float] = field(default_factory=list)

    def is_kerb(self, side: int, z: float) -> bool:
        """Whether a side (-1 left, 1 right) has a kerb at depth z: not at a side street."""
        return not any(z0 - 0.5 < z < z1 + 0.5 for z0, z1, at in self.side_streets if at == side)

    def kerb_runs(self, side: int) -> list[tuple[float, float]]:
        """The depths over which a side's kerb is not cut by a side street."""
        runs, z = [], 1.0
        for z0, z1, at in self.side_streets:
            if at == side:
                runs.append((z, z0 + 1.6))
                z = z1 - 1.6
        return [*runs, (z, 400.0)]


def plan_street(rng: np.random.Generator, required: int | None) -> Street:
    """Draws a plan; a `required` train gets its track."""
    area = ('centre', 'suburb', 'green', 'works')[rng.choice(4, p=[0.44, 0.24, 0.18, 0.14])]
    end = rng.uniform(80, 190)
    lane = rng.uniform(2.9, 3.5)
    shift = rng.uniform(-0.5, 0.5)
    right_lanes, left_lanes = int(rng.random() < 0.3), int(rng.choice(3, p=[0.15, 0.6, 0.25]))
    lanes = [(shift + k * lane, 1) for k in range(right_lanes + 1)]
    left, right = shift - lane / 2, shift + (right_lanes + 0.5) * lane
    median = track = None
    if required == d.TRAIN or rng.random() < 0.16:
        track = (left - 1.7, rng.random() < 0.35)
        left -= 3.4
    elif left_lanes and rng.random() < 0.2:
        width = rng.uniform(1.2, 3.0)
        median = (left - width, left)
        left -= width
    for _ in range(left_lanes):
        lanes.append((left - lane / 2, -1))
        left -= lane
    parking = tuple(bool(flag) for flag in rng.random(2) < (0.55 if area != 'works' else 0.3))
    road = (left - 2.1 * parking[0], right + 2.1 * parking[1])
    kerb, walk, front = [], [], []
    for side, edge in ((-1, road[0]), (1, road[1])):
        verge = rng.uniform(0.8, 2.5) if rng.random() < (0.25 if area == 'centre' else 0.5) else 0.0
        kerb.append(edge + side * verge)
        walk.append(kerb[-1] + side * rng.uniform(1.7, 4.5))
        front.append(walk[-1] + side * (0.0 if area == 'centre' else rng.uniform(0.0, 1.2)))
    return Street(area, end, lanes, road, tuple(kerb), tuple(walk), tuple(front), parking, lane, median, track)
