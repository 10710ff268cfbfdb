"""Heads, small, with the shapes of their features."""

from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from tests.models.head_parity import pair, random_features

_CHANNELS = [8, 12, 16, 24]
_LEVELS = dict(in_channels=_CHANNELS, in_index=[0, 1, 2, 3])
_SHAPES = [(2, channels, 32 >> i, 48 >> i) for i, channels in enumerate(_CHANNELS)]
_ATROUS = dict(dilations=(1, 3, 6))
HEADS = {
    'PSPHead': (dict(in_channels=16), [(2, 16, 24, 32)]),
    'UPerHead': (_LEVELS, _SHAPES),
    'SegformerHead': (_LEVELS, _SHAPES),
    'FCNHead': (
        dict(_LEVELS, input_transform='resize_concat', kernel_size=1, num_convs=1, concat_input=False),
        _SHAPES,
    ),
    'ASPPHead': (dict(in_channels=16, **_ATROUS), [(2, 16, 24, 32)]),
    'DepthwiseSeparableASPPHead': (
        dict(in_channels=16, in_index=1, c1_in_channels=8, c1_channels=6, **_ATROUS),
        [(2, 8, 32, 48), (2, 16, 8, 12)],
    ),
}


def pair_on(device: torch.device, name: str, **kwargs) -> tuple[nn.Module, nn.Module, list[Tensor]]:
    """Return our head, mmseg's with its weights, and features."""
    arguments, shapes = HEADS[name]
    ours, theirs = pair(name, dropout_ratio=0, **arguments, **kwargs)
    return ours.to(device), theirs.to(device), [x.to(device) for x in random_features(*shapes)]


def samples_of(labels: Tensor) -> list[SegDataSample]:
    """Return the truth of a batch of labels ``(B, H, W)``."""
    return [SegDataSample(gt_sem_seg=PixelData(data=image[None])) for image in labels]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Return a context of mixed precision; none for float32 and float64."""
    return torch.autocast(device.type, dtype) if dtype in (torch.bfloat16, torch.float16) else nullcontext()


def gradients(
    head: nn.Module, features: list[Tensor], grad: Tensor, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Return the logits, and the gradients of features and weights, given that of the logits."""
    features = [x.detach().clone().requires_grad_() for x in features]
    head.zero_grad()
    with autocast(grad.device, dtype):
        logits = head(features)
    logits.backward(grad.to(logits.dtype))
    inputs = {f'feature {i}': x.grad for i, x in enumerate(features)}
    return {'logits': logits.detach(), **inputs, **{key: p.grad.clone() for key, p in head.named_parameters()}}


def distance(result: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert expected.norm() > 0, 'nothing to compare'
    return ((result.double() - expected).norm() / expected.norm()).item()
