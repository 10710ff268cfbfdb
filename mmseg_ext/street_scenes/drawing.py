"""Camera, light and canvas of the procedural street scenes.

Street coordinates are metres `(s, y, z)`: `s` to the right of the camera across the street, `y` up from the ground,
`z` ahead along the street. The street bends, so `s` is measured from a parabola; the camera takes care of it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .textures import TILE, crowns, textures

CLASSES = (
    'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign', 'vegetation', 'terrain',
    'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle',
)  # fmt: skip
(
    ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN,
    SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE,
) = range(19)  # fmt: skip
IGNORE = 255

Colour = tuple[float, float, float]
_SUBPIXEL = 4
_NEAR = 1.0


def jitter(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """`colour` (RGB, 0..255) with a common and a per-channel deviation of `spread` and a third of it."""
    shift = rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    return tuple(min(250.0, max(6.0, c + s)) for c, s in zip(colour, shift.tolist(), strict=True))


def scale(colour: Colour, gain: float) -> Colour:
    """`colour` times `gain`, kept in 0..255."""
    return tuple(min(255.0, c * gain) for c in colour)


def round_outline(count: int, start: float = 0.0) -> np.ndarray:
    """Regular polygon (count, 2) on the unit circle, its first corner at angle `start` in radians."""
    angle = start + np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclass(frozen=True)
class Camera:
    """Pinhole camera that looks along the street: `f` in pixels, vanishing point `(cx, cy)`, height above ground in m.

    `bend` is the street's curvature term: a point of street coordinate `s` lies `s + bend * z ** 2` to the right.
    """

    f: float
    cx: float
    cy: float
    height: float
    bend: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Street coordinates (..., 3) in metres to pixels (..., 2); points nearer than a metre count as at one."""
        z = np.maximum(points[..., 2], _NEAR)
        pixels = np.empty((*z.shape, 2))
        pixels[..., 0] = self.cx + self.f * (points[..., 0] / z + self.bend * z)
        pixels[..., 1] = self.cy + self.f * (self.height - points[..., 1]) / z
        return pixels

    def pixel(self, s: float, y: float, z: float) -> tuple[float, float]:
        """`project` for one point, without numpy's overhead."""
        z = max(z, _NEAR)
        return self.cx + self.f * (s / z + self.bend * z), self.cy + self.f * (self.height - y) / z


@dataclass(frozen=True)
class Light:
    """Sun (unit vector towards it, RGB strength), sky light, haze (RGB 0..255, visibility in metres), lamps on."""

    sun: tuple[float, float, float]
    sun_rgb: Colour
    ambient_rgb: Colour
    haze_rgb: Colour
    visibility: float
    lamps: bool

    def shade(self, colour: Colour, normal: tuple[float, float, float], z: float) -> Colour:
        """Colour (RGB 0..255) of a matt surface of unit `normal` seen from `z` metres away."""
        facing = max(0.0, sum(n * s for n, s in zip(normal, self.sun, strict=True)))
        sky = 0.8 + 0.2 * normal[1]
        lit = [c * (a * sky + s * facing) for c, a, s in zip(colour, self.ambient_rgb, self.sun_rgb, strict=True)]
        return self.hazed(lit, z)

    def hazed(self, colour: Colour, z: float) -> Colour:
        """`colour` seen through `z` metres of haze."""
        haze = 1 - math.exp(-max(z, 0.0) / self.visibility)
        return tuple(min(255.0, c + (h - c) * haze) for c, h in zip(colour, self.haze_rgb, strict=True))


