import onnxruntime
import pytest
import torch
from mmengine.runner.amp import autocast
from mmseg.models.backbones import ResNeSt as MmsegResNeSt
from torch import nn

from mmseg_ext.models.backbones import ResNeSt, ResNetV1d
from mmseg_ext.registry import MODELS
from tests.reference.resnest import (
    DEPTHS,
    OfficialResNeSt,
    TimmResNeSt,
    assert_alive,
    random_network,
    under_our_keys,
    worst_error,
)

NARROW = dict(base_channels=8, stem_channels=16)
OS8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
OS16 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
IMAGE = (2, 3, 64, 96)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(**kwargs) -> ResNeSt:
    return random_network(ResNeSt(**{**NARROW, 'depth': 26, **kwargs})).eval()


def evaluated(net: nn.Module) -> nn.Module:
    net.train(False)  # mmseg's eval() returns None
    return net


@torch.no_grad()
def check_parity(ours: ResNeSt, reference: nn.Module, state_dict: dict, tolerance: float = 1e-5) -> None:
    ours.load_state_dict(state_dict, strict=True)
    x = torch.randn(IMAGE)
    expected = evaluated(reference)(x)
    assert_alive(expected)
    assert worst_error(evaluated(ours)(x), expected) < tolerance


@pytest.mark.parametrize('dilation', [{}, OS8])
@pytest.mark.parametrize('depth', [14, 26, 50, 101, 200, 269])
def test_official_network(depth, dilation):
    reference = random_network(OfficialResNeSt(depth, radix=2, dilated=bool(dilation)))
    ours = ResNeSt(depth=depth, dilated_form='official', **NARROW, **dilation)
    check_parity(ours, reference, under_our_keys(reference.state_dict()))


@pytest.mark.parametrize('dilation', [dict(dilation=1), dict(dilation=2), dict(dilated=True)])
@pytest.mark.parametrize('avd_first', [False, True])
@pytest.mark.parametrize(('groups', 'width'), [(1, 64), (2, 32)])
@pytest.mark.parametrize('radix', [1, 2, 4])
def test_official_radix_and_cardinality(radix, groups, width, avd_first, dilation):
    reference = OfficialResNeSt(14, radix=radix, groups=groups, bottleneck_width=width, avd_first=avd_first, **dilation)
    random_network(reference)
    output_stride = 8 if 'dilated' in dilation else 32 // dilation['dilation']
    ours = ResNeSt(
        depth=14,
        radix=radix,
        groups=groups,
        base_width=width // 8,
        avd_first=avd_first,
        dilated_form='official',
        output_stride=output_stride,
        **NARROW,
    )
    check_parity(ours, reference, under_our_keys(reference.state_dict()))


@pytest.mark.parametrize(('radix', 'groups', 'width'), [(2, 1, 64), (4, 2, 40), (1, 4, 24)])
def test_official_network_at_full_width(radix, groups, width):
    reference = OfficialResNeSt(
        26, narrow=1, stem_channels=64, radix=radix, groups=groups, bottleneck_width=width, dilated=True
    )
    random_network(reference)
    ours = ResNeSt(depth=26, radix=radix, groups=groups, base_width=width, dilated_form='official', **OS8)
    check_parity(ours, reference, under_our_keys(reference.state_dict()))


@pytest.mark.parametrize('depth', [14, 26, 50, 101, 200, 269])
def test_timm_network(depth):
    reference = random_network(TimmResNeSt(depth, radix=2))
    check_parity(ResNeSt(depth=depth, **NARROW), reference, under_our_keys(reference.state_dict()))


