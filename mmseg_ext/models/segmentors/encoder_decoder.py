"""The segmentor: backbone, neck and heads. A drop-in for ``mmseg.EncoderDecoder``: its arguments, keys and results.

Ours never holds full-size logits (``prediction.py``, ``head_loss.py``), can change its output stride when it is
trained, and tells heads the channels that their configs leave out.
"""

from contextlib import suppress

from mmseg.models.segmentors import EncoderDecoder as _EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_ext.layers.eager import is_eager
from mmseg_ext.layers.live_modules import all_or_nothing
from mmseg_ext.models.backbones.base import Backbone
from mmseg_ext.models.decode_heads import AtrousHead
from mmseg_ext.models.decode_heads.rates import has_rates, rate_factors, scale_rates
from mmseg_ext.registry import MODELS

from .covered import covers_inference, covers_prediction, runs_as_written
from .crf import build_crf, original_image
from .features import feature_strides, with_channels
from .head_loss import head_loss
from .image_logits import of_mmseg
from .prediction import inference, postprocess
from .slide import window_sizes


@MODELS.register_module()
class EncoderDecoder(_EncoderDecoder):
    """Segmentor of a backbone and one decode head, with auxiliary heads for training.

    ``predict`` returns samples with ``pred_sem_seg``: labels ``(1, H, W)``, uint8 or, above 256 classes, int16. In
    ``test_cfg``, beside mmseg's entries:

    - ``keep_logits=True``: also ``seg_logits``, the full-size logits, by mmseg's own code.
    - ``probability=True``: also ``pred_probability``, that of the label, ``(1, H, W)`` in float32; not with
      ``keep_logits``, unless there is a CRF.
    - ``batch``: in ``mode='slide'``, how many windows of an image go through the network at once (1).
    - ``crf``: parameters of ``postprocess.DenseCRF``, ``dict()`` for its defaults: labels and their probability are
      those that it refines, ``seg_logits`` stays the network's. Images of a batch are refined in parallel.

    What a subclass, the object or a patch of mmseg's class does in another way than mmseg (a method of the segmentor, a
    head, a loss or a sampler) is run as mmseg runs it, with full-size logits (``covered.py``).

    Args:
        kwargs: arguments of mmseg's ``EncoderDecoder``. A head's config may leave out its channels.

    Raises:
        ImportError: ``test_cfg.crf`` is there and pydensecrf2 is not.
        TypeError: ``test_cfg.crf`` is no dict.
        ValueError: ``test_cfg`` has another mode than 'whole' and 'slide', or windows without two sizes or with gaps
            between them; or the CRF can't have these parameters or refine this head's predictions.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.crf = None
        if self.test_cfg is not None:
            _check_test_cfg(self)
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
        if not runs_as_written(self, '_decode_head_forward_train', after=EncoderDecoder):
            return super()._decode_head_forward_train(inputs, data_samples)
        return add_prefix(head_loss(self.decode_head, inputs, data_samples, self.train_cfg), 'decode')

    def _auxiliary_head_forward_train(self, inputs: list[Tensor], data_samples: list) -> dict[str, Tensor]:
        if not runs_as_written(self, '_auxiliary_head_forward_train', after=EncoderDecoder):
            return super()._auxiliary_head_forward_train(inputs, data_samples)
        losses = {}
        several = isinstance(self.auxiliary_head, nn.ModuleList)
        for i, head in enumerate(self._auxiliary_heads()):
            own = head_loss(head, inputs, data_samples, self.train_cfg)
            losses.update(add_prefix(own, f'aux_{i}' if several else 'aux'))
        return losses

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predict the labels of preprocessed images.

        Args:
            inputs: ``(B, C, H, W)``.
            data_samples: what is known of each image (padding, flip, original size); None: labels of ``H x W``.

        Returns:
            The samples, with the predictions; see the class.

        Raises:
            ValueError: ``test_cfg`` was changed to what the class would refuse.
        """
        _check_test_cfg(self)
        streams = not self.test_cfg.get('keep_logits') and self.streams_prediction() and is_eager(inputs)
        if not streams and self.crf is None:
            return super().predict(inputs, data_samples)
        if data_samples is None:
            size = inputs.shape[2:]
            data_samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size)) for _ in inputs]
        metas = [sample.metainfo for sample in data_samples]
        if streams:
            logits = inference(self, inputs, metas)
        else:
            data_samples = super().predict(inputs, data_samples)
            logits = [of_mmseg(sample.seg_logits.data) for sample in data_samples]
        images = (original_image(self, x, meta) for x, meta in zip(inputs, metas, strict=True))
        return postprocess(self, data_samples, logits, images)

    def streams_prediction(self) -> bool:
        """Whether ``predict`` goes tile by tile: nothing that mmseg's would call has been replaced."""
        return covers_prediction(self) and runs_as_written(self, 'predict', after=EncoderDecoder)

    def logits(self, inputs: Tensor) -> Tensor:
        """Map preprocessed images ``(B, 3, H, W)`` to the head's logits ``(B, C, h, w)``."""
        return self.decode_head(self.extract_feat(inputs))


def _stride_seen(head: AtrousHead, strides: list) -> int | None:
    index = head.in_index[0] if isinstance(head.in_index, (list, tuple)) else head.in_index
    # mmseg builds a head with an index that the backbone lacks, and fails when it runs.
    return strides[index] if -len(strides) <= index < len(strides) else None


def _check_test_cfg(segmentor: EncoderDecoder) -> None:
    cfg = segmentor.test_cfg
    batch = cfg.get('batch', 1)
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f'test_cfg.batch={batch!r} must be a positive number of windows')
    # A subclass may have modes and windows of its own.
    if covers_inference(segmentor):
        mode = cfg.get('mode', 'whole')
        if mode not in ('whole', 'slide'):
            raise ValueError(f"test_cfg.mode={mode!r} must be 'whole' or 'slide'")
        if mode == 'slide':
            window_sizes(cfg)
