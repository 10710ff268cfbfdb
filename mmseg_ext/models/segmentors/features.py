"""What a backbone's features look like, known or found by a dry run, and how heads learn it."""

import copy
import inspect
from fractions import Fraction
from typing import NamedTuple

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from mmseg_ext.layers.live_modules import quiet_copy, run_on_black_image
from mmseg_ext.models.backbones.base import Backbone
from mmseg_ext.models.decode_heads import DecodeHead
from mmseg_ext.registry import MODELS

# Large enough for stride 32 with a dilation behind it, small enough to take a moment.
_SIDE = 128


class Feature(NamedTuple):
    """Channels of a feature map, and size of the image over its size."""

    channels: int
    stride: Fraction | int


def feature_info(backbone: nn.Module, neck: nn.Module | None = None) -> list[Feature]:
    """Run a copy of the backbone on one black image and describe what it, or the neck behind it, returns.

    Backbone and neck are left as they are: modes, hooks, statistics and random numbers.

    Raises:
        ValueError: it can't be copied, or run on a small image; the message says what to do instead.
    """
    modules = nn.ModuleList([backbone] if neck is None else [backbone, neck])
    try:
        _, features = run_on_black_image(nn.Sequential(*quiet_copy(modules, share_parameters=True)), _SIDE)
    except Exception as error:
        raise ValueError(
            f'{type(backbone).__name__} does not run on an image of {_SIDE}x{_SIDE}, which would tell the channels and '
            f'strides of its features ({type(error).__name__}: {error}); name in_channels in every head, and leave the '
            'output stride as it is'
        ) from error
    return [Feature(feature.shape[1], _quotient(_SIDE, feature.shape[2])) for feature in features]


def _quotient(a: int, b: int) -> Fraction | int:
    return Fraction(a, b) if a % b else a // b


def feature_strides(backbone: nn.Module, neck: nn.Module | None = None) -> list[Fraction | int]:
    """Return the size of the image over the size of each of the features: our backbones know it, others are run.

    Raises:
        ValueError: the backbone has different strides for the axes, or can't be run.
    """
    if neck is None and isinstance(backbone, Backbone):
        return backbone.feature_strides
    return [feature.stride for feature in feature_info(backbone, neck)]


def with_channels(cfg: dict, backbone: nn.Module, neck: nn.Module | None) -> dict:
    """Return a head's config with the channels that it leaves out filled in.

    These are ``in_channels`` (by ``in_index``), ``c1_in_channels`` (of the first features) and
    ``low_level_in_channels`` (by ``low_level_index``), each for heads that have it.

    Raises:
        ValueError: ``in_index`` is not among the features.
    """
    kind = MODELS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    # mmseg's heads that only hold others (KNet's) have no channels.
    if kind is None or not (issubclass(kind, DecodeHead) or (issubclass(kind, BaseDecodeHead) and 'channels' in cfg)):
        return cfg
    names = set().union(*(inspect.signature(base.__init__).parameters for base in kind.__mro__))
    indices = {
        'in_channels': cfg.get('in_index', -1),
        'c1_in_channels': 0,
        'low_level_in_channels': cfg.get('low_level_index', 0),
    }
    missing = [name for name in indices if name in names and name not in cfg]
    if not missing:
        return cfg
    features = feature_info(backbone, neck)
    cfg = copy.copy(cfg)
    for name in missing:
        index = indices[name]
        several = isinstance(index, (list, tuple))
        try:
            channels = [features[i].channels for i in (index if several else [index])]
        except IndexError as error:
            raise ValueError(f'{kind.__name__}: in_index={index}, but there are {len(features)} features') from error
        cfg[name] = channels if several else channels[0]
    return cfg
