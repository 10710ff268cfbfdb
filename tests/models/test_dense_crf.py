import io
import sys

import cv2
import numpy as np
import pytest

from mmseg_ext.models.postprocess import DenseCRF

pytest.importorskip('pydensecrf', reason='the extra crf is not installed')

COLOURS = np.array([[200, 60, 40], [40, 180, 90], [60, 70, 210]])


def make_image(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A noisy picture with a colour for each label."""
    return (COLOURS[labels] + rng.normal(0, 8, (*labels.shape, 3))).clip(0, 255).astype(np.uint8)


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels].transpose(2, 0, 1)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels with sharp edges, their picture, and probabilities that are right but for a blur."""
    labels = np.zeros((60, 80), dtype=int)
    labels[15:40, 20:50] = 1
    labels[:, 65:] = 2
    blurred = np.stack([cv2.GaussianBlur(mask, (0, 0), 4) for mask in one_hot(labels)]) + 0.01
    return labels, make_image(labels, np.random.default_rng(0)), blurred / blurred.sum(0)


def mean_field(crf: DenseCRF, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The same inference with every pair of pixels written out (Krähenbühl and Koltun, algorithm 1)."""
    classes, height, width = probabilities.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    rgb = image.reshape(-1, 3).astype(float)
    near = np.subtract.outer(y, y) ** 2 + np.subtract.outer(x, x) ** 2
    alike = ((rgb[:, None] - rgb) ** 2).sum(2)
    kernels = [
        (crf.gaussian_weight, np.exp(-near / (2 * crf.gaussian_xy**2))),
        (crf.bilateral_weight, np.exp(-near / (2 * crf.bilateral_xy**2) - alike / (2 * crf.bilateral_rgb**2))),
    ]
    start = q = probabilities.reshape(classes, -1)
    for _ in range(crf.iterations):
        energy = np.log(start)
        for weight, kernel in kernels:
            norm = kernel.sum(0) ** -0.5
            energy = energy + weight * norm * ((q * norm) @ kernel)
        q = np.exp(energy - energy.max(0))
        q /= q.sum(0)
    return q.reshape(classes, height, width)


@pytest.mark.parametrize(
    'parameters',
    [
        dict(),
        dict(iterations=1, bilateral_weight=1, gaussian_weight=1),
        dict(iterations=2, bilateral_weight=2, bilateral_xy=5, bilateral_rgb=30, gaussian_weight=0.5, gaussian_xy=1),
    ],
    ids=str,
)
def test_the_result_is_that_of_the_exact_mean_field(parameters):
    rng = np.random.default_rng(1)
    labels = np.zeros((14, 18), dtype=int)
    labels[3:9, 4:12] = 1
    labels[:, 14:] = 2
    image = make_image(labels, rng)
    probabilities = 0.6 * rng.random((3, 14, 18)) + 0.5 * one_hot(labels)
    probabilities /= probabilities.sum(0)
    crf = DenseCRF(**parameters)
    difference = np.abs(crf(image, probabilities) - mean_field(crf, image, probabilities))
    # The library approximates the sums over all pixels on a lattice.
    assert difference.max() < 0.05
    assert difference.mean() < 0.005


def test_a_blurred_boundary_becomes_sharp_and_right(scene):
    labels, image, blurred = scene
    refined = DenseCRF()(image, blurred)
    assert refined.shape == blurred.shape
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert (blurred.argmax(0) != labels).sum() > 10  # the corners
    assert (refined.argmax(0) != labels).sum() == 0
    unsure = [(probabilities.max(0) < 0.9).mean() for probabilities in (blurred, refined)]
    assert unsure[0] > 0.2
    assert unsure[1] < 0.01


def test_several_images_are_refined_in_order_and_few_are_held(scene):
    _, image, blurred = scene
    pulled = []

    def pairs():
        for i in range(6):
            pulled.append(i)
            yield image, np.roll(blurred, i, axis=2)

    crf = DenseCRF(iterations=2)
    for i, refined in enumerate(crf.refine_all(pairs(), workers=2)):
        assert len(pulled) <= i + 3
        np.testing.assert_array_equal(refined, crf(image, np.roll(blurred, i, axis=2)))
    assert i == 5


@pytest.mark.parametrize('terminal', [True, False])
def test_a_terminal_shows_how_far_it_is(scene, monkeypatch, terminal):
    class Output(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setattr(sys, 'stderr', Output())
    list(DenseCRF(iterations=1).refine_all([scene[1:]] * 2, workers=1, total=2))
    assert ('2/2' in sys.stderr.getvalue()) == terminal


def test_a_mistake_in_a_process_reaches_the_caller(scene):
    _, image, blurred = scene
    with pytest.raises(TypeError, match='image is of type float64; it must be uint8'):
        list(DenseCRF().refine_all([(image / 255, blurred)], workers=2))


def test_logits_and_wrong_shapes_are_refused(scene):
    _, image, blurred = scene
    crf = DenseCRF()
    with pytest.raises(ValueError, match=r'must be in \[0, 1\]: apply a softmax to logits'):
        crf(image, np.log(blurred))
    with pytest.raises(ValueError, match=r'image \(60, 80, 3\) and probabilities \(3, 80, 60\) must be'):
        crf(image, blurred.transpose(0, 2, 1))
    with pytest.raises(ValueError, match='C at least 2'):
        crf(image, blurred[:1])


def test_a_parameter_that_is_not_positive_is_refused_by_name():
    with pytest.raises(ValueError, match='bilateral_rgb=0 must be positive'):
        DenseCRF(bilateral_rgb=0)


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pydensecrf', None)
    monkeypatch.delitem(sys.modules, 'pydensecrf.densecrf', raising=False)
    with pytest.raises(ImportError, match=r'DenseCRF needs pydensecrf2 .*pip install pydensecrf2'):
        DenseCRF()
