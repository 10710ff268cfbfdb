import pytest
import torch
from torch import nn

from mmseg_ext.models.decode_heads import DeepLabV2Head, LargeFOVHead
from tests.models.head_parity import random_features, training_step

ARGUMENTS = dict(in_channels=6, num_classes=4)


def released_branch(rate: int, hidden: int = 5) -> nn.Sequential:
    """Layers fc6 to fc8 of the released VGG-16 networks."""
    return nn.Sequential(
        nn.Conv2d(6, hidden, 3, padding=rate, dilation=rate), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(hidden, hidden, 1), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(hidden, 4, 1),
    )  # fmt: skip


def load(fully_connected: nn.Module, reference: nn.Sequential) -> None:
    fully_connected.fc6.conv.load_state_dict(reference[0].state_dict())
    fully_connected.fc7.conv.load_state_dict(reference[3].state_dict())


@pytest.mark.parametrize('training', [False, True])
def test_large_fov_is_the_released_network_with_its_dropout(training):
    reference = released_branch(12).train(training)
    head = LargeFOVHead(channels=5, **ARGUMENTS).train(training)
    load(head.fully_connected, reference)
    head.conv_seg.load_state_dict(reference[6].state_dict())
    x = torch.randn(2, 6, 15, 17)
    outs = []
    for network in (lambda: head([x]), lambda: reference(x)):
        torch.manual_seed(0)
        outs.append(network())
    torch.testing.assert_close(*outs)


def test_defaults_are_the_papers():
    head = LargeFOVHead(in_channels=512, num_classes=21)
    assert head.fully_connected.fc6.conv.weight.shape == (1024, 512, 3, 3)
    assert head.fully_connected.fc6.conv.dilation == (12, 12)
    assert head.fully_connected.fc7.conv.weight.shape == (1024, 1024, 1, 1)
    assert head.conv_seg.weight.shape == (21, 1024, 1, 1)


def test_v2_for_vgg_sums_the_scores_of_released_branches():
    branches = [released_branch(rate).eval() for rate in (6, 12, 18, 24)]
    head = DeepLabV2Head(hidden_channels=5, **ARGUMENTS).eval()
    for ours, theirs in zip(head.branches, branches, strict=True):
        load(ours, theirs)
    with torch.no_grad():
        head.conv_seg.weight.copy_(torch.cat([branch[6].weight for branch in branches], dim=1))
        head.conv_seg.bias.copy_(sum(branch[6].bias for branch in branches))
    x = torch.randn(2, 6, 30, 27)
    torch.testing.assert_close(head([x]), sum(branch(x) for branch in branches))


def test_v2_for_resnet_sums_the_scores_of_one_convolution_a_branch():
    head = DeepLabV2Head(norm_cfg=dict(type='BN'), **ARGUMENTS).eval()
    x = torch.randn(2, 6, 30, 27)
    expected = 0
    for i, rate in enumerate((6, 12, 18, 24)):
        weight, bias = (head.state_dict()[f'conv_seg.{i}.conv.{name}'] for name in ('weight', 'bias'))
        assert weight.shape == (4, 6, 3, 3)
        expected = expected + nn.functional.conv2d(x, weight, bias, padding=rate, dilation=rate)
    torch.testing.assert_close(head([x]), expected)


@pytest.mark.parametrize(
    'head',
    [
        lambda: LargeFOVHead(channels=5, **ARGUMENTS),
        lambda: DeepLabV2Head(**ARGUMENTS),
        lambda: DeepLabV2Head(hidden_channels=5, dropout_ratio=0.5, **ARGUMENTS),
        lambda: DeepLabV2Head(hidden_channels=4, norm_cfg=dict(type='BN'), **ARGUMENTS),
    ],
)
def test_initial_weights_are_usable_and_every_parameter_gets_a_gradient(head):
    head = head().train()
    head.init_weights()
    training_step(head, random_features((2, 6, 30, 27)), torch.randint(0, 4, (2, 1, 60, 54)))
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    scores = [parameter.std() for name, parameter in head.named_parameters() if name.startswith('conv_seg')]
    assert max(scores) < 0.02  # mmseg's classifiers start with a standard deviation of 0.01
    norms = [layer.weight for layer in head.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(torch.equal(weight, torch.ones_like(weight)) for weight in norms)


@pytest.mark.parametrize('kwargs', [dict(dilations=6), dict(dilations=6, hidden_channels=5)])
def test_wrong_dilations_of_v2_are_named(kwargs):
    with pytest.raises(ValueError, match=r'dilations must be a list of positive integers .* got 6'):
        DeepLabV2Head(**ARGUMENTS, **kwargs)


@pytest.mark.parametrize('dilation', [0, (6, 12), 1.5])
def test_a_wrong_dilation_of_large_fov_is_named(dilation):
    with pytest.raises(ValueError, match=r'dilation=.* must be a positive integer'):
        LargeFOVHead(channels=5, dilation=dilation, **ARGUMENTS)
