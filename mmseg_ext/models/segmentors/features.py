"""What a backbone's features look like, found by a dry run, and how heads learn it."""

import copy
import inspect
from typing import NamedTuple

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from mmseg_ext.models.decode_heads import DecodeHead
from mmseg_ext.registry import MODELS

# Large enough for stride 32 with a dilation behind it, small enough to take a moment.
_SIDE = 128


class Feature(NamedTuple):
    """Channels of a feature map, and size of the image over its size."""

    channels: int
    stride: int


@torch.no_grad()
def feature_info(backbone: nn.Module, neck: nn.Module | None = None) -> list[Feature]:
    """Run the backbone on one black image and describe what it, or the neck behind it, returns.

    Raises:
        ValueError: it can't be run on a small image; the message says what to do instead.
    """
    modules = [backbone] if neck is None else [backbone, neck]
    training = [module.training for module in modules]
    parameter = next(backbone.parameters())
    channels = next((m.in_channels for m in backbone.modules() if isinstance(m, nn.Conv2d)), 3)
    x = torch.zeros(1, channels, _SIDE, _SIDE, dtype=parameter.dtype, device=parameter.device)
    try:
        for module in modules:
            module.eval()  # which returns nothing in some of mmseg's
            x = module(x)
    except Exception as error:
        raise ValueError(
            f'{type(backbone).__name__} does not run on an image of {_SIDE}x{_SIDE}, which would tell the channels and '
            f'strides of its features ({type(error).__name__}: {error}); name in_channels in every head'
        ) from error
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)
    return [Feature(feature.shape[1], round(_SIDE / feature.shape[2])) for feature in x]


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
