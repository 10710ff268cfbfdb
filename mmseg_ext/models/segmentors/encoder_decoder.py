"""The segmentor: backbone, neck and heads. A drop-in for ``mmseg.EncoderDecoder``: its arguments, keys and results.

Ours never holds full-size logits (``streaming.py``), can change its output stride when it is trained, and tells heads
the channels that their configs leave out.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial

from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder as _EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_ext.layers import Resampling, streamed_labels
from mmseg_ext.layers.live_modules import all_or_nothing
from mmseg_ext.layers.resampling import compute_dtype
from mmseg_ext.layers.streamed_labels import LabelMap
from mmseg_ext.models.backbones.base import Backbone
from mmseg_ext.models.decode_heads import AtrousHead
from mmseg_ext.models.decode_heads.rates import has_rates, rate_factors, scale_rates
from mmseg_ext.registry import MODELS

from .crf import build_crf, full_probabilities, original_image, refine
from .features import feature_strides, with_channels
from .slide import slide_maps
from .streaming import input_size, streamed_loss, streams_loss, streams_prediction, to_original


@MODELS.register_module()
class EncoderDecoder(_EncoderDecoder):
    """Segmentor of a backbone and one decode head, with auxiliary heads for training.

    ``predict`` returns samples with ``pred_sem_seg``: labels ``(1, H, W)``, uint8 or, above 256 classes, int16. In
    ``test_cfg``, beside mmseg's entries:

    - ``keep_logits=True``: also ``seg_logits``, the full-size logits, by mmseg's own code.
    - ``probability=True``: also ``pred_probability``, that of the label, ``(1, H, W)`` in float32.
    - ``batch``: in ``mode='slide'``, how many windows go through the network at once (1).
    - ``crf``: parameters of ``postprocess.DenseCRF``, ``dict()`` for its defaults: labels and their probability are
      those that it refines, ``seg_logits`` stays the network's. Images of a batch are refined in parallel.

    Heads that predict or compute their loss in another way than mmseg's base class are run as mmseg runs them.

    Args:
        kwargs: arguments of mmseg's ``EncoderDecoder``. A head's config may leave out its channels.

    Raises:
        ImportError: ``test_cfg.crf`` is there and pydensecrf2 is not.
        TypeError: ``test_cfg.crf`` is no dict.
        ValueError: ``test_cfg`` has another mode than 'whole' and 'slide', or no size of the windows; or the CRF can't
            have these parameters or refine this head's predictions.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.crf = None
        if self.test_cfg is not None:
            _check_test_cfg(self.test_cfg)
            if self.test_cfg.get('crf') is not None:
                self.crf = build_crf(self.test_cfg.crf, self.decode_head)
        # Behind a neck, or another's backbone, strides are found when they are needed.
        if not self.with_neck and isinstance(self.backbone, Backbone):
            with suppress(ValueError):  # They differ between the axes.
                for head in self._heads():
                    if isinstance(head, AtrousHead):
                        head.output_stride = _stride_seen(head, self.backbone.feature_strides)

    def _init_decode_head(self, decode_head: dict) -> None:
        super()._init_decode_head(self._with_channels(decode_head))

    def _init_auxiliary_head(self, auxiliary_head: dict | list[dict] | None) -> None:
        if isinstance(auxiliary_head, list):
            auxiliary_head = [self._with_channels(cfg) for cfg in auxiliary_head]
        elif auxiliary_head is not None:
            auxiliary_head = self._with_channels(auxiliary_head)
        super()._init_auxiliary_head(auxiliary_head)

    def _with_channels(self, cfg: dict) -> dict:
        return with_channels(cfg, self.backbone, self.neck if self.with_neck else None)

    def _heads(self) -> list[nn.Module]:
        return [self.decode_head, *(self._auxiliary_heads() if self.with_auxiliary_head else [])]

    def _auxiliary_heads(self) -> list[nn.Module]:
        heads = self.auxiliary_head
        return list(heads) if isinstance(heads, nn.ModuleList) else [heads]

    def set_output_stride(self, output_stride: int) -> None:
        """Change the output stride of the backbone, and the rates of all heads and the neck with it; weights stay.

        A rate is scaled as the features change that its head takes (``rates.py``), be the head ours or not.

        Raises:
            ValueError: the backbone can't have it, or a rate can't follow; the message says why. Whatever is raised,
                nothing has been changed then.
        """
        if not hasattr(self.backbone, 'set_output_stride'):
            raise ValueError(
                f'output_stride={output_stride}: {type(self.backbone).__name__} cannot change it; use a backbone of '
                'mmseg_ext, or mmseg_ext.layers.rewrite_dilation on it and set_output_stride on the heads'
            )
        with all_or_nothing([self]):
            before = self._strides_given()
            self.backbone.set_output_stride(output_stride)
            after = self._strides_given()
            for module, strides in before.items():
                if isinstance(module, AtrousHead):
                    module.output_stride = _stride_seen(module, strides)
                    module.set_output_stride(_stride_seen(module, after[module]))
                else:
                    scale_rates(module, rate_factors(module, strides, after[module]))

    def _strides_given(self) -> dict[nn.Module, list]:
        """Return the strides of the features that the neck and each head are given, if these depend on them."""
        neck = self.neck if self.with_neck else None
        given = {}
        if neck is not None and has_rates(neck):
            given[neck] = feature_strides(self.backbone)
        heads = [head for head in self._heads() if has_rates(head) or getattr(head, 'output_stride', None) is not None]
        if heads:
            given |= dict.fromkeys(heads, feature_strides(self.backbone, neck))
        return given

    def _decode_head_forward_train(self, inputs: list[Tensor], data_samples: list) -> dict[str, Tensor]:
        return add_prefix(self._head_loss(self.decode_head, inputs, data_samples), 'decode')

    def _auxiliary_head_forward_train(self, inputs: list[Tensor], data_samples: list) -> dict[str, Tensor]:
        losses = {}
        several = isinstance(self.auxiliary_head, nn.ModuleList)
        for i, head in enumerate(self._auxiliary_heads()):
            losses.update(add_prefix(self._head_loss(head, inputs, data_samples), f'aux_{i}' if several else 'aux'))
        return losses

    def _head_loss(self, head: nn.Module, inputs: list[Tensor], data_samples: list) -> dict[str, Tensor]:
        if streams_loss(head):
            return streamed_loss(head, head(inputs), data_samples)
        return head.loss(inputs, data_samples, self.train_cfg)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predict the labels of preprocessed images.

        Args:
            inputs: ``(B, C, H, W)``.
            data_samples: what is known of each image (padding, flip, original size); None: labels of ``H x W``.

        Returns:
            The samples, with the predictions; see the class.
        """
        if data_samples is None:
            size = inputs.shape[2:]
            data_samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size)) for _ in inputs]
        metas = [sample.metainfo for sample in data_samples]
        if self.test_cfg.get('keep_logits') or not streams_prediction(self.decode_head):
            super().predict(inputs, data_samples)
            if self.crf is None:
                return data_samples
            results = self._refined(inputs, metas, (sample.seg_logits.data.softmax(0) for sample in data_samples))
        elif self.crf is not None:
            results = self._refined(inputs, metas, full_probabilities(self, inputs, metas))
        else:
            results = self._streamed(inputs, metas)
        for sample, (labels, probability) in zip(data_samples, results, strict=True):
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
            if self.test_cfg.get('probability'):
                sample.set_data(dict(pred_probability=PixelData(data=probability)))
        return data_samples

    def _refined(self, inputs: Tensor, metas: list[dict], probabilities: Iterable[Tensor]) -> Iterator[tuple]:
        images = (original_image(self, x, meta) for x, meta in zip(inputs, metas, strict=True))
        for labels, probability in refine(self.crf, images, probabilities, len(inputs)):
            yield labels.to(inputs.device), probability.to(inputs.device)

    def _streamed(self, inputs: Tensor, metas: list[dict]) -> list[tuple]:
        options = dict(
            threshold=getattr(self.decode_head, 'threshold', None) or 0.0,
            probability=self.test_cfg.get('probability', False),
        )
        if self.test_cfg.get('mode', 'whole') == 'slide':
            maps = slide_maps(self, inputs, metas, partial(LabelMap, **options))
            return [(one.labels, one.probabilities) for one in maps]
        logits, resamplings = self.low_resolution(inputs, metas)
        return [streamed_labels(logit[None], r, **options) for logit, r in zip(logits, resamplings, strict=True)]

    def logits(self, inputs: Tensor) -> Tensor:
        """Map preprocessed images ``(B, 3, H, W)`` to the head's logits ``(B, C, h, w)``."""
        return self.decode_head(self.extract_feat(inputs))

    def low_resolution(self, inputs: Tensor, metas: list[dict]) -> tuple[Tensor, list[Resampling]]:
        """Return the head's logits ``(B, C, h, w)``, and the way of each image's to its original size."""
        logits = self.logits(inputs)
        align_corners = self.align_corners
        resampling = Resampling(logits.shape[2:], compute_dtype(logits)).resize(input_size(metas[0]), align_corners)
        return logits, [to_original(resampling, meta, align_corners) for meta in metas]


def _stride_seen(head: AtrousHead, strides: list) -> int | None:
    index = head.in_index[0] if isinstance(head.in_index, (list, tuple)) else head.in_index
    # mmseg builds a head with an index that the backbone lacks, and fails when it runs.
    return strides[index] if -len(strides) <= index < len(strides) else None


def _check_test_cfg(cfg: dict) -> None:
    mode = cfg.get('mode', 'whole')
    if mode not in ('whole', 'slide'):
        raise ValueError(f"test_cfg.mode={mode!r} must be 'whole' or 'slide'")
    missing = [name for name in ('crop_size', 'stride') if mode == 'slide' and name not in cfg]
    if missing:
        raise ValueError(f"test_cfg.mode='slide' needs {' and '.join(missing)} of the windows: two numbers each")
    batch = cfg.get('batch', 1)
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f'test_cfg.batch={batch!r} must be a positive number of windows')
