import copy
import threading
from functools import partial

import pytest
import timm
import torch
import torchvision
from mmpretrain.models import ResNet as PretrainResNet
from mmpretrain.models import ResNetV1d as PretrainResNetV1d
from mmseg.models.backbones import ResNetV1c
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mmseg_ext.layers import AvgPool2d, rewrite, rewrite_dilation
from tests.reference.weights import randomise, relative_error

STAGES = ('layer1', 'layer2', 'layer3', 'layer4')
SMALL = (1, 2, 2, 2)
REWRITABLE = {
    'torchvision resnet18': torchvision.models.resnet18,
    'torchvision resnet50': torchvision.models.resnet50,
    'torchvision resnext': lambda: torchvision.models.ResNet(Bottleneck, SMALL, groups=32, width_per_group=4),
    'torchvision wide resnet': lambda: torchvision.models.ResNet(Bottleneck, (1, 1, 1, 1), width_per_group=128),
    'timm resnet18': lambda: timm.create_model('resnet18'),
    'timm resnet26d': lambda: timm.create_model('resnet26d'),
    'timm resnet50d': lambda: timm.create_model('resnet50d', layers=SMALL),
    'timm resnetaa50d': lambda: timm.create_model('resnetaa50d', layers=SMALL),
    'timm features only': lambda: timm.create_model('resnet18', features_only=True),
    'mmpretrain ResNet': lambda: PretrainResNet(depth=18),
    'mmpretrain ResNet caffe': lambda: PretrainResNet(depth=50, base_channels=32, style='caffe'),
    'mmpretrain ResNetV1d': lambda: PretrainResNetV1d(depth=50, base_channels=32),
    'mmseg ResNetV1c': lambda: ResNetV1c(depth=50, base_channels=32),
}