@pytest.mark.parametrize('avd_first', [False, True])
@pytest.mark.parametrize(('radix', 'groups', 'width'), [(1, 1, 64), (4, 1, 64), (1, 2, 32), (4, 2, 32)])
def test_timm_radix_and_cardinality(radix, groups, width, avd_first):
    reference = random_network(TimmResNeSt(14, radix=radix, cardinality=groups, base_width=width, avd_first=avd_first))
    ours = ResNeSt(depth=14, radix=radix, groups=groups, base_width=width // 8, avd_first=avd_first, **NARROW)
    check_parity(ours, reference, under_our_keys(reference.state_dict()))


@pytest.mark.parametrize(
    ('depth', 'arguments'),
    [
        *((depth, arguments) for depth in (50, 101, 152, 200) for arguments in ({}, OS8)),
        (50, OS16),
        (50, dict(OS8, contract_dilation=True)),
        (50, dict(OS8, multi_grid=(1, 2, 4))),
    ],
    ids=str,
)
def test_mmseg_network(depth, arguments):
    reference = random_network(MmsegResNeSt(depth=depth, **NARROW, **arguments))
    check_parity(ResNeSt(depth=depth, **NARROW, **arguments), reference, reference.state_dict())


@pytest.mark.parametrize(
    'arguments',
    [
        dict(radix=1),
        dict(radix=4),
        dict(groups=2),
        dict(radix=4, groups=2, base_width=12, reduction_factor=2),
        dict(avg_down_stride=False),
        dict(style='caffe'),
        dict(norm_cfg=dict(type='GN', num_groups=4)),
    ],
    ids=str,
)
def test_mmseg_arguments(arguments):
    reference = random_network(MmsegResNeSt(depth=50, **NARROW, **OS8, **arguments))
    check_parity(ResNeSt(depth=50, **NARROW, **OS8, **arguments), reference, reference.state_dict())


def test_parameters_are_mmsegs_in_name_and_order():
    ours, theirs = ResNeSt(depth=50, **NARROW), MmsegResNeSt(depth=50, **NARROW)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


@pytest.mark.parametrize('radix', [1, 2, 4])
def test_training_step_is_mmsegs(radix):
    arguments = dict(depth=50, radix=radix, **NARROW, **OS8)
    reference = random_network(MmsegResNeSt(**arguments)).double()
    ours = ResNeSt(**arguments).double()
    ours.load_state_dict(reference.state_dict())
    ours.train()
    reference.train()
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    for net in (ours, reference):
        sum(out.square().mean() for out in net(x)).backward()
    for (name, ours_p), theirs_p in zip(ours.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours_p.grad, theirs_p.grad, rtol=1e-6, atol=1e-6, msg=name)
    for (name, ours_b), theirs_b in zip(ours.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours_b, theirs_b, rtol=1e-9, atol=1e-9, msg=name)


def test_forms_agree_where_nothing_is_dilated():
    nets = {form: build(dilated_form=form) for form in ('mmseg', 'official', 'exact')}
    x = torch.randn(IMAGE)
    for net in nets.values():
        net.load_state_dict(nets['mmseg'].state_dict())
    outs = {form: net(x) for form, net in nets.items()}
    for form in ('official', 'exact'):
        for out, expected in zip(outs[form], outs['mmseg'], strict=True):
            assert torch.equal(out, expected)


def test_forms_differ_where_stages_are_dilated():
    nets = {form: build(dilated_form=form, output_stride=8) for form in ('mmseg', 'official', 'exact')}
    x = torch.randn(IMAGE)
    for net in nets.values():
        net.load_state_dict(nets['mmseg'].state_dict())
    mmseg, official, exact = (net(x)[-1] for net in nets.values())
    assert mmseg.shape == official.shape == exact.shape == (2, 256, 8, 12)
    assert not torch.allclose(mmseg, official, atol=1e-2)
    assert not torch.allclose(mmseg, exact, atol=1e-2)
    assert not torch.allclose(official, exact, atol=1e-2)


@pytest.mark.parametrize(
    'arguments',
    [
        {},
        dict(avd_first=True),
        dict(avg_down_stride=False),
        dict(style='caffe'),
        dict(radix=1, groups=2),
        dict(radix=4, groups=2),
        dict(rectified_conv=True),
        dict(depth=50, multi_grid=(1, 2, 4)),
    ],
    ids=str,
)
@pytest.mark.parametrize(('coarse', 'dense'), [(32, 16), (32, 8), (16, 8), (32, 4)])
def test_a_trous_identity(coarse, dense, arguments):
    net = build(dilated_form='exact', **arguments).double()
    x = torch.randn(1, 3, 128, 64, dtype=torch.float64)
    net.set_output_stride(coarse)
    strided = net(x)
    net.set_output_stride(dense)
    assert net.output_stride == dense
    assert_alive(strided)
    for dense_out, out in zip(net(x), strided, strict=True):
        step = dense_out.shape[2] // out.shape[2]
        torch.testing.assert_close(dense_out[:, :, ::step, ::step], out, rtol=0, atol=1e-9)


@pytest.mark.parametrize('size', [(65, 97), (70, 50)])
def test_exact_form_takes_sizes_that_do_not_divide(size):
    net = build(dilated_form='exact', output_stride=8)
    out = net(torch.randn(1, 3, *size))[-1]
    assert out.shape[2:] == (-(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize('form', ['mmseg', 'official', 'exact'])
def test_output_stride_there_and_back_changes_no_bit(form):
    net = build(dilated_form=form)
    x = torch.randn(IMAGE)
    before = net(x)
    for output_stride in (8, 16, 32):
        net.set_output_stride(output_stride)
    for out, expected in zip(net(x), before, strict=True):
        assert torch.equal(out, expected)


def test_exact_form_takes_mmsegs_arguments():
    by_stride = build(dilated_form='exact', output_stride=8)
    by_dilations = build(dilated_form='exact', **OS8)
    by_dilations.load_state_dict(by_stride.state_dict())
    x = torch.randn(IMAGE)
    assert torch.equal(by_stride(x)[-1], by_dilations(x)[-1])


def test_mmseg_form_by_output_stride_contracts():
    by_stride = build(output_stride=8)
    by_dilations = build(contract_dilation=True, **OS8)
    by_dilations.load_state_dict(by_stride.state_dict())
    x = torch.randn(IMAGE)
    assert torch.equal(by_stride(x)[-1], by_dilations(x)[-1])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(dilated_form='other'), "dilated_form='other' must be one of"),
        (dict(depth=34), 'depth=34 must be one of'),
        (dict(radix=0), 'radix=0 must be 1 or more'),
        (dict(dilated_form='exact', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 2)), 'dilations that follow from'),
        (dict(dilated_form='exact', output_stride=8, **OS8), 'output_stride=8 excludes strides'),
        (dict(output_stride=8, multi_grid=(1, 2)), "use dilated_form='exact'"),
        (dict(output_stride=8, **OS8), 'excludes strides and dilations'),
        (dict(output_stride=12), 'output_stride=12 must be one of'),
        (dict(rectified_conv=True, conv_cfg=dict(type='Conv2d')), 'both choose'),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNeSt(**{**NARROW, 'depth': 26, **arguments})


@pytest.mark.parametrize('form', ['mmseg', 'official', 'exact'])
def test_every_parameter_gets_a_gradient(form):
    net = build(dilated_form=form, output_stride=8).train()
    sum(out.mean() for out in net(torch.randn(IMAGE))).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_batch_of_one_in_training_names_the_layer_and_the_remedy():
    net = build().train()
    with pytest.raises(ValueError, match=r'SplAtConv2d\.bn1: .*\(1, 32, 1, 1\).*norm_eval=True'):
        net(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize('arguments', [dict(norm_eval=True), dict(norm_cfg=dict(type='GN', num_groups=4))], ids=str)
def test_batch_of_one_trains_with_each_remedy(arguments):
    net = build(**arguments).train()
    net(torch.randn(1, 3, 64, 64))[-1].mean().backward()
    assert net.layer1[0].conv2.fc1.weight.grad is not None


def test_synchronised_batch_norm_from_a_config_runs_on_one_cpu_process():
    net = MODELS.build(
        dict(type='ResNeSt', depth=14, norm_cfg=dict(type='SyncBN', requires_grad=True), output_stride=8, **NARROW)
    ).train()
    assert isinstance(net.layer1[0].conv2.bn0, nn.SyncBatchNorm)
    net(torch.randn(IMAGE))[-1].mean().backward()
    assert net.layer4[0].conv2.bn0.weight.grad is not None


def saved_bytes(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the last features, and the bytes of the tensors that autograd keeps for the backward pass."""
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = net(x)[-1]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    return out, sum(storages.values())


@pytest.mark.parametrize('dilated_form', ['mmseg', 'exact'])
def test_recomputed_blocks_keep_less_and_have_the_same_gradients(dilated_form):
    arguments = dict(dilated_form=dilated_form, output_stride=8)
    plain, recomputed = build(**arguments).double().train(), build(with_cp=True, **arguments).double().train()
    recomputed.load_state_dict(plain.state_dict())
    x = torch.randn(IMAGE, dtype=torch.float64)
    sizes = []
    for net in (plain, recomputed):
        out, size = saved_bytes(net, x)
        out.square().mean().backward()
        sizes.append(size)
    assert sizes[1] < 0.6 * sizes[0], sizes
    for ours, expected in zip(recomputed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-9, atol=1e-9)


def test_drop_path_and_drop_block_act_in_training_only():
    net = build(drop_path_rate=0.5, dropblock_prob=0.3)
    plain = build()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(IMAGE)
    assert torch.equal(net(x)[-1], plain(x)[-1])
    net.train()
    assert not torch.equal(net(x)[-1], net(x)[-1])
    net(x)[-1].mean().backward()
    assert [type(net.layer2[0].drop_block), net.layer3[0].drop_block.drop_prob] == [nn.Identity, 0.3]


@pytest.mark.parametrize('form', ['mmseg', 'exact'])
def test_bfloat16_and_channels_last_stay_close(form):
    net = build(dilated_form=form, output_stride=8)
    x = torch.randn(IMAGE)
    expected = net(x)[-1]
    channels_last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))[-1]
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last, expected, rtol=1e-4, atol=1e-4)
    with autocast(device_type='cpu', dtype=torch.bfloat16):
        half = net(x)[-1]
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.filterwarnings('ignore')  # what the exporters say of themselves
@pytest.mark.parametrize('form', ['mmseg', 'exact'])
def test_traced_and_exported_networks_run_at_another_size(form, tmp_path):
    net = build(depth=14, dilated_form=form, output_stride=8, out_indices=(3,)).requires_grad_(False)
    x, other = torch.randn(IMAGE), torch.randn(1, 3, 72, 64)
    expected = net(other)[-1]
    torch.testing.assert_close(torch.jit.trace(net, x)(other)[-1], expected)
    file, axes = tmp_path / 'net.onnx', {'x': {0: 'batch', 2: 'height', 3: 'width'}}
    torch.onnx.export(net, (x,), file, input_names=['x'], dynamic_axes=axes, dynamo=False)
    (out,) = onnxruntime.InferenceSession(file).run(None, {'x': other.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), expected, rtol=1e-4, atol=1e-4)


def test_shortcut_pool_is_resnet_v1ds():
    assert [type(layer) for layer in build().layer2[0].downsample] == [
        type(layer) for layer in ResNetV1d(depth=50, **NARROW).layer2[0].downsample
    ]


def test_all_depths_of_the_issue_exist():
    assert {depth: blocks for depth, (_, blocks) in ResNeSt.arch_settings.items()} == DEPTHS
