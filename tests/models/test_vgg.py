import itertools

import pytest
import torch
import torchvision
from torch import nn

from mmseg_ext.models.backbones import VGG16
from mmseg_ext.registry import MODELS
from tests.reference.weights import randomise, relative_error

BN = dict(type='BN')


def geometry(model: VGG16) -> list[tuple[int, int]]:
    """Stride and dilation of each stage's last convolution and of its pool."""
    layers = [layer for layer in model.features if hasattr(layer, 'stride')]
    pools = [i for i, layer in enumerate(layers) if not isinstance(layer, nn.Conv2d)]
    return [(layers[i - 1].stride[0], layers[i - 1].dilation[0], layers[i].stride, layers[i].dilation) for i in pools]


def caffe_large_fov() -> nn.Sequential:
    """The released network in torch's layers: pools of 3x3 that round up, as Caffe's do."""
    layers, channels = [], 3
    for width, convs, pool_stride, dilation in (
        (64, 2, 2, 1), (128, 2, 2, 1), (256, 3, 2, 1), (512, 3, 1, 1), (512, 3, 1, 2),
    ):  # fmt: skip
        for _ in range(convs):
            layers += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(3, pool_stride, 1, ceil_mode=True))
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ('norm_cfg', 'reference'), [(None, torchvision.models.vgg16), (BN, torchvision.models.vgg16_bn)]
)
def test_features_and_keys_are_those_of_torchvision(norm_cfg, reference):
    reference = randomise(reference().features).eval()
    model = VGG16(norm_cfg=norm_cfg).eval()
    model.load_state_dict({f'features.{key}': value for key, value in reference.state_dict().items()}, strict=True)
    x = torch.randn(2, 3, 75, 50)
    with torch.no_grad():
        outs = model(x)
        assert relative_error(outs[-1], reference(x)) <= 1e-5
    assert [tuple(out.shape) for out in outs] == [
        (2, 64, 37, 25), (2, 128, 18, 12), (2, 256, 9, 6), (2, 512, 4, 3), (2, 512, 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize('size', [33, 65])
def test_large_fov_with_torchvision_weights_is_the_released_network(size):
    reference = caffe_large_fov()
    model = VGG16(large_fov=True)
    model.features.load_state_dict(reference.state_dict(), strict=True)
    with torch.no_grad():
        x = torch.randn(1, 3, size, size)
        assert model(x)[-1].shape == (1, 512, (size - 1) // 8 + 1, (size - 1) // 8 + 1)
        assert relative_error(model(x)[-1], reference(x)) <= 1e-5
    assert list(model.state_dict()) == [f'features.{key}' for key in torchvision.models.vgg16().features.state_dict()]
    assert model.output_stride == 8


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (dict(), [(1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 2, 1)]),
        (dict(output_stride=16), [(1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 1, 1)]),
        (dict(output_stride=8), [(1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 1, 1), (1, 2, 1, 2)]),
        (dict(large_fov=True), [(1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 1, 1), (1, 2, 1, 1)]),
        (
            dict(large_fov=True, output_stride=4),
            [(1, 1, 2, 1), (1, 1, 2, 1), (1, 1, 1, 1), (1, 2, 1, 2), (1, 4, 1, 2)],
        ),
    ],
)
def test_strides_and_dilations_of_convolutions_and_pools(arguments, expected):
    assert geometry(VGG16(**arguments)) == expected


@pytest.mark.parametrize(
    ('arguments', 'output_stride', 'sizes'),
    [
        (dict(), 32, [32, 16, 8, 4, 2]),
        (dict(), 16, [32, 16, 8, 4, 4]),
        (dict(), 8, [32, 16, 8, 8, 8]),
        (dict(with_last_pool=False), 16, [32, 16, 8, 4, 4]),
        (dict(with_last_pool=False), 8, [32, 16, 8, 8, 8]),
        (dict(large_fov=True), 8, [32, 16, 8, 8, 8]),
        (dict(large_fov=True, with_last_pool=False), 16, [32, 16, 8, 4, 4]),
    ],
)
def test_shapes_for_each_output_stride(arguments, output_stride, sizes):
    model = VGG16(output_stride=output_stride, **arguments)
    with torch.no_grad():
        outs = model(torch.randn(1, 3, 64, 64))
    assert [out.shape[1:] for out in outs] == [
        (channels, size, size) for channels, size in zip((64, 128, 256, 512, 512), sizes, strict=True)
    ]
    assert model.output_stride == output_stride


@pytest.mark.parametrize(
    ('arguments', 'output_strides'),
    [
        (dict(norm_cfg=BN), (32, 16, 8, 4)),
        (dict(with_last_pool=False), (16, 8)),
        (dict(large_fov=True), (8, 4)),
        (dict(large_fov=True, with_last_pool=False), (16, 8, 4)),
    ],
)
def test_dense_features_subsampled_equal_the_strided_ones_and_the_way_back_is_bit_equal(arguments, output_strides):
    model = randomise(VGG16(**arguments)).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    outs = {}
    with torch.no_grad():
        for output_stride in output_strides:
            model.set_output_stride(output_stride)
            outs[output_stride] = model(x)
        for coarse, fine in itertools.combinations(output_strides, 2):
            for strided, dense in zip(outs[coarse], outs[fine], strict=True):
                factor = dense.shape[2] // strided.shape[2]
                assert relative_error(dense[:, :, ::factor, ::factor], strided) < 1e-9
        model.set_output_stride(output_strides[0])
        assert all(map(torch.equal, model(x), outs[output_strides[0]]))


def test_large_fov_refuses_to_become_coarser_because_of_its_last_pooling():
    model = VGG16(large_fov=True)
    before = geometry(model)
    with pytest.raises(ValueError, match=r'MaxPool2d.*would need dilation 1/2'):
        model.set_output_stride(16)
    assert geometry(model) == before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(out_indices=(5,)), r'out_indices=\(5,\)'),
        (dict(frozen_stages=6), 'frozen_stages=6'),
        (dict(output_stride=12), r'output_stride=12 must be one of \[1, 2, 4, 8, 16, 32\]'),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VGG16(**arguments)


def test_every_parameter_gets_a_gradient_and_checkpointing_does_not_change_it():
    cfg = dict(type='mmseg_ext.VGG16', norm_cfg=BN, output_stride=8, in_channels=4)
    model = MODELS.build(cfg)
    model.init_weights()
    checkpointed = MODELS.build(dict(cfg, with_cp=True))
    checkpointed.load_state_dict(model.state_dict())
    x = torch.randn(2, 4, 32, 32, requires_grad=True)
    for network in (model, checkpointed):
        sum(out.square().mean() for out in network(x)).backward()
    for one, other in zip(model.parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(other.grad, one.grad)


def test_frozen_stages_and_normalisation_stay_in_evaluation_mode():
    model = VGG16(norm_cfg=BN, frozen_stages=2, norm_eval=True).train()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained[0] == 'features.14.weight'
    assert not any(layer.training for layer in model.features if isinstance(layer, nn.BatchNorm2d))
    assert [layer.training for layer in model.features if isinstance(layer, nn.Conv2d)] == [False] * 4 + [True] * 9


def test_layer_depth_counts_the_stages():
    model = VGG16(norm_cfg=BN)
    names = [f'backbone.features.{i}.weight' for i in (0, 4, 7, 14, 24, 34, 41)] + ['decode_head.conv_seg.weight']
    assert [model.get_layer_depth(name, 'backbone.') for name in names] == [
        (0, 6), (0, 6), (1, 6), (2, 6), (3, 6), (4, 6), (4, 6), (5, 6),
    ]  # fmt: skip
