import pytest
import torch
from mmseg.models.backbones.resnest import SplitAttentionConv2d
from torch import nn

from mmseg_ext.layers import DropBlock2d, RectifiedConv2d, SplAtConv2d, check_norm_input
from mmseg_ext.layers.split_attention import weighted_sum


def pair(radix: int, groups: int) -> tuple[SplAtConv2d, SplitAttentionConv2d]:
    """Ours and mmseg's, with the same weights."""
    theirs = SplitAttentionConv2d(16, 16, 3, padding=1, groups=groups, radix=radix).double()
    ours = SplAtConv2d(16, 16, 3, padding=1, groups=groups, radix=radix).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('radix', [1, 2, 4])
def test_outputs_gradients_and_statistics_are_mmsegs(radix, groups, training):
    ours, theirs = (layer.train(training) for layer in pair(radix, groups))
    x = torch.randn(3, 16, 7, 9, dtype=torch.float64, requires_grad=True)
    grads = []
    for layer in (ours, theirs):
        out = layer(x)
        grads.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    for result, expected in zip(*grads, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    for result, expected in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(('radix', 'density'), [(1, 1), (2, 1), (3, 2)])
def test_first_and_second_derivatives(radix, density, training):
    layer = SplAtConv2d(radix, radix, 1, radix=radix).double().train(training)
    layer.pool.dilation = density
    x = torch.randn(2, radix, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_gradients_accumulate_over_two_backward_passes():
    layer, _ = pair(2, 1)
    x = torch.randn(3, 16, 5, 5, dtype=torch.float64)
    out = layer(x).square().sum()
    out.backward(retain_graph=True)
    once = [p.grad.clone() for p in layer.parameters()]
    out.backward()
    for p, grad in zip(layer.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * grad)


@pytest.mark.parametrize('shape', [(8, 12), (7, 9)])
@pytest.mark.parametrize('density', [1, 2, 4])
def test_each_phase_of_a_dense_map_has_its_own_attention(density, shape):
    layer = SplAtConv2d(8, 8, 1, groups=2, radix=2).double().eval()
    x = torch.randn(2, 8, *shape, dtype=torch.float64, requires_grad=True)
    layer.pool.dilation = density
    dense = layer(x)
    layer.pool.dilation = 1
    phases = torch.zeros_like(dense)
    for i in range(density):
        for j in range(density):
            phases[:, :, i::density, j::density] = layer(x[:, :, i::density, j::density])
    torch.testing.assert_close(dense, phases, rtol=0, atol=1e-12)
    weight = torch.randn_like(dense)
    grads = [torch.autograd.grad((out * weight).sum(), [x, *layer.parameters()]) for out in (dense, phases)]
    for result, expected in zip(*grads, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


def test_average_downsampling_is_a_pool_behind_or_before_the_convolution():
    x = torch.randn(2, 8, 16, 16)
    plain = SplAtConv2d(8, 8, 3, padding=1).eval()
    pool = nn.AvgPool2d(3, 2, padding=1)
    for avd_first, expected in ((False, pool(plain(x))), (True, plain(pool(x)))):
        layer = SplAtConv2d(8, 8, 3, stride=2, padding=1, avd=True, avd_first=avd_first).eval()
        layer.load_state_dict(plain.state_dict())
        torch.testing.assert_close(layer(x), expected)
        assert layer(x).shape == (2, 8, 8, 8)


def test_weighted_sum_against_its_formula():
    x, attention = torch.randn(2, 12, 5, 6), torch.rand(2, 12, 1, 1)
    expected = (x * attention).view(2, 3, 4, 5, 6).sum(1)
    torch.testing.assert_close(weighted_sum(x, attention, radix=3), expected)


def test_other_normalisations_take_part():
    def group_norm(index, channels):
        return f'gn{index}', nn.GroupNorm(2, channels)

    layer = SplAtConv2d(8, 8, 3, padding=1, make_norm=group_norm).train()
    out = layer(torch.randn(1, 8, 6, 6))
    out.mean().backward()
    assert {'gn0.weight', 'gn1.weight'} <= dict(layer.named_parameters()).keys()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize('drop_prob', [0.1, 0.3])
def test_drop_block_drops_squares_at_its_rate_and_keeps_the_mean(drop_prob):
    out = DropBlock2d(drop_prob, block_size=3).train()(torch.ones(8, 16, 32, 32))
    dropped = out == 0
    # Blocks overlap, so that less than the rate is dropped.
    assert 0.75 * drop_prob < dropped.float().mean() <= 1.05 * drop_prob
    torch.testing.assert_close(out.mean(), torch.tensor(1.0))
    # Every dropped sample lies in a whole square of dropped ones: erosion and dilation give the same map.
    eroded = -nn.functional.max_pool2d(-dropped.float(), 3, 1)
    opened = nn.functional.max_pool2d(nn.functional.pad(eroded, (2, 2, 2, 2)), 3, 1)
    assert torch.equal(opened, dropped.float())


def test_drop_block_is_the_identity_in_evaluation_and_takes_small_maps():
    x = torch.randn(2, 3, 2, 2)
    assert DropBlock2d(0.5).eval()(x) is x
    assert DropBlock2d(0.5).train()(x).shape == x.shape
    with pytest.raises(ValueError, match=r'drop_prob=1 must be in \[0, 1\)'):
        DropBlock2d(1)


def count_taps(conv: nn.Conv2d, size: tuple[int, int]) -> torch.Tensor:
    """Taps inside the image, by convolving ones with ones."""
    ones = torch.ones(1, 1, *size, dtype=torch.float64)
    kernel = torch.ones(1, 1, *conv.kernel_size, dtype=torch.float64)
    return nn.functional.conv2d(ones, kernel, None, conv.stride, conv.padding, conv.dilation).clamp(min=1)


@pytest.mark.parametrize('average', [False, True])
@pytest.mark.parametrize(
    'arguments',
    [dict(padding=1), dict(padding=2, dilation=2), dict(padding=1, stride=2), dict(padding=(0, 3))],
    ids=str,
)
def test_rectified_convolution_divides_by_the_share_of_taps_inside(arguments, average):
    conv = RectifiedConv2d(2, 3, 3, bias=False, average=average, **arguments).double()
    x = torch.randn(1, 2, 9, 10, dtype=torch.float64)
    plain = nn.Conv2d.forward(conv, x)
    scale = (1 if average else 9) / count_taps(conv, (9, 10))
    torch.testing.assert_close(conv(x), plain * scale, rtol=0, atol=1e-12)


def test_rectified_convolution_keeps_a_constant_image_constant():
    conv = RectifiedConv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    torch.testing.assert_close(conv(torch.ones(1, 1, 5, 5)), torch.full((1, 1, 5, 5), 9.0))
    with pytest.raises(ValueError, match="padding='same'"):
        RectifiedConv2d(1, 1, 3, padding='same')


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(4), nn.SyncBatchNorm(4)])
def test_one_value_a_channel_is_refused_in_training_only(norm):
    one = torch.randn(1, 4, 1, 1)
    with pytest.raises(ValueError, match=r'head\.bn: .*\(1, 4, 1, 1\)'):
        check_norm_input(norm.train(), one, 'head.bn')
    check_norm_input(norm, torch.randn(2, 4, 1, 1), 'head.bn')
    check_norm_input(norm.eval(), one, 'head.bn')
    check_norm_input(nn.GroupNorm(2, 4), one, 'head.bn')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(radix=0), 'radix=0'),
        (dict(groups=3), 'channels=8 must be a multiple of groups=3'),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SplAtConv2d(8, 8, 3, **arguments)