class Canvas:
    """Picture and label drawn together: `pixels` (H, W, 4) uint8 holds R, G, B and the trainId.

    Each shape writes all four channels at once, so the label cannot disagree with what was drawn.
    """

    def __init__(self, height: int, width: int, camera: Camera, light: Light) -> None:
        self.pixels = np.full((height, width, 4), IGNORE, np.uint8)
        self.camera = camera
        self.light = light

    def polygon(self, points: np.ndarray, colour: Colour, label: int) -> None:
        """Fills one polygon of pixel coordinates (N, 2)."""
        fixed = np.rint(np.asarray(points) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], (*colour, label), shift=_SUBPIXEL)

    def quads(self, points: np.ndarray, colour: Colour, label: int) -> None:
        """Fills (N, K, 3) polygons of street coordinates, which must not overlap one another."""
        if len(points):
            fixed = np.rint(self.camera.project(points) * (1 << _SUBPIXEL)).astype(np.int32)
            cv2.fillPoly(self.pixels, list(fixed), (*colour, label), shift=_SUBPIXEL)

    def line(self, points: np.ndarray, width: float, colour: Colour, label: int, closed: bool = False) -> None:
        """Draws a polyline of pixel coordinates (N, 2), `width` pixels wide and round at the ends."""
        fixed = np.rint(np.asarray(points) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.polylines(self.pixels, [fixed], closed, (*colour, label), max(1, round(width)), shift=_SUBPIXEL)

    def disc(self, centre: tuple[float, float], radius: float, colour: Colour, label: int) -> None:
        """Fills a circle given in pixels."""
        one = 1 << _SUBPIXEL
        at = (round(centre[0] * one), round(centre[1] * one))
        cv2.circle(self.pixels, at, max(1, round(radius * one)), (*colour, label), -1, shift=_SUBPIXEL)

    def veil(self, points: np.ndarray, colour: Colour, label: int, opacity: float) -> None:
        """Blends a polygon of pixel coordinates over the picture and labels all of it, as annotators do with spokes."""
        window = self._window(points)
        if window is None:
            return
        region = self.pixels[window]
        blend = cv2.addWeighted(region, 1 - opacity, np.full_like(region, (*colour, 0)), opacity, 0)
        blend[..., 3] = label
        np.copyto(region, blend, where=self._mask(points, window)[..., None] > 0)

    def facade(
        self, start: tuple[float, float], end: tuple[float, float], bottom: float, top: float,
        colour: Colour, label: int, texture: str, tile: float, see_through: float = 0.0,
    ) -> None:  # fmt: skip
        """Draws an upright textured rectangle from `start` to `end`, (s, z) in metres, between two heights.

        `tile` is the size of the texture in metres. `see_through` > 0 opens the texture's light parts that far, while
        all of the rectangle keeps the label (a mesh fence).
        """
        camera = self.camera
        start, end = (np.array([s + camera.bend * z * z, z]) for s, z in (start, end))
        if max(start[1], end[1]) <= _NEAR:
            return
        if min(start[1], end[1]) < _NEAR:
            near, far = (start, end) if start[1] < end[1] else (end, start)
            near += (far - near) * (_NEAR - near[1]) / (far[1] - near[1])
        (x0, z0), (x1, z1) = start, end
        corners = np.array([
            [camera.cx + camera.f * x / z, camera.cy + camera.f * (camera.height - y) / z]
            for x, z, y in ((x0, z0, bottom), (x1, z1, bottom), (x1, z1, top), (x0, z0, top))
        ])  # fmt: skip
        normal = _facing_normal(start, end)
        shaded = self.light.shade(colour, normal, (z0 + z1) / 2)
        window = self._window(corners)
        if window is None:
            return
        if not see_through:
            self.polygon(corners, shaded, label)
        rows, columns = window
        slope = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - camera.cx) / camera.f
        run, depth = x1 - x0, z1 - z0
        divisor = run - slope * depth
        along = np.clip((slope * z0 - x0) / np.where(np.abs(divisor) < 1e-6, 1e-6, divisor), 0, 1)
        z = (z0 + along * depth).astype(np.float32)
        height = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - camera.cy
        texel = TILE / tile
        map_y = ((camera.height - height * (z / camera.f)) * texel) % TILE
        map_x = np.broadcast_to(((along * math.hypot(run, depth)) * texel % TILE).astype(np.float32), map_y.shape)
        pattern = cv2.remap(textures()[texture], map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP)
        # A texture finer than the pixels would alias, so it fades with distance.
        fade = np.clip(2.2 * camera.f / (z * texel), 0, 1)
        mask = self._mask(corners, window)
        region = self.pixels[window]
        if see_through:
            strength = np.where(pattern < 110, 1.0, 1 - see_through) * fade + (1 - 0.7 * see_through) * (1 - fade)
            blend = region[..., :3] + (np.array(shaded) - region[..., :3]) * strength[..., None]
            np.copyto(region[..., :3], blend.astype(np.uint8), where=mask[..., None] > 0)
            region[mask > 0, 3] = label
            return
        gain = (128 + (pattern.astype(np.float32) - 128) * fade).astype(np.uint8)
        gain[mask == 0] = 128
        modulate(region, gain)

    def sprite(
        self, levels: list, s: float, z: float, base: float, width: float, height: float, colour: Colour, label: int
    ) -> None:
        """Draws a foliage sprite facing the camera: `base`, `width` and `height` in metres."""
        u, v = self.camera.pixel(s, base, z)
        pixels_wide, pixels_high = (max(3.0, size * self.camera.f / max(z, _NEAR)) for size in (width, height))
        corners = np.array([[u - pixels_wide / 2, v - pixels_high], [u + pixels_wide / 2, v]])
        window = self._window(corners)
        if window is None:
            return
        rows, columns = window
        level = 0
        while level + 1 < len(levels) and levels[level + 1][0].shape[0] >= pixels_wide:
            level += 1
        shade, mask = levels[level]
        size = shade.shape[0]
        mirrored = self.light.sun[0] > 0
        step_x, step_y = size / pixels_wide, size / pixels_high
        left = (columns.start + 0.5 - corners[0, 0]) * step_x - 0.5
        inverse = np.array([
            [-step_x if mirrored else step_x, 0, size - 1 - left if mirrored else left],
            [0, step_y, (rows.start + 0.5 - corners[0, 1]) * step_y - 0.5],
        ])  # fmt: skip
        target = (columns.stop - columns.start, rows.stop - rows.start)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shade = cv2.warpAffine(shade, inverse, target, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(mask, inverse, target, flags=flags, borderMode=cv2.BORDER_CONSTANT)
        tones = np.full((256, 4), label, np.uint8)
        lit = self.light.shade(colour, (0.0, 0.5, -0.5), z)
        sunk = self.light.hazed((14.0, 18.0, 14.0), z)
        ramp = np.arange(256)[:, None] / 128
        tones[:, :3] = np.clip(np.array(lit) * ramp + np.array(sunk) * np.clip(1 - ramp, 0, 1), 0, 255)
        np.copyto(self.pixels[window], tones[shade], where=mask[..., None] > 127)

    def crown(self, rng: np.random.Generator, shape: str) -> list:
        """A random foliage sprite of the given shape: round, tall, wide or cone."""
        bank = crowns()[shape]
        return bank[int(rng.integers(len(bank)))]

    def _window(self, points: np.ndarray) -> tuple[slice, slice] | None:
        """The part of the canvas that the bounding box of pixel coordinates (N, 2) covers, as (rows, columns)."""
        height, width = self.pixels.shape[:2]
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        left, top = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
        right, bottom = min(width, math.ceil(high[0]) + 1), min(height, math.ceil(high[1]) + 1)
        if right <= left or bottom <= top:
            return None
        return slice(top, bottom), slice(left, right)

    @staticmethod
    def _mask(points: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        rows, columns = window
        mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        shifted = (np.asarray(points) - (columns.start, rows.start)) * (1 << _SUBPIXEL)
        cv2.fillPoly(mask, [np.rint(shifted).astype(np.int32)], 255, shift=_SUBPIXEL)
        return mask


def modulate(region: np.ndarray, gain: np.ndarray) -> None:
    """Multiplies the picture of a canvas region (H, W, 4) by gain / 128, (H, W) uint8, in place; labels stay."""
    unit = np.full_like(gain, 128)
    np.copyto(region, cv2.multiply(np.ascontiguousarray(region), cv2.merge([gain, gain, gain, unit]), scale=1 / 128))


def _facing_normal(start: np.ndarray, end: np.ndarray) -> tuple[float, float, float]:
    """Unit normal, towards the camera, of the upright plane over the ground segment from `start` to `end`, (x, z)."""
    normal = np.array([end[1] - start[1], start[0] - end[0]])
    normal /= max(np.hypot(*normal), 1e-9)
    if normal @ start > 0:
        normal = -normal
    return float(normal[0]), 0.0, float(normal[1])
