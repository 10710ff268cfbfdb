"""Tileable surface textures and foliage sprites for the procedural street scenes.

Everything here is drawn from a fixed seed and cached for the life of the process; a scene varies it by colour, scale,
offset and contrast.
"""

from functools import lru_cache

import cv2
import numpy as np

TILE = 256
_SPRITE = 160


def _fractal(rng: np.random.Generator, beta: float) -> np.ndarray:
    """Tileable noise (TILE, TILE) of zero mean and unit deviation whose amplitude falls as 1 / frequency ** beta."""
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(spectrum * frequency**-beta, s=(TILE, TILE))
    return noise / noise.std()


def _bond(rng: np.random.Generator, rows: int, columns: int, joint: int, spread: float, shift: bool) -> np.ndarray:
    """Courses of blocks with dark joints: bricks or cobbles (`shift`: every other course by half), slabs, panels."""
    y, x = np.mgrid[0:TILE, 0:TILE]
    high, wide = TILE // rows, TILE // columns
    row = y // high
    x = (x + (row % 2) * (wide // 2 if shift else 0)) % TILE
    tone = rng.normal(0, spread, (rows, columns))[row, x // wide]
    in_joint = (y % high < joint) | (x % wide < joint)
    return np.where(in_joint, -38.0, tone)


@lru_cache(maxsize=1)
def textures() -> dict[str, np.ndarray]:
    """Multiplicative textures by name, each (TILE, TILE) uint8 in which 128 leaves a colour as it is."""
    rng = np.random.default_rng(20260)
    fine, rough, stain = _fractal(rng, 0.3), _fractal(rng, 0.9), _fractal(rng, 1.7)
    x = np.arange(TILE)
    slat = np.where(x % 32 < 4, -70.0, np.repeat(rng.normal(0, 12, 8), 32))[None, :]
    layers = {
        'asphalt': 12 * fine + 5 * rough,
        'stain': 17 * stain,
        'cloud': 36 * _fractal(rng, 1.45),
        'slabs': _bond(rng, 4, 4, 4, 9, False) + 5 * fine,
        'cobbles': _bond(rng, 16, 8, 4, 15, True) + 6 * fine,
        'brick': _bond(rng, 16, 8, 3, 14, True) + 6 * fine,
        'stone': _bond(rng, 8, 4, 3, 12, True) + 7 * rough,
        'panels': _bond(rng, 2, 2, 3, 7, False) + 7 * stain,
        'plaster': 8 * stain + 4 * fine,
        'grass': 20 * fine + 16 * rough,
        'leaves': 34 * rough + 12 * fine,
        'planks': slat + 6 * fine,
        'mesh': np.where(((x[:, None] + x[None, :]) % 32 < 7) | ((x[:, None] - x[None, :]) % 32 < 7), -50.0, 0.0),
        'bars': np.where((x % 32 < 12)[None, :] | ((x % 128 > 8) & (x % 128 < 24))[:, None], -50.0, 0.0),
        'corrugated': 16 * np.sin(x * 2 * np.pi / 16)[None, :] + 3 * rough,
    }
    return {name: np.clip(128 + layer, 20, 250).astype(np.uint8) for name, layer in layers.items()}


def _crown(rng: np.random.Generator, shape: str) -> tuple[np.ndarray, np.ndarray]:
    """One crown lit from the upper left: shade (128 = plain leaf colour) and mask, each (_SPRITE, _SPRITE) uint8."""
    shade = np.full((_SPRITE, _SPRITE), 60, np.uint8)
    mask = np.zeros((_SPRITE, _SPRITE), np.uint8)
    blobs = []
    for _ in range(110):
        x, y = rng.uniform(-1, 1, 2)
        if shape == 'round':
            inside, radius = x * x + y * y < 0.62, rng.uniform(0.1, 0.24)
        elif shape == 'tall':
            inside, radius = (x * 1.9) ** 2 + y * y < 0.7, rng.uniform(0.08, 0.18)
        elif shape == 'wide':
            inside, radius = x * x + (y * 1.5 - 0.25) ** 2 < 0.6, rng.uniform(0.09, 0.22)
        else:
            inside, radius = abs(x) * 1.9 < (y + 1) * 0.5 and y < 0.85, rng.uniform(0.05, 0.13)
        if inside:
            blobs.append((y - 0.5 * radius + rng.normal(0, 0.25), x, y, radius))
    half = _SPRITE / 2
    for _, x, y, radius in sorted(blobs, reverse=True):
        centre = (round(half + half * 0.98 * x), round(half + half * 0.98 * y))
        base = 100 - 34 * y - 20 * x + rng.normal(0, 10)
        for scale, gain in ((1.0, 0.72), (0.8, 0.95), (0.5, 1.15)):
            at = (round(centre[0] - half * radius * (1 - scale) * 0.5), round(centre[1] - half * radius * (1 - scale)))
            cv2.circle(shade, at, round(half * radius * scale), int(np.clip(base * gain, 25, 220)), -1)
        cv2.circle(mask, centre, round(half * radius), 255, -1)
    noise = _fractal(rng, 0.55)[:_SPRITE, :_SPRITE]
    edge = cv2.GaussianBlur(mask, (0, 0), 3.0).astype(np.float32) / 255 + 0.16 * noise
    leafy = np.clip(shade * (1 + 0.2 * noise), 15, 250).astype(np.uint8)
    return leafy, np.where(edge > 0.55, 255, 0).astype(np.uint8)


@lru_cache(maxsize=1)
def crowns() -> dict[str, list[list[tuple[np.ndarray, np.ndarray]]]]:
    """Foliage sprites by shape; a sprite is its mip levels, (shade, mask) pairs that halve in size."""
    rng = np.random.default_rng(20261)
    bank = {}
    for shape, count in (('round', 6), ('tall', 4), ('wide', 5), ('cone', 4)):
        bank[shape] = []
        for _ in range(count):
            levels = [_crown(rng, shape)]
            while levels[-1][0].shape[0] > 20:
                size = levels[-1][0].shape[0] // 2
                levels.append(
                    tuple(cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in levels[-1])
                )
            bank[shape].append(levels)
    return bank
