"""A head of ours beside mmseg's of the same name, on the same weights and features."""

import mmseg.models.decode_heads as mmseg_heads
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.layers.pyramid_level import Placing
from mmseg_ext.models import decode_heads
from tests.reference.weights import randomise, relative_error

ARGUMENTS = dict(channels=8, num_classes=5, norm_cfg=dict(type='BN'))


def pair(name: str, **kwargs) -> tuple[nn.Module, nn.Module]:
    """Build both heads; the state-dict keys and their order, which optimizer states follow, must be equal."""
    ours = randomise(getattr(decode_heads, name)(**{**ARGUMENTS, **kwargs}))
    theirs = getattr(mmseg_heads, name)(**{**ARGUMENTS, **kwargs})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def random_features(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def assert_logits_equal_mmsegs(name: str, shapes: list[tuple[int, ...]], **kwargs) -> None:
    ours, theirs = pair(name, **kwargs)
    features = random_features(*shapes)
    with torch.no_grad():
        logits, expected = ours.eval()(features), theirs.eval()(features)
    assert expected.std() > 1e-3
    assert relative_error(logits, expected) <= 1e-5


def training_step(head: nn.Module, features: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Return losses, accuracy, the gradients of features and parameters, and what became of the buffers."""
    features = [feature.clone().requires_grad_() for feature in features]
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    results = head.loss(features, samples, {})
    sum(value for key, value in results.items() if key.startswith('loss')).backward()
    results.update({f'feature {i}': feature.grad for i, feature in enumerate(features) if feature.grad is not None})
    results.update({key: parameter.grad for key, parameter in head.named_parameters()})
    results.update(head.named_buffers())
    return results


def assert_training_equals_mmsegs(name: str, shapes: list[tuple[int, ...]], **kwargs) -> None:
    """Compare in float64: in float32 a rectifier's input near zero changes its sign, and a gradient with it."""
    ours, theirs = (head.double().train() for head in pair(name, **{'dropout_ratio': 0, **kwargs}))
    features = random_features(*shapes, dtype=torch.float64)
    labels = torch.randint(0, 5, (len(features[0]), 1, 40, 48))
    results, expected = training_step(ours, features, labels), training_step(theirs, features, labels)
    assert list(results) == list(expected)
    for key, value in expected.items():
        if value.is_floating_point():
            scale = value.abs().max()
            assert scale > 0, f'{key}: nothing to compare'
            assert (results[key] - value).abs().max() <= 1e-9 * scale, key
        else:
            assert torch.equal(results[key], value), key


def convolve_every_level_at_its_own_size(monkeypatch) -> None:
    """The maps of these tests are so small that the plain convolution is cheaper."""
    monkeypatch.setattr(Placing, 'saves', lambda placing, *channels: placing.low != placing.size)