def stage_features(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    outs = []
    handles = [
        getattr(module, name).register_forward_hook(lambda stage, args, out: outs.append(out.clone()))
        for name in STAGES
    ]
    with torch.no_grad():
        module(x)
    for handle in handles:
        handle.remove()
    return outs


def geometry(module: nn.Module) -> list[tuple]:
    return [
        (name, type(layer), str(layer))
        for name, layer in module.named_modules()
        if not list(layer.children()) and hasattr(layer, 'stride')
    ]


@pytest.mark.parametrize('name', REWRITABLE)
def test_dense_features_subsampled_equal_the_strided_ones_and_the_way_back_is_bit_equal(name):
    module = randomise(REWRITABLE[name]()).double()
    module.eval()
    keys = list(module.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    strided = {32: stage_features(module, x)}
    for output_stride in (16, 8):
        rewrite_dilation(module, output_stride)
        strided[output_stride] = stage_features(module, x)
        assert strided[output_stride][-1].shape[2:] == (64 // output_stride, 64 // output_stride)
    for fine, dense_stages in strided.items():
        for coarse, coarse_stages in strided.items():
            if fine < coarse:
                for dense, expected in zip(dense_stages, coarse_stages, strict=True):
                    factor = dense.shape[2] // expected.shape[2]
                    assert relative_error(dense[:, :, ::factor, ::factor], expected) < 1e-9
    for output_stride in (8, 32):
        rewrite_dilation(module, output_stride)
        for out, expected in zip(stage_features(module, x), strided[output_stride], strict=True):
            assert torch.equal(out, expected)
    assert list(module.state_dict()) == keys


def test_torchvision_rewritten_is_what_torchvision_builds_dilated():
    module = torchvision.models.resnet50()
    rewrite_dilation(module, 8)
    built = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    convs = [[str(layer) for layer in m.modules() if isinstance(layer, nn.Conv2d)] for m in (module, built)]
    assert convs[0] == convs[1]
    assert module.layer4[0].conv2.dilation == (2, 2)
    assert module.layer4[1].conv2.dilation == (4, 4)


def test_a_network_built_dilated_can_become_denser_and_return():
    module = ResNetV1c(depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    module.eval()
    before = stage_features(module, torch.ones(1, 3, 64, 64))
    rewrite_dilation(module, 4)
    assert module.layer4[0].conv1.dilation == (8, 8)
    dense = stage_features(module, torch.ones(1, 3, 64, 64))
    assert [tuple(out.shape[2:]) for out in dense] == [(16, 16)] * 4
    rewrite_dilation(module, 8)
    assert all(map(torch.equal, stage_features(module, torch.ones(1, 3, 64, 64)), before))


def test_pools_are_exchanged_once_and_modes_weights_and_random_state_stay():
    module = timm.create_model('resnet26d')
    module.layer2.eval()
    modes = [layer.training for layer in module.modules()]
    weights = {name: (parameter, parameter.clone()) for name, parameter in module.named_parameters()}
    state = torch.get_rng_state()
    rewrite_dilation(module, 8)
    pool = module.layer3[0].downsample[0]
    assert isinstance(pool, AvgPool2d)
    rewrite_dilation(module, 16)
    assert module.layer3[0].downsample[0] is pool
    assert [layer.training for layer in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in module.named_parameters():
        assert parameter is weights[name][0]
        assert torch.equal(parameter, weights[name][1])


def with_hooks_of_an_object_that_cannot_be_copied(module: nn.Module) -> list:
    lock, calls = threading.Lock(), []

    def watch(*args):
        with lock:
            calls.append(args)

    for part in module.modules():
        part.register_forward_pre_hook(partial(watch, lock))
        part.register_forward_hook(watch)
    return calls


def attributes(module: nn.Module) -> list[tuple[nn.Module, dict]]:
    return [(part, dict(vars(part))) for part in module.modules()]


def test_the_proof_fires_no_hooks_and_needs_no_copies_of_them():
    module = timm.create_model('resnet26d')
    calls = with_hooks_of_an_object_that_cannot_be_copied(module)
    rewrite_dilation(module, 16)
    assert calls == []
    assert module.layer4[1].conv2.dilation == (2, 2)
    module.eval()(torch.randn(1, 3, 32, 32))
    assert calls


def test_a_stem_behind_other_convolutions_is_found():
    module = torchvision.models.resnet18()
    module._modules = {'lateral': nn.Conv2d(64, 8, 1), **module._modules}
    rewrite_dilation(module, 16)
    assert module.layer4[1].conv2.dilation == (2, 2)


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_whatever_is_raised_on_the_way_the_module_is_as_before(error, monkeypatch):
    class Failing(nn.Conv2d):
        armed = False

        def __setattr__(self, name, value):
            if name == 'dilation' and self.armed:
                raise error('on the way')
            super().__setattr__(name, value)

    module = timm.create_model('resnet26d')
    module.layer4[1].conv2.__class__ = Failing
    before = attributes(module)
    # The proof is through when the module itself is changed.
    monkeypatch.setattr(rewrite, '_check_identity', lambda *args: setattr(Failing, 'armed', True))
    with pytest.raises(error, match='on the way'):
        rewrite_dilation(module, 16)
    assert attributes(module) == before


def resnet_padded_with(mode: str) -> nn.Module:
    module = torchvision.models.resnet18()
    for conv in (part for part in module.modules() if isinstance(part, nn.Conv2d)):
        conv.padding_mode = mode
    return module.double().eval()


def test_circular_padding_stays_exact():
    module = resnet_padded_with('circular')
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    strided = stage_features(module, x)[-1]
    rewrite_dilation(module, 8)
    assert relative_error(stage_features(module, x)[-1][:, :, ::4, ::4], strided) < 1e-9
    rewrite_dilation(module, 32)
    assert torch.equal(stage_features(module, x)[-1], strided)


class SamplingConv(torchvision.ops.DeformConv2d):
    """A deformable convolution that finds its offsets itself."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv.in_channels, conv.out_channels, 3, conv.stride, 1)
        self.offset = nn.Conv2d(conv.in_channels, 18, 3, conv.stride, 1)

    def forward(self, x):
        return super().forward(x, self.offset(x))


def deformable_resnet() -> nn.Module:
    module = torchvision.models.resnet18()
    module.layer4[1].conv2 = SamplingConv(module.layer4[1].conv2)
    return module


class Slicing(nn.Module):
    def forward(self, x):
        return x[:, :, ::2, ::2].repeat(1, 2, 1, 1)


class FunctionalShortcut(BasicBlock):
    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + x[:, :, ::2, ::2].repeat(1, 2, 1, 1))


def with_lock(module: nn.Module) -> nn.Module:
    module.lock = threading.Lock()
    return module


def unable() -> nn.Module:
    module = torchvision.models.resnet18()
    module.relu = nn.Module()
    return module


def with_shortcut_of_its_own(in_block: bool) -> nn.Module:
    module = torchvision.models.resnet18()
    if in_block:
        module.layer4[0] = FunctionalShortcut(256, 512, stride=2)
    else:
        module.layer4[0].downsample = Slicing()
    return module


REFUSED = {
    'padding that takes other samples': (lambda: resnet_padded_with('reflect'), 8, 'layer3 is the first stage'),
    'what cannot be copied': (
        lambda: with_lock(torchvision.models.resnet18()),
        8,
        'ResNet cannot be copied for a trial run',
    ),
    'it cannot run': (unable, 8, r'ResNet does not run on an image of 96x96 \(NotImplementedError'),
    'no stages': (torchvision.models.mobilenet_v2, 8, 'MobileNetV2 has no stages layer1'),
    'missing stride': (torchvision.models.resnet18, 64, r'output_stride=64 must be one of \[4, 8, 16, 32\]'),
    'attention at its zero start': (lambda: timm.create_model('seresnet18'), 16, 'layer4 is the first.*hold SEModule'),
    'blurred sampling': (lambda: timm.create_model('resnetblur50'), 8, r'BlurPool2d\(\) cannot be dilated exactly'),
    'group normalisation': (lambda: timm.create_model('resnet50_gn'), 8, 'layer3 is the first.*hold GroupNorm'),
    'split attention': (lambda: timm.create_model('resnest14d'), 8, 'layer4 is the first.*hold SplitAttn'),
    'parallel strides': (lambda: timm.create_model('res2net50_26w_4s'), 8, 'layer2.0 has 4 layers with a stride'),
    'deformable': (deformable_resnet, 16, 'SamplingConv.*cannot be dilated exactly'),
    'shortcut without layer': (
        lambda: with_shortcut_of_its_own(False),
        8,
        r'layer4.0 has paths with the strides \[1, 2',
    ),
    'shortcut in the code': (lambda: with_shortcut_of_its_own(True), 8, 'does not run once its layers are rewritten'),
    'mmseg built dilated': (
        lambda: ResNetV1c(depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        16,
        'output_stride=16: the network was built dilated, for 8',
    ),
    'torchvision built dilated': (
        lambda: torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]),
        32,
        'output_stride=32: the network was built dilated, for 8',
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_exact_is_refused_with_the_reason_and_left_as_it_was(name):
    build, output_stride, reason = REFUSED[name]
    module = build()
    before, state = geometry(module), copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=reason):
        rewrite_dilation(module, output_stride)
    assert geometry(module) == before
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
