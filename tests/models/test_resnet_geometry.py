"""All strides and dilations that mmseg builds, and what can become of them."""

import itertools
import math

import mmseg.models.backbones as mmseg_backbones
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.models import backbones
from tests.reference.weights import randomise, relative_error

NARROW = dict(base_channels=8, stem_channels=8)
LONGEST_STAGE = {18: 2, 50: 6}


@st.composite
def networks(draw, strides=(1, 2), dilations=(1, 2, 3, 4)) -> tuple[str, dict]:
    depth, stages = draw(st.sampled_from([18, 18, 50])), draw(st.integers(1, 4))
    blocks = LONGEST_STAGE[depth]
    grid = draw(st.none() | st.lists(st.integers(1, 4), min_size=blocks, max_size=blocks))
    return draw(st.sampled_from(['ResNet', 'ResNetV1c', 'ResNetV1d'])), dict(
        depth=depth,
        num_stages=stages,
        strides=tuple(draw(st.lists(st.sampled_from(strides), min_size=stages, max_size=stages))),
        dilations=tuple(draw(st.lists(st.sampled_from(dilations), min_size=stages, max_size=stages))),
        out_indices=tuple(sorted(draw(st.sets(st.integers(0, stages - 1), min_size=1)))),
        contract_dilation=draw(st.booleans()),
        multi_grid=grid,
        style=draw(st.sampled_from(['pytorch', 'caffe'])),
        **NARROW,
    )


def pair(name: str, kwargs: dict):
    ours = randomise(getattr(backbones, name)(**kwargs))
    theirs = getattr(mmseg_backbones, name)(**kwargs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.eval(), theirs.eval()
    return ours, theirs


def assert_equals_mmsegs(name: str, kwargs: dict) -> None:
    ours, theirs = pair(name, kwargs)
    x = torch.randn(1, 3, 37, 53)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x), strict=True):
            assert relative_error(a, b) <= 1e-5


@settings(max_examples=8, deadline=None)
@given(networks(strides=(1, 2, 3)))
def test_features_and_keys_of_any_strides_and_dilations_equal_mmsegs(network):
    assert_equals_mmsegs(*network)


@pytest.mark.parametrize('name', ['ResNet', 'ResNetV1d'])
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 1)),
        dict(strides=(1, 1, 1, 1), dilations=(1, 4, 2, 8)),
        dict(strides=(1, 2, (1, 2), 2)),
        dict(dilations=(1, 1, 1, (2, 4)), multi_grid=((1, 2), 2)),
        dict(conv_cfg=dict(type='Conv2d', padding_mode='reflect'), strides=(1, 2, 1, 1), dilations=(1, 1, 2, 2)),
    ],
)
def test_odd_arguments_that_mmseg_builds_equal_mmsegs(name, kwargs):
    assert_equals_mmsegs(name, dict(depth=18, **kwargs, **NARROW))


def refusal_of(model, output_stride: int) -> str | None:
    try:
        model.set_output_stride(output_stride)
    except ValueError as error:
        return str(error)
    return None


def geometry(model) -> list[tuple]:
    return [(str(layer), getattr(layer, 'native_geometry', None)) for layer in model.modules()]


@settings(max_examples=8, deadline=None)
@given(networks(dilations=(1, 2, 4)))
def test_every_output_stride_is_exact_or_refused_by_name_with_nothing_changed(network):
    name, kwargs = network
    model = randomise(getattr(backbones, name)(**kwargs)).double().eval()
    built = model.output_stride
    assert built == 4 * math.prod(kwargs['strides'])
    strides = list(itertools.accumulate(kwargs['strides'], initial=4, func=lambda a, b: a * b))[1:]
    assert model.feature_strides == [strides[i] for i in kwargs['out_indices']]
    last = kwargs['num_stages'] - 1
    model.out_indices = (last,)
    x = torch.randn(1, 3, 64, 128, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)[0]
        for output_stride in (4, 8, 16, 32, 64):
            before = geometry(model)
            refusal = refusal_of(model, output_stride)
            if refusal:
                assert 'would need dilation' in refusal or 'must be one of' in refusal
                assert geometry(model) == before
                continue
            assert model.output_stride == output_stride
            coarse, dense = sorted((expected, model(x)[0]), key=lambda features: features.shape[3])
            assert dense.shape[3] * min(output_stride, built) == 128
            factor = max(output_stride, built) // min(output_stride, built)
            torch.testing.assert_close(dense[:, :, ::factor, ::factor], coarse, rtol=0, atol=1e-9)


def test_strides_that_differ_between_the_axes_are_refused_by_name():
    model = backbones.ResNet(depth=18, strides=(1, 2, (1, 2), 2), **NARROW)
    with pytest.raises(ValueError, match=r'stride=\(1, 2\) differs between the axes, so it has no one output stride'):
        model.set_output_stride(8)


@pytest.mark.parametrize('mode', ['circular', 'reflect', 'replicate'])
def test_a_backbone_padded_with_its_own_samples_is_the_one_built_at_that_output_stride(mode):
    kwargs = dict(depth=18, conv_cfg=dict(type='Conv2d', padding_mode=mode), multi_grid=(1, 2), **NARROW)
    switched = randomise(backbones.ResNetV1c(output_stride=32, **kwargs)).eval()
    built = backbones.ResNetV1c(output_stride=8, **kwargs).eval()
    built.load_state_dict(switched.state_dict())
    # Built as mmseg builds it, each layer with its padding.
    for layer in (part for part in built.modules() if isinstance(part, torch.nn.Conv2d)):
        fresh = torch.nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding, padding_mode=mode
        )
        padded = [list(conv._reversed_padding_repeated_twice) for conv in (layer, fresh)]
        assert padded[0] == padded[1]
    x = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        before = switched(x)[-1]
        switched.set_output_stride(8)
        assert torch.equal(switched(x)[-1], built(x)[-1])
        switched.set_output_stride(32)
        assert torch.equal(switched(x)[-1], before)


@pytest.mark.parametrize(
    ('build', 'strides'),
    [
        (lambda: backbones.VGG16(output_stride=8), [2, 4, 8, 8, 8]),
        (lambda: backbones.VGG16(large_fov=True, out_indices=(4, 2)), [8, 8]),
        (lambda: backbones.AlignedXception(41, output_stride=16, out_indices=(0, 1, 2, 3, 4)), [2, 4, 8, 16, 16]),
        (lambda: backbones.AlignedXception(41, output_stride=8, out_indices=(4, 1)), [4, 8]),
        (lambda: backbones.ResNeSt(depth=14, output_stride=8, out_indices=(0, 3), **NARROW), [4, 8]),
    ],
)
def test_strides_of_the_features_are_those_of_what_is_returned(build, strides):
    model = build().eval()
    assert model.feature_strides == strides
    with torch.no_grad():
        assert [64 // out.shape[3] for out in model(torch.zeros(1, 3, 64, 64))] == strides
