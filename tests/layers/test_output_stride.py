import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmseg_ext.layers import MaxPool2d, Unit, output_stride, remember_geometry, set_output_stride


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
    native = output_stride(units, 1)
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


def test_a_stride_that_differs_between_the_axes_is_refused():
    with pytest.raises(ValueError, match=r'stride=\(2, 1\) differs between the axes'):
        remember_geometry([Unit([[nn.Conv2d(1, 1, 3, (2, 1), 1)]], [0])])
