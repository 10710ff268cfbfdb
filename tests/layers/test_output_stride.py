import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmseg_ext.layers import MaxPool2d, Unit, present_output_stride, remember_geometry, set_output_stride
from mmseg_ext.layers.output_stride import assign, dilated


def plain_network(kernels, strides, pooled) -> tuple[nn.Sequential, list[Unit]]:
    """A chain of convolutions and pools without padding effects to hide behind: random kernels, strides, order."""
    layers = []
    for kernel, stride, pool in zip(kernels, strides, pooled, strict=True):
        if pool:
            layers.append(MaxPool2d(kernel, stride, (kernel - 1) // 2))
        else:
            layers.append(nn.Conv2d(2, 2, kernel, stride, (kernel - 1) // 2))
    network = nn.Sequential(*layers).double()
    units = [Unit([[layer]], [0]) for layer in layers]
    remember_geometry(units)
    return network, units


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 2, 3]), st.booleans()), min_size=2, max_size=5
    ).filter(lambda layers: any(stride > 1 for _, stride, _ in layers))
)
def test_dense_features_subsampled_equal_the_strided_ones(layers):
    network, units = plain_network(*zip(*layers, strict=True))
    native = present_output_stride(units, 1)
    x = torch.randn(1, 2, 2 * native, 3 * native, dtype=torch.float64)
    strided = network(x)
    set_output_stride(units, 1, 1)
    dense = network(x)
    assert dense.shape[2:] == x.shape[2:]
    torch.testing.assert_close(dense[:, :, ::native, ::native], strided, rtol=0, atol=1e-9)
    set_output_stride(units, native, 1)
    assert torch.equal(network(x), strided)


def test_a_refusal_changes_nothing():
    # Built with its stride removed but the convolution behind it not dilated: nothing strided has its features.
    conv, behind = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
    units = [Unit([[conv]], [0], removed=2), Unit([[behind]], [0])]
    remember_geometry(units)
    with pytest.raises(ValueError, match='would need dilation 1/2'):
        set_output_stride(units, 2, 1)
    assert conv.stride == behind.stride == (1, 1)


def test_a_layer_that_cannot_be_dilated_is_named():
    class Deformable(nn.Module):
        kernel_size, stride, dilation, padding = 3, 1, 1, 1

    units = [Unit([[nn.Conv2d(1, 1, 3, 2, 1)]], [0]), Unit([[Deformable()]], [0])]
    remember_geometry(units)
    with pytest.raises(ValueError, match=r'Deformable\(\) cannot be dilated exactly'):
        set_output_stride(units, 1, 1)


def test_strides_that_differ_between_the_axes_are_refused_when_they_should_change():
    units = [Unit([[nn.Conv2d(1, 1, 3, (2, 1), 1)]], [0])]
    remember_geometry(units)
    with pytest.raises(ValueError, match=r'stride=\(2, 1\) differs between the axes'):
        set_output_stride(units, 1, 1)


CONVOLUTIONS = [
    dict(kernel_size=3, padding=1),
    dict(kernel_size=3, padding='same'),
    dict(kernel_size=(1, 3), padding=(0, 2), dilation=(1, 2)),
    dict(kernel_size=(3, 5), padding=(2, 2), dilation=(2, 1)),
    dict(kernel_size=3, padding=3, dilation=3, groups=4),
    dict(kernel_size=5, padding='same', dilation=2, groups=2),
    dict(kernel_size=1, dilation=4),
    dict(kernel_size=3, padding='valid'),
    dict(kernel_size=2, padding=1),
]
# How many samples more than a multiple a map must have, so that the padding takes the same ones on the dense map.
BEYOND = dict(zeros=0, circular=0, reflect=1, replicate=1)


@pytest.mark.parametrize(('kwargs', 'mode'), list(itertools.product(CONVOLUTIONS, BEYOND)))
def test_a_convolution_dilated_with_any_padding_is_the_one_that_is_built_so_and_keeps_its_results(kwargs, mode):
    conv = nn.Conv2d(4, 4, padding_mode=mode, dtype=torch.float64, **kwargs)
    shape, after = (1, 4, 12 + BEYOND[mode], 15 + BEYOND[mode]), (1, 4, 36 + BEYOND[mode], 45 + BEYOND[mode])
    coarse, dense = torch.randn(shape, dtype=torch.float64), torch.randn(after, dtype=torch.float64)
    dense[:, :, ::3, ::3] = coarse
    before = conv(coarse)
    assign(conv, dilated(conv, 3))
    built = nn.Conv2d(
        4,
        4,
        conv.kernel_size,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        padding_mode=mode,
        dtype=torch.float64,
    )
    built.load_state_dict(conv.state_dict())
    assert vars(built).keys() == vars(conv).keys()
    assert torch.equal(conv(dense), built(dense))
    kept = conv(dense)[:, :, ::3, ::3][:, :, : before.shape[2], : before.shape[3]]
    torch.testing.assert_close(kept, before, rtol=0, atol=1e-12)
    assign(conv, dilated(conv, Fraction(1, 3)))
    assert torch.equal(conv(coarse), before)


@pytest.mark.parametrize(
    ('layer', 'factor', 'message'),
    [
        (nn.Conv2d(1, 1, 3, dilation=3, padding=3), Fraction(1, 2), 'would need dilation 3/2 and padding 3/2'),
        (nn.Conv2d(1, 1, 3, dilation=2, padding=1), Fraction(1, 2), 'would need dilation 1 and padding 1/2'),
        (nn.Conv2d(1, 1, 2, padding='same'), 2, "which is not what 'same' gives"),
        (nn.ConvTranspose2d(1, 1, 3, dilation=2), 2, r'ConvTranspose2d.* cannot be dilated exactly'),
        (nn.Conv3d(1, 1, 3), 2, 'cannot be dilated exactly'),
        (MaxPool2d(3, 1), Fraction(1, 2), 'would need dilation 1/2'),
    ],
)
def test_a_layer_that_cannot_follow_is_refused_with_what_it_would_need(layer, factor, message):
    before = dict(vars(layer))
    with pytest.raises(ValueError, match=message):
        dilated(layer, factor)
    assert vars(layer) == before


def test_the_present_output_stride_is_no_change_even_where_the_strides_would_be_others():
    # Its first stride was removed, its second was not; planned for 2, it would be the other way round.
    layers = [nn.Conv2d(1, 1, 3, 1, 1), nn.Conv2d(1, 1, 3, 2, 2, 2)]
    units = [Unit([[layers[0]]], [0], removed=2), Unit([[layers[1]]], [0])]
    remember_geometry(units)
    before = [dict(vars(layer)) for layer in layers]
    set_output_stride(units, 2, 1)
    assert [vars(layer) for layer in layers] == before


def test_an_interrupt_on_the_way_leaves_no_layer_changed():
    class Interrupting(nn.Conv2d):
        def __setattr__(self, name, value):
            if name == 'dilation' and hasattr(self, 'dilation'):
                raise KeyboardInterrupt
            super().__setattr__(name, value)

    layers = [nn.Conv2d(1, 1, 3, 2, 1), Interrupting(1, 1, 3, 1, 1)]
    units = [Unit([[layer]], [0]) for layer in layers]
    remember_geometry(units)
    before = [dict(vars(layer)) for layer in layers]
    with pytest.raises(KeyboardInterrupt):
        set_output_stride(units, 1, 1)
    assert [vars(layer) for layer in layers] == before
