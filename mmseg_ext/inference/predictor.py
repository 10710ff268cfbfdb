"""A trained segmentor, from its config and checkpoint, that predicts images and videos."""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from mmseg_ext.checkpoints import build_model, load_checkpoint, load_weights, tensors_of
from mmseg_ext.datasets.config_check import leaf_configs
from mmseg_ext.engine.fast_form import fast_form, unwrapped
from mmseg_ext.engine.switches import set_output_stride, use_crf, use_tta

from .reading import Item, Reader
from .sources import Source, find_sources


class Prediction(NamedTuple):
    """What was predicted of an image, or of frame number ``frame`` of a video (else None).

    ``image`` is ``(H, W, 3)`` uint8, RGB, as the network's pipeline loaded it, EXIF rotation applied. ``labels`` are
    class indices ``(H, W)`` of the same size, uint8, or uint16 above 256 classes.
    """

    source: Source
    frame: int | None
    image: np.ndarray
    labels: np.ndarray


class Predictor:
    """A trained segmentor.

    Args:
        cfg: its config; the test data set's pipeline is what images go through.
        checkpoint: the file with the weights, or an address that :func:`mmseg_ext.checkpoints.load_checkpoint` knows.
        device: where to run; None: a GPU where there is one.
        tta: average over the config's test-time augmentations.
        crf: refine the predictions by the dense CRF.
        output_stride: change the network's to this one, atrous rates with it.
        keep_rates: leave the atrous rates as they are all the same.
        form: arguments of :func:`mmseg_ext.engine.fast_form.fast_form`; None: the plain form.
        allow_missing, allow_unexpected: prefixes of keys that may miss in the checkpoint or in the network, see
            :func:`mmseg_ext.checkpoints.coverage.load_weights`.

    Attributes:
        classes, palette: names and colours (RGB in 0..255): the checkpoint's, else those of the config's test data set,
            else numbers and random colours.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the checkpoint doesn't fit the network, as with another class count; the device is not there;
            ``tta``, ``crf``, ``output_stride`` or ``form`` can't be had.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str | os.PathLike,
        *,
        device: str | None = None,
        tta: bool = False,
        crf: bool = False,
        output_stride: int | None = None,
        keep_rates: bool = False,
        form: dict[str, Any] | None = None,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
    ):
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        if device.startswith('cuda') and not torch.cuda.is_available():
            raise ValueError(f"device={device!r}: torch finds no GPU here; use 'cpu'")
        cfg = copy.deepcopy(cfg)
        _, dataset = next(leaf_configs(cfg.test_dataloader.dataset, 'test_dataloader.dataset'))
        content = load_checkpoint(checkpoint)
        weights = tensors_of(content, f'checkpoint {checkpoint}')
        # They take part in training alone.
        cfg.model.pop('auxiliary_head', None)
        weights = {key: value for key, value in weights.items() if not key.startswith('auxiliary_head.')}
        scope = cfg.get('default_scope') or 'mmseg'
        with DefaultScope.overwrite_default_scope(scope):
            if crf:
                use_crf(cfg)
            if tta:
                use_tta(cfg)
            self._reader = Reader(cfg.tta_pipeline if tta else dataset.pipeline)
            with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
                metainfo = registry.get(dataset.type)._load_metainfo(dataset.get('metainfo'))
        self.model = build_model(cfg.model, scope).to(device).eval()
        segmentor = unwrapped(self.model)
        load_weights(
            segmentor, weights, str(checkpoint), allow_missing=allow_missing, allow_unexpected=allow_unexpected
        )
        if output_stride is not None:
            set_output_stride(segmentor, output_stride, keep_rates)
        fast_form(segmentor, **(form or {}))
        meta = content.get('meta')
        meta = meta if isinstance(meta, dict) else {}
        known = [meta.get('dataset_meta'), dict(classes=meta.get('CLASSES'), palette=meta.get('PALETTE')), metainfo]
        self.classes, self.palette = _classes_and_palette(known, segmentor.num_classes)

    def predict(
        self,
        inputs: str | os.PathLike | Sequence[str | os.PathLike],
        batch_size: int = 1,
        workers: int = 2,
        failed: dict[str, str] | None = None,
    ) -> Iterator[Prediction]:
        """Predict images and videos, in order, while the next ones are read.

        Args:
            inputs: image files, videos, folders and globs, see :func:`.sources.find_sources`.
            batch_size: how many images or frames of one size in a row go through the network together.
            workers: number of threads that read.
            failed: takes the inputs that can't be read, with the reason. None: the first one is raised.

        Raises:
            FileNotFoundError: an input does not exist, or holds no images.
            UnreadableError: an image or video can't be read.
        """
        sources, missing = find_sources(inputs)
        if failed is not None:
            failed.update(missing)
        elif missing:
            raise FileNotFoundError('; '.join(f'{path}: {reason}' for path, reason in missing.items()))
        return self.predict_sources(sources, batch_size, workers, failed)

    def predict_sources(
        self, sources: Sequence[Source], batch_size: int, workers: int, failed: dict[str, str] | None
    ) -> Iterator[Prediction]:
        """Predict what :func:`.sources.find_sources` found; as :meth:`predict`."""
        for name, value in (('batch_size', batch_size), ('workers', workers)):
            if value < 1:
                raise ValueError(f'{name}={value} must be at least 1')
        items = self._reader.read(sources, workers, batch_size + workers, failed)
        for batch in _batches(items, batch_size):
            with torch.no_grad():
                samples = self.model.test_step(pseudo_collate([item.data for item in batch]))
            for item, sample in zip(batch, samples, strict=True):
                labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
                labels = labels.astype(np.uint8 if len(self.classes) <= 256 else np.uint16)
                yield Prediction(item.source, item.frame, item.image, labels)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Group neighbours that are of one size when they enter the network."""
    batch = []
    for item in items:
        if batch and (len(batch) == size or _shapes(item) != _shapes(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _shapes(item: Item) -> list[torch.Size]:
    inputs = item.data['inputs']
    return [x.shape for x in (inputs if isinstance(inputs, list) else [inputs])]  # augmentations come as a list


def _classes_and_palette(known: Sequence[dict | None], num_classes: int) -> tuple[list[str], list[list[int]]]:
    """Return those of the first entry that has a name for each class."""
    fitting = (info for info in known if info and len(info.get('classes') or ()) == num_classes)
    info = next(fitting, dict(classes=[f'class {i}' for i in range(num_classes)]))
    palette = info.get('palette')
    if palette is None or len(palette) != num_classes:
        # The colours that mmseg takes for a data set without a palette.
        palette = np.random.RandomState(42).randint(0, 255, size=(num_classes, 3)).tolist()
    return list(info['classes']), [list(colour) for colour in palette]
