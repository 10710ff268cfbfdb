"""Which of mmseg's mechanisms we may replace: those that run as mmseg wrote them.

A method that a subclass, the object or whoever patched mmseg's class has replaced is called by mmseg's own code, so the
whole mechanism around it is left to that.
"""

from collections.abc import Iterable
from types import FunctionType

from mmengine.model import BaseModel
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss as MMSegCrossEntropyLoss
from mmseg.models.losses.cross_entropy_loss import cross_entropy
from mmseg.models.segmentors import BaseSegmentor
from mmseg.models.segmentors import EncoderDecoder as _EncoderDecoder
from mmseg.structures import OHEMPixelSampler
from torch import nn

from mmseg_ext.models.losses import CrossEntropyLoss

# Where what we replace is written. The multi-scale segmentor is ours, and there both ways are the same.
_MULTI_SCALE = f'{__package__}.multi_scale'
_SOURCES = {
    cls.__module__
    for cls in (BaseModel, BaseSegmentor, _EncoderDecoder, BaseDecodeHead, MMSegCrossEntropyLoss, OHEMPixelSampler)
}


def runs_as_written(owner: object, *names: str, after: type | None = None, also: str = '') -> bool:
    """Whether an object's methods are the functions in the source of mmseg's base classes.

    Args:
        owner: a segmentor, a head, a loss or a sampler.
        names: of the methods.
        after: look them up behind this class, as ``super`` does.
        also: a module whose functions count too.
    """
    found = owner if after is None else super(after, owner)
    return all(_is_written(getattr(found, name, None), name, owner, also) for name in names)


def _is_written(method: object, name: str, owner: object, also: str) -> bool:
    function = getattr(method, '__func__', None)
    # A wrapper can take over the name and the module of what it wraps, but neither its globals nor its code.
    return (
        isinstance(function, FunctionType)
        and method.__self__ is owner
        and function.__code__.co_name == name
        and function.__globals__.get('__name__') in (*_SOURCES, also)
    )


def covers_inference(segmentor: nn.Module) -> bool:
    """Whether ``test_cfg.mode`` and the windows mean what they mean to mmseg's segmentor."""
    return runs_as_written(segmentor, 'inference', 'slide_inference')


def covers_prediction(segmentor: nn.Module) -> bool:
    """Whether the labels follow from ``segmentor.logits`` by resizing alone, as mmseg wrote it."""
    head = segmentor.decode_head
    return (
        covers_inference(segmentor)
        and runs_as_written(segmentor, 'whole_inference', 'postprocess_result')
        and runs_as_written(segmentor, 'encode_decode', also=_MULTI_SCALE)
        and resizes_its_logits(head)
    )


def resizes_its_logits(head: nn.Module) -> bool:
    """Whether a head's prediction is its logits, resized, as mmseg's base class wrote it."""
    return isinstance(head, BaseDecodeHead) and runs_as_written(head, 'predict', 'predict_by_feat')


def covers_loss(head: nn.Module) -> bool:
    """Whether ``head_loss.streamed_loss`` gives what the head's own ``loss`` gives."""
    return (
        isinstance(head, BaseDecodeHead)
        and runs_as_written(head, 'loss', 'loss_by_feat')
        and head.ignore_index is not None
        and all(map(_is_plain_cross_entropy, losses_of(head)))
        and (head.sampler is None or _is_plain_ohem(head.sampler))
    )


def losses_of(head: BaseDecodeHead) -> Iterable[nn.Module]:
    return head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody waits for calls of the module."""
    names = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    return any(getattr(module, name) for name in names)


def _is_plain_cross_entropy(loss: nn.Module) -> bool:
    criterion = getattr(loss, 'cls_criterion', None)
    ours = CrossEntropyLoss._cross_entropy
    return (
        type(loss) in (MMSegCrossEntropyLoss, CrossEntropyLoss)
        and (criterion is cross_entropy or getattr(criterion, '__func__', None) is ours)
        and loss.reduction == 'mean'
        and runs_as_written(loss, 'forward')
        and not has_hooks(loss)
    )


def _is_plain_ohem(sampler: object) -> bool:
    return type(sampler) is OHEMPixelSampler and runs_as_written(sampler, 'sample')
