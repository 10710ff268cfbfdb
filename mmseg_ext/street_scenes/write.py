"""Procedurally drawn street scenes in the layout of Cityscapes, for trying a training set-up without a download.

A scene is a street in perspective with all 19 Cityscapes classes, weather and sensor noise. Colours overlap between
classes and change from scene to scene, so that colour alone does not tell the classes apart.
"""

import json
import multiprocessing
import os
import sys
from pathlib import Path

import cv2
import numpy as np

from .drawing import CLASSES
from .layout import Composer

MIN_SIZE = (64, 128)
_VERSION = 1
_OVERSAMPLING = 2
_SPLITS = ('train', 'val')
_CITIES = {'train': 'drawnstadt', 'val': 'malheim'}
_KINDS = ('leftImg8bit', 'gtFine')
_MANIFEST = 'street_scenes.json'


def render_scene(
    rng: np.random.Generator, height: int, width: int, required: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one street scene.

    Args:
        rng: The only source of randomness.
        height: Height of the picture in pixels, at least 64.
        width: Width of the picture in pixels, at least 128.
        required: A trainId (0..18) of which the scene shall hold a visible amount; scenes are redrawn until one does.

    Returns:
        The image, (H, W, 3) uint8 RGB, and the label, (H, W) uint8 of trainIds 0..18 with 255 for ignored pixels.

    Raises:
        ValueError: The size is too small, or `required` is no trainId.
    """
    _check_size(height, width)
    if required is not None and not 0 <= required < len(CLASSES):
        raise ValueError(f'required must be a trainId in 0..{len(CLASSES) - 1} or None, got {required!r}')
    for _ in range(32):
        composer = Composer(rng, height * _OVERSAMPLING, width * _OVERSAMPLING, required)
        composer.compose()
        pixels = composer.canvas.pixels
        centre = slice(_OVERSAMPLING // 2, None, _OVERSAMPLING)
        label = np.ascontiguousarray(pixels[centre, centre, 3])
        if required is None or np.count_nonzero(label == required) >= height * width / 1500:
            break
    picture = cv2.resize(np.ascontiguousarray(pixels[..., :3]), (width, height), interpolation=cv2.INTER_AREA)
    image = _expose(rng, picture, composer.weather.exposure)
    if rng.random() < 0.3:
        # Traffic that keeps to the left.
        image, label = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(label[:, ::-1])
    return image, label


def write_street_scenes(
    out: str | Path, num_train: int, num_val: int, size: tuple[int, int], seed: int = 0, workers: int | None = None
) -> None:
    """Writes a data set of street scenes in the layout of Cityscapes, with trainIds as labels.

    Image i of a split depends only on `seed`, the split, i and `size`: not on how many there are or who draws them. Any
    19 consecutive images of a split hold all 19 classes. A folder that already holds this data set is left as it is.
    The processes are spawned: a script must call this under `if __name__ == '__main__':`.

    Args:
        out: Folder to write to; `leftImg8bit`, `gtFine` and `street_scenes.json` are made in it.
        num_train: Number of training images, not negative.
        num_val: Number of validation images, not negative.
        size: (height, width) in pixels, at least (64, 128).
        seed: Not negative.
        workers: Number of processes; None for one per core.

    Raises:
        ValueError: An argument is out of range.
        FileExistsError: `out` is a file, or holds something else than this data set.
    """
    height, width = size
    _check_size(height, width)
    for name, value, least in (('num_train', num_train, 0), ('num_val', num_val, 0), ('seed', seed, 0)):
        if value < least:
            raise ValueError(f'{name} must not be negative, got {value}')
    if workers is not None and workers < 1:
        raise ValueError(f'workers must be at least 1, or None for one per core, got {workers}')
    out = Path(out)
    wanted = {
        'version': _VERSION, 'num_train': num_train, 'num_val': num_val, 'size': [height, width], 'seed': seed,
    }  # fmt: skip
    if _is_complete(out, wanted):
        return
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f'{_MANIFEST}.draft'
    _write_atomically(draft, (json.dumps(wanted, indent=2) + '\n').encode())

    jobs = []
    for split, count in zip(_SPLITS, (num_train, num_val), strict=True):
        for kind in _KINDS:
            (out / kind / split / _CITIES[split]).mkdir(parents=True, exist_ok=True)
        jobs += [(str(out), split, index, height, width, seed) for index in range(count)]
    workers = min(workers or os.cpu_count() or 1, max(1, len(jobs)))
    if workers == 1:
        _report(map(_write_scene, jobs), len(jobs))
    else:
        with multiprocessing.get_context('spawn').Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            _report(pool.imap_unordered(_write_scene, jobs, chunksize=4), len(jobs))
    draft.replace(out / _MANIFEST)


def _check_size(height: int, width: int) -> None:
    if height < MIN_SIZE[0] or width < MIN_SIZE[1]:
        raise ValueError(
            f'size must be at least {MIN_SIZE[0]}x{MIN_SIZE[1]} (height x width), got {height}x{width}; '
            'smaller pictures cannot show the small classes'
        )


def _is_complete(out: Path, wanted: dict) -> bool:
    """Whether `out` holds the wanted data set; raises if it holds anything but this one, finished or not."""
    remedy = 'choose another folder or delete it'
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'out must be a folder, but {str(out)!r} is a file; {remedy}')
    for name in (_MANIFEST, f'{_MANIFEST}.draft'):
        if (out / name).exists():
            found = json.loads((out / name).read_text())
            if found != wanted:
                raise FileExistsError(f'{str(out)!r} holds street scenes of {found}, not of {wanted}; {remedy}')
            return name == _MANIFEST
    for kind in _KINDS:
        if (out / kind).exists():
            raise FileExistsError(f'{str(out)!r} holds a {kind!r} that is not of street scenes; {remedy}')
    return False


def _write_scene(job: tuple[str, str, int, int, int, int]) -> None:
    out, split, index, height, width, seed = job
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    image, label = render_scene(rng, height, width, required=index % len(CLASSES))
    city = _CITIES[split]
    stem = f'{city}_{index:06d}_000000'
    _write_png(Path(out, 'leftImg8bit', split, city, f'{stem}_leftImg8bit.png'), image[..., ::-1])
    _write_png(Path(out, 'gtFine', split, city, f'{stem}_gtFine_labelTrainIds.png'), label)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    encoded = cv2.imencode('.png', np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1]
    _write_atomically(path, encoded.tobytes())


def _write_atomically(path: Path, content: bytes) -> None:
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    draft.write_bytes(content)
    draft.replace(path)


def _report(done, total: int) -> None:
    """Runs through the iterator with a progress line where there is a terminal to show it."""
    for count, _ in enumerate(done, 1):
        if sys.stderr.isatty():
            print(f'\rstreet scenes: {count}/{total}', end='' if count < total else '\n', file=sys.stderr, flush=True)


def _expose(rng: np.random.Generator, picture: np.ndarray, exposure: float) -> np.ndarray:
    """What the camera makes of a clean picture (H, W, 3) uint8: focus, exposure, colour cast, vignette and noise."""
    height, width = picture.shape[:2]
    blur = rng.uniform(0.2, 0.75) * max(1.0, height / 512)
    sharp = cv2.GaussianBlur(picture, (0, 0), blur)
    # The camera meters, though not so far that dusk looks like day.
    metered = (112 / max(20.0, float(sharp.mean()))) ** 0.6
    gain = exposure * metered * rng.normal(1, 0.05, 3)
    level = np.arange(256, dtype=np.float32)[:, None] / 255 * gain
    tone = np.clip(level, 0, None) ** rng.uniform(0.82, 1.15)
    contrast = rng.uniform(0.85, 1.15)
    curve = ((tone - 0.45) * contrast + 0.45 + rng.normal(0, 0.015)) * 255
    light = cv2.LUT(sharp, curve.astype(np.float32)[:, None])
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    light *= (1 - rng.uniform(0, 0.2) * (x * x + y * y) / 2).astype(np.float32)[..., None]
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    # Read noise, and shot noise that grows with the root of the light.
    noise *= np.float32(rng.uniform(1.0, 5.0)) * (0.6 + np.sqrt(np.clip(light, 0, 255) / 255))
    return np.clip(np.rint(light + noise), 0, 255).astype(np.uint8)
