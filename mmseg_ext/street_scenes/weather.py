"""Time of day and weather of the procedural street scenes: the light, and the sky that goes with it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .drawing import SKY, Canvas, Colour, Light, jitter
from .textures import TILE, textures


@dataclass(frozen=True)
class Weather:
    """The light, the sky's colours (RGB 0..255), how much of it is cloud (0..1), and the camera's exposure."""

    light: Light
    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    exposure: float

    @property
    def casts_shadows(self) -> bool:
        return max(self.light.sun_rgb) > 0.3


def draw_weather(rng: np.random.Generator) -> Weather:
    """Draws one of: clear day, broken cloud, overcast, low sun, dusk."""
    kind = ('clear', 'broken', 'overcast', 'low sun', 'dusk')[rng.choice(5, p=[0.25, 0.25, 0.27, 0.13, 0.1])]
    azimuth = rng.uniform(-math.pi, math.pi)
    elevation = math.radians(rng.uniform(8, 20) if kind == 'low sun' else rng.uniform(28, 62))
    flat = math.cos(elevation)
    sun = (flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth))
    if kind in ('clear', 'broken'):
        ambient, strength, tint = (0.52, 0.55, 0.62), rng.uniform(0.5, 0.75), (1.06, 1.0, 0.9)
        zenith, horizon = jitter(rng, (86, 138, 206), 18), jitter(rng, (186, 208, 228), 12)
        cloud = (240.0, 241.0, 244.0)
        cover = rng.uniform(0.0, 0.25) if kind == 'clear' else rng.uniform(0.4, 0.75)
        exposure, visibility = rng.uniform(0.9, 1.25), rng.uniform(180, 600)
    elif kind == 'overcast':
        ambient, strength, tint = (0.82, 0.83, 0.85), rng.uniform(0.0, 0.15), (1.0, 1.0, 1.0)
        base = rng.uniform(130, 228)
        zenith, horizon = jitter(rng, (base,) * 3, 6), jitter(rng, (base + 16,) * 3, 6)
        cloud = (base - 24, base - 20, base - 16)
        cover, exposure, visibility = rng.uniform(0.3, 0.9), rng.uniform(0.8, 1.15), rng.uniform(70, 350)
    elif kind == 'low sun':
        ambient, strength, tint = (0.5, 0.48, 0.52), rng.uniform(0.55, 0.8), (1.25, 0.95, 0.62)
        zenith, horizon = jitter(rng, (112, 138, 184), 14), jitter(rng, (248, 206, 150), 10)
        cloud = (250.0, 214.0, 180.0)
        cover, exposure, visibility = rng.uniform(0.1, 0.6), rng.uniform(0.85, 1.2), rng.uniform(120, 400)
    else:
        ambient, strength, tint = (0.4, 0.39, 0.46), 0.0, (1.0, 1.0, 1.0)
        zenith, horizon = jitter(rng, (44, 54, 92), 8), jitter(rng, (146, 112, 116), 14)
        cloud = (74.0, 70.0, 88.0)
        cover, exposure, visibility = rng.uniform(0.1, 0.8), rng.uniform(1.0, 1.5), rng.uniform(150, 400)
    light = Light(
        sun=sun,
        sun_rgb=tuple(strength * t for t in tint),
        ambient_rgb=ambient,
        haze_rgb=tuple(0.75 * h + 20 for h in horizon),
        visibility=visibility,
        lamps=kind == 'dusk' or (kind == 'overcast' and rng.random() < 0.4),
    )
    return Weather(light, zenith, horizon, cloud, cover, exposure)


def draw_sky(canvas: Canvas, weather: Weather, rng: np.random.Generator) -> None:
    """Fills the canvas above the horizon: a gradient, a layer of cloud in perspective and the glow around a low sun."""
    camera = canvas.camera
    height, width = canvas.pixels.shape[:2]
    rows = min(height, math.ceil(camera.cy))
    # Skies are smooth: every other pixel is enough.
    v = np.arange(0, rows + 1, 2, dtype=np.float32)[:, None]
    u = np.arange(0, width, 2, dtype=np.float32)[None, :]
    up = np.maximum(camera.cy - v, 0) / camera.f
    rise = np.clip(up / 0.5, 0, 1) ** 0.7
    sky = np.array(weather.horizon, np.float32) + (np.array(weather.zenith) - weather.horizon) * rise[..., None]
    sky = np.broadcast_to(sky, (v.size, u.size, 3)).astype(np.float32)

    distance = 1 / (up + 0.09)
    shift = rng.uniform(0, TILE, 2)
    across = (u - camera.cx) / camera.f * distance
    layer = np.zeros((v.size, u.size), np.float32)
    for zoom, weight in ((9.0, 0.75), (31.0, 0.35)):
        map_x = ((across * zoom + shift[0]) % TILE).astype(np.float32)
        map_y = np.broadcast_to((distance * zoom * 2 + shift[1]) % TILE, map_x.shape).astype(np.float32)
        pattern = cv2.remap(textures()['cloud'], map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        layer += weight * (pattern.astype(np.float32) - 128) / 36
    thickness = np.clip((layer + 2.6 * weather.cover - 1.3) * 0.8, 0, 1) * np.clip(up / 0.06, 0.25, 1)
    tone = np.array(weather.cloud) * (1 - 0.14 * np.clip(layer, 0, 1.5))[..., None]
    sky += (tone - sky) * (0.92 * thickness)[..., None]

    x, y, z = canvas.light.sun
    if weather.casts_shadows and z > 0.2:
        apart = np.hypot((u - camera.cx) / camera.f - x / z, up - y / z)
        sky += (np.array((255, 246, 224)) - sky) * (0.75 * np.exp(-((apart / 0.28) ** 2)))[..., None]
    smooth = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), (2 * u.size, 2 * v.size), interpolation=cv2.INTER_LINEAR)
    canvas.pixels[:rows, :, :3] = smooth[:rows, :width]
    canvas.pixels[:rows, :, 3] = SKY
