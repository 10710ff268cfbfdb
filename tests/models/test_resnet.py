import itertools

import mmseg.models.backbones as mmseg_backbones
import pytest
import torch
from mmengine.optim import build_optim_wrapper

from mmseg_ext.models import backbones
from tests.reference.weights import randomise, relative_error

NAMES = ['ResNet', 'ResNetV1c', 'ResNetV1d']
NARROW = dict(base_channels=8, stem_channels=8)
D8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


def pair(name: str, **kwargs):
    """Ours and mmseg's, with the same random weights."""
    ours = randomise(getattr(backbones, name)(**NARROW, **kwargs))
    theirs = getattr(mmseg_backbones, name)(**NARROW, **kwargs)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_features_and_keys_equal_mmsegs(name, depth):
    ours, theirs = pair(name, depth=depth)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 65, 97)
    ours.eval(), theirs.eval()
    for a, b in zip(ours(x), theirs(x), strict=True):
        assert relative_error(a, b) <= 1e-5


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(depth=18, **D8),
        dict(depth=50, **D8),
        dict(depth=50, contract_dilation=True, **D8),
        dict(depth=50, contract_dilation=True, multi_grid=(1, 2, 4), **D8),
        dict(depth=50, style='caffe', contract_dilation=True, **D8),
        dict(depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 2)),
        dict(depth=50, in_channels=5),
        dict(depth=50, norm_cfg=dict(type='GN', num_groups=4)),
        dict(depth=50, plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')]),
    ],
)
def test_every_argument_of_mmsegs_gives_mmsegs_features_and_gradients(name, kwargs):
    ours, theirs = pair(name, **kwargs)
    x = torch.randn(2, kwargs.get('in_channels', 3), 64, 64)
    results = []
    for model in (ours, theirs):
        model.train()
        features = model(x)
        sum(f.square().mean() for f in features).backward()
        results.append((features, [p.grad for p in model.parameters()]))
    for a, b in zip(*(result[0] for result in results), strict=True):
        assert relative_error(a, b) <= 1e-5
    for a, b in zip(*(result[1] for result in results), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('style', ['pytorch', 'caffe'])
@pytest.mark.parametrize(('name', 'depth'), [*itertools.product(NAMES, [18, 50])])
def test_atrous_identity_holds_between_all_output_strides_and_the_way_back_is_exact(name, depth, style):
    model = randomise(getattr(backbones, name)(depth=depth, style=style, **NARROW)).double().eval()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    features = {}
    for output_stride in (32, 16, 8, 4, 32, 8):
        model.set_output_stride(output_stride)
        assert model.output_stride == output_stride
        out = model(x)[-1]
        assert out.shape[2:] == (64 // output_stride, 96 // output_stride)
        assert torch.equal(features.setdefault(output_stride, out), out)
    for coarse, fine in itertools.combinations((32, 16, 8, 4), 2):
        step = coarse // fine
        torch.testing.assert_close(features[fine][:, :, ::step, ::step], features[coarse], rtol=0, atol=1e-9)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('contract_dilation', [True, False])
def test_a_network_built_dense_by_mmsegs_arguments_has_its_own_features_when_coarser(name, contract_dilation):
    model = randomise(getattr(backbones, name)(depth=50, contract_dilation=contract_dilation, **D8, **NARROW))
    model.double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    dense = model(x)[-1]
    for output_stride in (16, 32):
        model.set_output_stride(output_stride)
        step = output_stride // 8
        torch.testing.assert_close(model(x)[-1], dense[:, :, ::step, ::step], rtol=0, atol=1e-9)
    model.set_output_stride(8)
    assert torch.equal(model(x)[-1], dense)


def test_built_with_an_output_stride_equals_switched_to_it():
    built = randomise(backbones.ResNetV1d(depth=18, output_stride=8, **NARROW)).eval()
    switched = backbones.ResNetV1d(depth=18, **NARROW).eval()
    switched.load_state_dict(built.state_dict())
    switched.set_output_stride(8)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(built(x)[-1], switched(x)[-1])


def test_multi_grid_multiplies_under_output_stride_and_replaces_under_dilations():
    multiplied = backbones.ResNet(depth=50, output_stride=8, multi_grid=(1, 2, 4), **NARROW)
    assert [block.conv2.dilation[0] for block in multiplied.layer4] == [2, 8, 16]
    replaced = backbones.ResNet(depth=50, multi_grid=(1, 2, 4), **D8, **NARROW)
    assert [block.conv2.dilation[0] for block in replaced.layer4] == [1, 2, 4]


@pytest.mark.parametrize(
    ('kwargs', 'output_stride', 'message'),
    [
        (dict(depth=18, **D8), 16, r'would need dilation 1/2'),
        (dict(depth=50), 12, r'output_stride=12 must be one of \[4, 8, 16, 32\]'),
        (
            dict(depth=50, plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')]),
            16,
            'plugins',
        ),
    ],
)
def test_an_output_stride_that_has_no_exact_form_is_refused_and_nothing_changes(kwargs, output_stride, message):
    model = backbones.ResNet(**kwargs, **NARROW).eval()
    x = torch.randn(1, 3, 64, 64)
    before = model(x)[-1]
    with pytest.raises(ValueError, match=message):
        model.set_output_stride(output_stride)
    assert torch.equal(model(x)[-1], before)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(depth=19), r'depth=19 must be one of \[18, 34, 50, 101, 152\]'),
        (dict(depth=18, num_stages=5), 'num_stages=5 must be 1, 2, 3 or 4'),
        (dict(depth=18, strides=(1, 2)), r'strides=\(1, 2\) and dilations=\(1, 1, 1, 1\) need 4 values'),
        (dict(depth=18, out_indices=(4,)), r'out_indices=\(4,\) must be below num_stages=4'),
        (dict(depth=18, output_stride=8, **D8), 'output_stride=8 excludes strides'),
        (dict(depth=50, style='tf'), "style='tf' must be 'pytorch' or 'caffe'"),
        (dict(depth=18, dcn=dict(type='DCN'), stage_with_dcn=(True,) * 4), 'dcn and plugins need bottleneck blocks'),
        (dict(depth=18, pretrained='x.pth', init_cfg=dict(type='Pretrained')), 'exclude each other'),
    ],
)
def test_wrong_arguments_raise_an_error_that_names_them(kwargs, message):
    with pytest.raises(ValueError, match=message):
        backbones.ResNet(**kwargs)


