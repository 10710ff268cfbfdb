"""The dense CRF (``postprocess/dense_crf.py``) behind the network, as ``test_cfg.crf`` of the segmentor.

It needs probabilities of full size, which are made for one image at a time, and the image. That is the network's input
with the preprocessing undone, which is exact where the pipeline left the size as it was. Resized there and back, it has
blurred edges, so that the file is read again where there is one.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

import mmcv
import numpy as np
import torch
from mmengine.fileio import get
from torch import Tensor, nn

from mmseg_ext.layers import Resampling
from mmseg_ext.models.postprocess import DenseCRF

from .covered import resizes_its_logits
from .image_logits import ImageLogits, add_probabilities, resampled, to_original


def build_crf(parameters: Mapping, head: nn.Module) -> DenseCRF:
    """Build the CRF that ``test_cfg.crf`` describes for the predictions of a head.

    Raises:
        ImportError: pydensecrf2 is not installed.
        TypeError: ``test_cfg.crf`` is no dict, or a parameter no number.
        ValueError: a parameter is unknown or not positive, or the head has no probabilities of several classes.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(f'test_cfg.crf={parameters!r} must be a dict of parameters; dict() has the defaults')
    known = [field.name for field in fields(DenseCRF)]
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise ValueError(f'test_cfg.crf has no parameter {", ".join(map(repr, unknown))}; it takes {", ".join(known)}')
    if not resizes_its_logits(head):
        raise ValueError(f'test_cfg.crf: {type(head).__name__} does not predict by a softmax of logits; leave crf out')
    if head.out_channels == 1:
        raise ValueError('test_cfg.crf needs the probability of every class; give the head out_channels=2, not 1')
    try:
        return DenseCRF(**parameters)
    except (ImportError, TypeError, ValueError) as error:
        raise type(error)(f'test_cfg.crf: {error}') from error


def original_image(segmentor, x: Tensor, meta: dict) -> np.ndarray:
    """Return an image as it was before the preprocessing: normalisation, padding, flip and resizing.

    Its channels are in the order of the file or of the network's input: the CRF adds up their squared differences.

    Args:
        segmentor: with the data preprocessor that made the input.
        x: the network's input, ``(C, h, w)``.
        meta: what is known of the image.

    Returns:
        ``(H, W, C)``, uint8.
    """
    resized = tuple(meta['img_shape'][:2]) != tuple(meta['ori_shape'][:2])
    if resized and meta.get('img_path') is not None:
        return mmcv.imfrombytes(get(meta['img_path']), channel_order='rgb')
    preprocessor = segmentor.data_preprocessor
    if hasattr(preprocessor, 'mean'):  # it normalises
        x = x * preprocessor.std + preprocessor.mean
    # Pipelines resize images without aligned corners, whatever the head does.
    chain = to_original(Resampling(x.shape[1:]), meta, align_corners=False)
    image = np.empty((*chain.out_size, len(x)), dtype=np.uint8)
    for (_, rows, columns), tile in resampled(x[None], chain).tiles:
        image[rows, columns] = tile.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return image


def refine(
    crf: DenseCRF, images: Iterable[np.ndarray], logits: Iterable[ImageLogits], count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Refine the images of a batch in parallel, in as many processes as there are images and cores.

    Args:
        crf: refines one image.
        images: ``(H, W, 3)`` uint8, each of its own size.
        logits: of each, with several channels.
        count: number of images.

    Returns:
        For each image labels, uint8 or, above 256 classes, int16, and their probability in float32, ``(1, H, W)`` on
        the device of the logits.
    """
    devices = deque()

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for image, one in zip(images, logits, strict=True):
            probabilities = add_probabilities(one)
            devices.append(probabilities.device)
            yield image, probabilities.detach().cpu().numpy()

    for refined in crf.refine_all(pairs(), workers=min(count, os.cpu_count())):
        best, labels = torch.from_numpy(refined).to(devices.popleft()).max(dim=0, keepdim=True)
        yield labels.to(torch.uint8 if len(refined) <= 256 else torch.int16), best
