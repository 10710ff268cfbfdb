"""Build a model of the zoo from mmseg's classes and again after the one-line upgrade, and compare the two.

In float64, so that what differs is the network and not the rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import mmengine.registry
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional as F

import mmseg_ext
from tests.reference.weights import randomise

from .shrink import CROP
from .walk import replaced, types

# Test images: padded by this, and resized from this size; wider than a crop, so that windows slide.
PADDING = (0, 4, 0, 10)  # left, right, top, bottom
ORIGINAL = (71, 113)


def assert_parity(model: dict) -> None:
    """Fail unless the upgraded model has mmseg's keys, logits, labels, losses, gradients and statistics."""
    kinds = set(types(model))
    # mmseg's PointHead makes its coordinates in float32, whatever the features are.
    dtype, tolerance = (torch.float32, 1e-5) if 'PointHead' in kinds else (torch.float64, 1e-9)
    # mmseg's LRASPPHead pools windows of 49x49 pixels of a map that is an eighth of the image.
    height, width = (392, 392) if 'LRASPPHead' in kinds else CROP
    with _default_dtype(dtype):
        theirs, ours = build(model, upgrade=False), build(model, upgrade=True)
        _assert_ours_replace_mmsegs(ours, theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict(), strict=True)
        channels = model['backbone'].get('in_channels', 3)
        crops, images = _pictures(channels, height, width), _pictures(channels, height, width * 3 // 2)
        _fill(theirs)
        _balance(theirs, crops)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        _assert_same_logits(ours, theirs, crops, tolerance)
        _assert_same_labels(ours, theirs, images)
        # mmseg 1.2.2 fails on ignored pixels when classes have weights (mmsegmentation#3831).
        data_samples = _labels(_main_head(theirs), (height, width), some_ignored='class_weight' not in str(model))
        _assert_same_training_step(ours, theirs, crops, data_samples, tolerance)


def build(model: dict, upgrade: bool) -> nn.Module:
    """Build a model as its config is shipped, or after the one-line upgrade."""
    cfg = Config(dict(model=deepcopy(model), default_scope='mmseg'))
    if upgrade:
        cfg = mmseg_ext.upgrade(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return mmengine.registry.MODELS.build(cfg.model)


def _assert_ours_replace_mmsegs(ours: nn.Module, theirs: nn.Module) -> None:
    kinds = replaced()
    expected = {
        name: kinds[type(module).__name__]
        for name, module in theirs.named_modules()
        if type(module).__name__ in kinds and type(module).__module__.startswith('mmseg.')
    }
    assert expected
    assert {name: type(ours.get_submodule(name)) for name in expected} == expected


def _assert_same_logits(ours: nn.Module, theirs: nn.Module, crops: Tensor, tolerance: float) -> None:
    assert _difference(_logits(ours, crops), _logits(theirs, crops)) <= tolerance


def _assert_same_labels(ours: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    size = tuple(images.shape[2:])
    meta = dict(img_shape=size, pad_shape=size, ori_shape=ORIGINAL, padding_size=PADDING)
    results = []
    for model in (ours, theirs):
        data_samples = [SegDataSample(metainfo=dict(meta)) for _ in images]
        with torch.no_grad():
            torch.manual_seed(0)  # some heads draw numbers here too
            predictions = model.eval()(images, data_samples, mode='predict')
        results.append(torch.stack([prediction.pred_sem_seg.data for prediction in predictions]))
    labels, expected = results
    assert labels.shape == expected.shape == (2, 1, *ORIGINAL)
    assert (labels != expected).sum() == 0
    if hasattr(_main_head(theirs), 'conv_seg'):
        assert expected.unique().numel() > 1


def _assert_same_training_step(
    ours: nn.Module, theirs: nn.Module, crops: Tensor, data_samples: list[SegDataSample], tolerance: float
) -> None:
    results = []
    for model in (ours, theirs):
        torch.manual_seed(0)  # of dropout, stochastic depth and sampled points
        loss, terms = model.parse_losses(model.train()(crops, deepcopy(data_samples), mode='loss'))
        loss.backward()
        results.append(({name: value.item() for name, value in terms.items()}, dict(model.named_parameters())))
    (losses, parameters), (expected_losses, expected) = results
    assert losses.keys() == expected_losses.keys()
    for name, value in expected_losses.items():
        # mmseg counts accuracy in float32.
        limit = max(tolerance, 1e-6) if 'acc_' in name else tolerance
        assert abs(losses[name] - value) <= limit * max(1, abs(value)), f'{name}: {losses[name]} != {value}'
    largest = max(p.grad.abs().max().item() for p in expected.values() if p.grad is not None)
    for name, parameter in expected.items():
        assert (parameters[name].grad is None) == (parameter.grad is None), name
        if parameter.grad is not None:
            # Biases in front of a normalisation have no gradient but noise: hence the network's largest as a floor.
            error = _difference(parameters[name].grad, parameter.grad, floor=1e-6 * largest)
            assert error <= 100 * tolerance, f'gradient of {name}: {error}'
    for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert _difference(a, b) <= tolerance, name


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fill(model: nn.Module) -> None:
    """Give random values to every parameter that starts as a constant, which could hide a branch."""
    randomise(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if (parameter == parameter.flatten()[0]).all():
                parameter += 0.1 * torch.randn_like(parameter)


def _balance(model: nn.Module, crops: Tensor) -> None:
    """Shift the classifier's bias such that no class wins everywhere, which would prove little about labels."""
    head = _main_head(model)
    if hasattr(head, 'conv_seg'):
        with torch.no_grad():
            head.conv_seg.bias -= _logits(model, crops).mean((0, 2, 3))


def _pictures(channels: int, height: int, width: int) -> Tensor:
    """Return two images ``(2, channels, height, width)`` with more large structures than small ones."""
    coarse = torch.randn(2, channels, 4, 6)
    smooth = F.interpolate(coarse, size=(height, width), mode='bicubic')
    return 2 * smooth + 0.3 * torch.randn_like(smooth)


def _labels(head: nn.Module, size: tuple[int, int], some_ignored: bool) -> list[SegDataSample]:
    """Return random labels, and edges, which some heads want, for two crops."""
    data_samples = []
    for _ in range(2):
        label = torch.randint(0, head.num_classes, (1, *size))
        if some_ignored:
            label[:, : size[0] // 3, : size[1] // 2] = head.ignore_index
        data = dict(gt_sem_seg=PixelData(data=label), gt_edge_map=PixelData(data=torch.randint(0, 2, (1, *size))))
        data_samples.append(SegDataSample(metainfo=dict(img_shape=size, pad_shape=size, ori_shape=size), **data))
    return data_samples


def _main_head(model: nn.Module) -> nn.Module:
    head = model.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _logits(model: nn.Module, crops: Tensor) -> Tensor:
    """Return the logits of crops in evaluation mode, ``(2, num_classes, H, W)``."""
    size = tuple(crops.shape[2:])
    with torch.no_grad():
        torch.manual_seed(0)  # some heads draw numbers here too
        return model.eval().encode_decode(crops, [dict(img_shape=size, pad_shape=size, ori_shape=size) for _ in crops])


def _difference(a: Tensor, b: Tensor, floor: float = 1e-12) -> float:
    """Return the largest difference over the largest magnitude of ``b``."""
    assert a.shape == b.shape
    a, b = a.double(), b.double()
    return ((a - b).abs().max() / b.abs().max().clamp(min=floor)).item()