def test_checkpointed_blocks_give_the_same_gradients():
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    gradients = []
    state = None
    for with_cp in (False, True):
        model = backbones.ResNet(depth=50, with_cp=with_cp, **NARROW)
        state = state or model.state_dict()
        model.load_state_dict(state)
        model.train()
        model(x)[-1].square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_stages_and_norm_eval_survive_train():
    model = backbones.ResNetV1c(depth=18, frozen_stages=1, norm_eval=True, **NARROW).train()
    assert not any(p.requires_grad for part in (model.stem, model.layer1) for p in part.parameters())
    assert all(p.requires_grad for p in model.layer2.parameters())
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_stochastic_depth_rises_to_the_last_block_and_only_acts_in_training():
    model = backbones.ResNet(depth=18, drop_path_rate=0.5, **NARROW)
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for name in model.res_layers for block in getattr(model, name)]
    assert rates == pytest.approx([0.5 * i / 7 for i in range(8)])
    plain = backbones.ResNet(depth=18, **NARROW)
    plain.load_state_dict(randomise(model).state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model.eval()(x)[-1], plain.eval()(x)[-1])


def test_zero_init_residual_starts_each_block_as_its_shortcut():
    model = backbones.ResNet(depth=18, **NARROW)
    model.init_weights()
    assert all(not block.norm2.weight.any() for name in model.res_layers for block in getattr(model, name))


def test_every_parameter_gets_a_gradient():
    model = randomise(backbones.ResNetV1d(depth=50, **NARROW)).train()
    sum(f.square().mean() for f in model(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_layer_depths_are_mmpretrains():
    from mmpretrain.models.backbones import ResNet as MMPretrainResNet

    ours = backbones.ResNet(depth=50, **NARROW)
    theirs = MMPretrainResNet(depth=50, **NARROW)
    for name in (*(f'backbone.{key}' for key, _ in ours.named_parameters()), 'head.fc.weight'):
        assert ours.get_layer_depth(name, 'backbone.') == theirs.get_layer_depth(name, 'backbone.'), name


def test_base_optimizer_config_spares_norms_and_biases_and_speeds_up_heads():
    from mmseg_ext.engine.config import load_config

    cfg = load_config('configs/_base_/schedules/paramwise.py')
    model = torch.nn.Module()
    model.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model.decode_head = torch.nn.Sequential(torch.nn.Conv2d(4, 2, 1), torch.nn.BatchNorm2d(2))
    optim_wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=0.5), **cfg.optim_wrapper)
    )
    groups = {id(g['params'][0]): (g['lr'], g['weight_decay']) for g in optim_wrapper.optimizer.param_groups}
    conv, norm, head = model.backbone[0], model.backbone[1], model.decode_head[0]
    assert groups[id(conv.weight)] == pytest.approx((0.1, 0.5))
    assert groups[id(conv.bias)] == pytest.approx((0.1, 0.0))
    assert groups[id(norm.weight)] == pytest.approx((0.1, 0.0))
    assert groups[id(norm.bias)] == pytest.approx((0.1, 0.0))
    assert groups[id(head.weight)] == pytest.approx((1.0, 0.5))
    assert groups[id(head.bias)] == pytest.approx((1.0, 0.0))
    assert groups[id(model.decode_head[1].weight)] == pytest.approx((1.0, 0.0))
