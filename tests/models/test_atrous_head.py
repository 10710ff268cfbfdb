"""The rates of our heads follow the output stride of their features."""

import pytest
import torch
from torch import nn

from mmseg_ext.models.decode_heads import (
    ASPPHead,
    DeepLabV2Head,
    DeepLabV3PlusHead,
    DepthwiseSeparableASPPHead,
    FCNHead,
    LargeFOVHead,
)
from tests.models.head_parity import ARGUMENTS
from tests.reference.weights import randomise

PYRAMID = dict(in_channels=8, dilations=(1, 6, 12, 18))
V2 = dict(in_channels=8, num_classes=5, dilations=(6, 12, 18))
LOW_LEVEL = dict(low_level_in_channels=4, in_index=1)
HEADS = [
    (ASPPHead, dict(PYRAMID, in_index=1)),
    (ASPPHead, dict(PYRAMID, in_index=1, separable=True)),
    (DepthwiseSeparableASPPHead, dict(PYRAMID, in_index=1, c1_in_channels=4, c1_channels=4)),
    (DeepLabV3PlusHead, dict(PYRAMID, **LOW_LEVEL)),
    (DeepLabV3PlusHead, dict(PYRAMID, **LOW_LEVEL, separable=True)),
    (DeepLabV2Head, V2),
    (DeepLabV2Head, dict(V2, hidden_channels=6)),
]


def build(head_class: type, kwargs: dict, output_stride: int | None = 16) -> nn.Module:
    arguments = ARGUMENTS if head_class is not DeepLabV2Head else {}
    head = randomise(head_class(**{**arguments, **kwargs})).eval()
    head.output_stride = output_stride
    return head


def rates(head: nn.Module) -> list[int]:
    """Dilations of all 3x3 convolutions that were built with one."""
    return [conv.dilation[0] for conv in atrous_convs(head)]


def atrous_convs(head: nn.Module) -> list[nn.Conv2d]:
    convs = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    return [conv for conv in convs if conv.dilation != (1, 1)]


@pytest.mark.parametrize(('head_class', 'kwargs'), HEADS)
def test_rates_follow_weights_stay_and_going_back_restores_the_logits_bit_for_bit(head_class, kwargs):
    head = build(head_class, kwargs)
    features = [torch.randn(2, 4, 24, 32), torch.randn(2, 8, 24, 32)]
    geometry = {name: (m.dilation, m.padding) for name, m in head.named_modules() if isinstance(m, nn.Conv2d)}
    weights = {key: value.clone() for key, value in head.state_dict().items()}
    logits = head(features)
    assert rates(head) == [6, 12, 18]

    head.set_output_stride(8)
    assert rates(head) == [12, 24, 36]
    assert [conv.padding for conv in atrous_convs(head)] == [(12, 12), (24, 24), (36, 36)]
    others = [m.dilation for m in head.modules() if isinstance(m, nn.Conv2d) and m not in atrous_convs(head)]
    assert set(others) <= {(1, 1)}
    assert head.output_stride == 8
    assert head(features).shape == logits.shape
    assert not torch.equal(head(features), logits)

    head.set_output_stride(32)
    assert rates(head) == [3, 6, 9]
    head.set_output_stride(16)
    assert {n: (m.dilation, m.padding) for n, m in head.named_modules() if isinstance(m, nn.Conv2d)} == geometry
    assert torch.equal(head(features), logits)
    assert all(torch.equal(value, weights[key]) for key, value in head.state_dict().items())


@pytest.mark.parametrize('size', [(24, 32), (27, 33)])
@pytest.mark.parametrize(
    ('head_class', 'kwargs'),
    [
        (DeepLabV2Head, V2),
        (DeepLabV2Head, dict(V2, hidden_channels=6)),
        (LargeFOVHead, dict(in_channels=8)),
        (FCNHead, dict(in_channels=8, dilation=3, concat_input=False)),
    ],
)
def test_on_denser_features_the_logits_subsampled_are_those_of_the_coarse_ones(head_class, kwargs, size):
    head = build(head_class, kwargs).double()
    features = torch.randn(2, 8, *size, dtype=torch.float64)
    logits = head([features[..., ::2, ::2]])
    head.set_output_stride(8)
    torch.testing.assert_close(head([features])[..., ::2, ::2], logits, rtol=1e-12, atol=1e-12)


def test_a_rate_that_became_one_grows_again():
    head = build(FCNHead, dict(in_channels=8, dilation=2), output_stride=8)
    head.set_output_stride(16)
    assert [conv.conv.dilation for conv in head.convs] == [(1, 1), (1, 1)]
    head.set_output_stride(8)
    assert [conv.conv.dilation for conv in head.convs] == [(2, 2), (2, 2)]
    assert head.conv_cat.conv.dilation == (1, 1)


def test_a_rate_that_is_no_integer_is_refused_and_nothing_changes():
    head = build(ASPPHead, dict(PYRAMID, dilations=(1, 4, 6)))
    message = r'ASPPHead\.aspp_modules\.2\.conv: .* would need dilation 3/2 .*; choose an output stride or dilations'
    with pytest.raises(ValueError, match=message):
        head.set_output_stride(64)
    assert rates(head) == [4, 6]
    assert head.output_stride == 16


def test_a_head_that_does_not_know_its_output_stride_says_how_to_tell_it():
    head = build(ASPPHead, PYRAMID, output_stride=None)
    with pytest.raises(ValueError, match=r"ASPPHead: output_stride=8 needs .* set the head's attribute"):
        head.set_output_stride(8)
    assert rates(head) == [6, 12, 18]


@pytest.mark.parametrize('output_stride', [0, -8, 8.0])
def test_an_impossible_output_stride_is_named(output_stride):
    with pytest.raises(ValueError, match=f'output_stride={output_stride} must be a positive integer'):
        build(ASPPHead, PYRAMID).set_output_stride(output_stride)
