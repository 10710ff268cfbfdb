"""The ground of the procedural street scenes: surfaces, markings, rails, textures and shadows."""

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from .drawing import ROAD, SIDEWALK, TERRAIN, Camera, Canvas, Colour, jitter, modulate
from .textures import TILE, textures

_FAR = 400.0
_Z = np.geomspace(1.0, _FAR, 40)
_UP = (0.0, 1.0, 0.0)
_STRIPS = (1.0, 6.0, 12.0, 25.0, 50.0, 110.0, _FAR)


@dataclass(frozen=True)
class Surface:
    """What a ground area is made of; `tile` is the size of the texture in metres."""

    label: int
    colour: Colour
    texture: str
    tile: float


def draw_area(canvas: Canvas, s0: float, s1: float, z0: float, z1: float, colour: Colour, label: int) -> None:
    """Fills the ground between two street coordinates and two depths, paler with distance."""
    for near, far in pairwise(_STRIPS):
        low, high = max(near, z0), min(far, z1)
        if low >= high:
            continue
        z = np.concatenate([[low], _Z[(low < _Z) & (high > _Z)], [high]])
        edge = [np.stack([np.full_like(z, s), np.zeros_like(z), z], axis=1) for s in (s0, s1)]
        outline = np.concatenate([edge[0], edge[1][::-1]])
        shaded = canvas.light.shade(colour, _UP, math.sqrt(low * high))
        canvas.polygon(canvas.camera.project(outline), shaded, label)


def draw_dashes(
    canvas: Canvas, s: float, width: float, z0: float, z1: float, length: float, gap: float, colour: Colour
) -> None:
    """Draws a line of road paint along the street; it is road. `gap` = 0 gives a solid line."""
    if gap == 0:
        draw_area(canvas, s - width / 2, s + width / 2, z0, z1, colour, ROAD)
        return
    near = np.arange(z0, z1, length + gap)
    corners = [(s - width / 2, 0.0), (s + width / 2, 0.0), (s + width / 2, length), (s - width / 2, length)]
    quads = np.array([[(x, 0.0, z + ahead) for x, ahead in corners] for z in near if z > 1.0])
    canvas.quads(quads, canvas.light.shade(colour, _UP, 15.0), ROAD)


def draw_crossing(canvas: Canvas, s0: float, s1: float, z: float, depth: float, colour: Colour) -> None:
    """Draws the bars of a pedestrian crossing at depth z; they are road."""
    left = np.arange(s0 + 0.3, s1 - 0.5, 1.0)
    quads = np.array([[(s, 0, z), (s + 0.5, 0, z), (s + 0.5, 0, z + depth), (s, 0, z + depth)] for s in left], float)
    canvas.quads(quads, canvas.light.shade(colour, _UP, z), ROAD)


def finish_ground(
    canvas: Canvas, surfaces: dict[int, Surface], shadows: list, strength: float, rng: np.random.Generator
) -> None:
    """Gives the drawn ground its textures by label, and its shadows.

    `shadows` holds (outline (N, 2) in (s, z) metres, depth of the shadow 0..1); `strength` scales the cast ones.
    """
    camera = canvas.camera
    height, width = canvas.pixels.shape[:2]
    top = min(height - 1, math.ceil(camera.cy) + 1)
    region = canvas.pixels[top:]
    v = np.arange(top, height, dtype=np.float32)[:, None] + 0.5
    z = camera.f * camera.height / (v - camera.cy)
    u = np.arange(width, dtype=np.float32)[None, :] + 0.5
    s = ((u - camera.cx) / camera.f - camera.bend * z) * z
    shift = rng.uniform(0, 50, 2)
    z_pixel = z * z / (camera.f * camera.height)

    labels = region[..., 3]
    gain = np.full(labels.shape, 128, np.float32)
    layers = [(surfaces[label].texture, surfaces[label].tile, labels == label) for label in surfaces]
    for texture, tile, where in [*layers, ('stain', 11.0, None), ('stain', 53.0, None)]:
        if where is not None and not where.any():
            continue
        texel = TILE / tile
        map_x = ((s + shift[0]) * texel % TILE).astype(np.float32)
        map_y = np.broadcast_to((z + shift[1]) * texel % TILE, map_x.shape).astype(np.float32)
        pattern = cv2.remap(textures()[texture], map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP)
        fade = np.clip(1.5 / (z_pixel * texel), 0, 1) if where is not None else 0.8
        detail = (pattern.astype(np.float32) - 128) * fade
        gain += detail if where is None else np.where(where, detail, 0)
    gain *= _shade_map(camera, shadows, strength, top, labels.shape)
    modulate(region, np.clip(gain, 0, 255).astype(np.uint8))


def _shade_map(camera: Camera, shadows: list, strength: float, top: int, shape: tuple[int, int]) -> np.ndarray:
    """How much light the shadows leave on the ground, (H, W) float in 0..1."""
    dark = np.zeros(shape, np.uint8)
    for outline, depth in sorted(shadows, key=lambda item: item[1]):
        points = np.stack([outline[:, 0], np.zeros(len(outline)), outline[:, 1]], axis=1)
        flat = camera.project(points) - (0, top)
        cv2.fillPoly(dark, [np.rint(flat * 8).astype(np.int32)], round(255 * depth), shift=3)
    dark = cv2.blur(dark, (5, 3))
    return 1 - dark.astype(np.float32) * (strength / 255)


def cast_shadow(base: np.ndarray, height: float, sun: tuple[float, float, float]) -> np.ndarray:
    """Outline (N, 2) in (s, z) of a prism's shadow on the ground: `base` (K, 2) corners, `height` in metres."""
    shift = -np.array([sun[0], sun[2]]) * (height / max(sun[1], 0.12))
    points = np.concatenate([base, base + shift]).astype(np.float32)
    points[:, 1] = np.maximum(points[:, 1], 1.0)
    return cv2.convexHull(points)[:, 0]


def rectangle(s: float, z: float, length: float, width: float, heading: float) -> np.ndarray:
    """Corners (4, 2) in (s, z) of a rectangle on the ground."""
    cos, sin = math.cos(heading), math.sin(heading)
    local = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, length / 2)
    return np.stack([s + local[:, 0] * cos + local[:, 1] * sin, z - local[:, 0] * sin + local[:, 1] * cos], axis=1)


def pick_surfaces(rng: np.random.Generator) -> dict[int, Surface]:
    """Draws what road, sidewalk and terrain are made of in one scene."""
    grey = rng.uniform(62, 142)
    road = jitter(rng, (grey, grey, grey + 2) if rng.random() < 0.8 else (grey + 14, grey + 2, grey - 8), 6)
    base = rng.uniform(92, 186)
    walk = (base, base - 2, base - 6) if rng.random() < 0.55 else (base + 12, base - 12, base - 30)
    grass = ((88, 112, 56), (112, 122, 66), (146, 134, 88), (124, 104, 78), (72, 98, 50))[rng.integers(5)]
    paving = ('slabs', 'cobbles', 'brick', 'asphalt')[rng.choice(4, p=[0.45, 0.2, 0.2, 0.15])]
    return {
        ROAD: Surface(ROAD, road, 'cobbles' if rng.random() < 0.14 else 'asphalt', rng.uniform(2.0, 3.0)),
        SIDEWALK: Surface(SIDEWALK, jitter(rng, walk, 8), paving, rng.uniform(1.6, 2.6)),
        TERRAIN: Surface(TERRAIN, jitter(rng, grass, 8), 'grass', rng.uniform(2.0, 4.0)),
    }
