"""The fully connected CRF of DeepLabV1 (arXiv:1412.7062, section 4.2) and DeepLabV2 (arXiv:1606.00915, section 3.3).

Every pixel is joined with every other one by two Gaussian kernels: one over position and colour, which moves the edges
of a prediction to those of the image, and one over position, which removes specks. The model and its inference are
Krähenbühl and Koltun's (arXiv:1210.5644), computed by pydensecrf2.
"""

import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from mmengine.utils import ProgressBar

# A smaller probability counts as this: its logarithm has to stay finite.
_LEAST = 1e-5


@dataclass(frozen=True)
class DenseCRF:
    """Refines class probabilities by the edges of their image.

    Both papers have 10 iterations, w2 = 3 and sigma_gamma = 3, and search the other three on 100 images of the
    validation set: w1 in 5..10, sigma_alpha in 50..100, sigma_beta in 3..10 (DeepLabV1, section 5), w1 in 3..6,
    sigma_alpha in 30..100, sigma_beta in 3..6 (DeepLabV2, section 4). The defaults are those of the authors' script for
    DeepLabV1 on PASCAL VOC 2012; for DeepLabV2 with ResNet-101, ``bilateral_xy=67, bilateral_rgb=3, gaussian_xy=1`` are
    in use.

    Args:
        iterations: of the mean field.
        bilateral_weight: weight of the kernel over position and colour, w1.
        bilateral_xy: its standard deviation in pixels, sigma_alpha.
        bilateral_rgb: its standard deviation in colour values (0 to 255), sigma_beta.
        gaussian_weight: weight of the kernel over position, w2.
        gaussian_xy: its standard deviation in pixels, sigma_gamma.

    Raises:
        ImportError: pydensecrf2 is not installed.
        ValueError: a parameter is not positive.
    """

    iterations: int = 10
    bilateral_weight: float = 4
    bilateral_xy: float = 49
    bilateral_rgb: float = 5
    gaussian_weight: float = 3
    gaussian_xy: float = 3

    def __post_init__(self):
        try:
            import pydensecrf.densecrf  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f'DenseCRF needs pydensecrf2 ({error}): pip install pydensecrf2, on Python 3.12 or older'
            ) from error
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f'{name}={value} must be positive')

    def __call__(self, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Refine one image.

        Args:
            image: ``(H, W, 3)`` uint8, RGB.
            probabilities: ``(C, H, W)``, after softmax; C is 2 at least.

        Returns:
            The refined probabilities, ``(C, H, W)`` float32; ``argmax(0)`` gives the labels.

        Raises:
            TypeError: the image is not uint8.
            ValueError: the shapes don't fit, or the probabilities are none.
        """
        from pydensecrf.densecrf import DenseCRF2D

        _check(image, probabilities)
        classes, height, width = probabilities.shape
        crf = DenseCRF2D(width, height, classes)
        energy = -np.log(np.clip(probabilities, _LEAST, 1)).reshape(classes, -1)  # (C, H * W)
        crf.setUnaryEnergy(np.ascontiguousarray(energy, dtype=np.float32))
        crf.addPairwiseGaussian(sxy=self.gaussian_xy, compat=self.gaussian_weight)
        crf.addPairwiseBilateral(
            sxy=self.bilateral_xy,
            srgb=self.bilateral_rgb,
            rgbim=np.ascontiguousarray(image),
            compat=self.bilateral_weight,
        )
        return np.array(crf.inference(self.iterations)).reshape(classes, height, width)

    def refine_all(
        self, pairs: Iterable[tuple[np.ndarray, np.ndarray]], workers: int, total: int = 0
    ) -> Iterator[np.ndarray]:
        """Refine several images at a time, in processes, because the library holds the interpreter's lock.

        Args:
            pairs: the image and the probabilities of each; at most ``workers + 1`` of them are in memory.
            workers: number of processes; 1: one image after the other in this process.
            total: number of pairs for the progress bar, which a terminal shows; 0: none.

        Returns:
            The refined probabilities of each pair, in order, when they are ready.
        """
        bar = ProgressBar(total, file=sys.stderr) if total and sys.stderr.isatty() else None
        for refined in itertools.starmap(self, pairs) if workers == 1 else self._in_processes(pairs, workers):
            if bar is not None:
                bar.update()
            yield refined

    def _in_processes(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]], workers: int) -> Iterator[np.ndarray]:
        pending = deque()
        with ProcessPoolExecutor(workers) as pool:
            for image, probabilities in pairs:
                pending.append(pool.submit(self, image, probabilities))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


def _check(image: np.ndarray, probabilities: np.ndarray) -> None:
    if image.dtype != np.uint8:
        raise TypeError(f'image is of type {image.dtype}; it must be uint8, RGB in 0..255, without normalisation')
    if probabilities.ndim != 3 or len(probabilities) < 2 or image.shape != (*probabilities.shape[1:], 3):
        raise ValueError(
            f'image {image.shape} and probabilities {probabilities.shape} must be (H, W, 3) and (C, H, W), C at least 2'
        )
    if not (probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-3):
        raise ValueError(
            f'probabilities reach from {probabilities.min():.3g} to {probabilities.max():.3g}; they must be in [0, 1]: '
            'apply a softmax to logits'
        )
