import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mmseg_ext.layers import PyramidConv2d, pyramid_conv2d
from mmseg_ext.layers.pyramid_level import Placing

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def plain(levels, weight, bias=None, *, size=None, dilation=1, align_corners=False):
    size = levels[0].shape[2:] if size is None else size
    maps = [F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners) for x in levels]
    return F.conv2d(torch.cat(maps, 1), weight, bias, padding=weight.shape[2] // 2 * dilation, dilation=dilation)


def make_levels(sizes, channels, batch=1, dtype=torch.float64, memory_format=torch.contiguous_format):
    return [
        torch.randn(batch, c, *size, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
        for size, c in zip(sizes, channels, strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    size=SIZES,
    sizes=st.lists(SIZES, min_size=1, max_size=4),
    kernel_size=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 4),
    align_corners=st.booleans(),
    batch=st.integers(1, 2),
    with_bias=st.booleans(),
    channels_last=st.booleans(),
    out_channels=st.sampled_from([1, 3, 130]),
)
def test_output_and_gradients_are_those_of_the_plain_form(
    data, size, sizes, kernel_size, dilation, align_corners, batch, with_bias, channels_last, out_channels
):
    channels = [data.draw(st.integers(1, 4)) for _ in sizes]
    below = [data.draw(st.booleans()) for _ in sizes]
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    levels = make_levels(sizes, channels, batch, memory_format=memory_format)
    weight = torch.randn(out_channels, sum(channels), kernel_size, kernel_size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(out_channels, dtype=torch.float64, requires_grad=True) if with_bias else None
    inputs = [*levels, weight, *([bias] if with_bias else [])]
    options = dict(size=size, dilation=dilation, align_corners=align_corners)
    results = [pyramid_conv2d(levels, weight, bias, below=below, **options), plain(levels, weight, bias, **options)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)
    grad = torch.randn_like(results[0]) / results[0].numel() ** 0.5
    gradients = [torch.autograd.grad(result, inputs, grad, retain_graph=True) for result in results]
    gradients.append(torch.autograd.grad(results[0], inputs, grad, create_graph=True))
    for ours, theirs, differentiable in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
        torch.testing.assert_close(differentiable, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize('kernel_size', [1, 3])
@pytest.mark.parametrize('align_corners', [True, False])
def test_first_and_second_derivatives_pass_the_numerical_check(kernel_size, align_corners):
    levels = make_levels([(5, 6), (1, 1), (3, 2)], [2, 1, 2])
    weight = torch.randn(2, 5, kernel_size, kernel_size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def run(a, b, c, weight, bias):
        return pyramid_conv2d([a, b, c], weight, bias, align_corners=align_corners, below=[False, True, True])

    assert torch.autograd.gradcheck(run, (*levels, weight, bias))
    assert torch.autograd.gradgradcheck(run, (*levels, weight, bias))


def test_levels_that_need_no_gradient_get_none():
    levels = make_levels([(6, 6), (2, 2)], [2, 2])
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    levels[0].requires_grad_(False)
    pyramid_conv2d(levels, weight, below=[False, True]).sum().backward()
    assert levels[0].grad is None
    assert levels[1].grad.shape == (1, 2, 2, 2)


def psp_levels(dtype, **kwargs):
    sizes = [(24, 32), (1, 1), (2, 2), (3, 3), (6, 6)]
    levels = make_levels(sizes, [16, 64, 64, 64, 64], dtype=torch.float32, **kwargs)
    return [level.detach().relu().to(dtype) for level in levels], (torch.randn(16, 272, 3, 3) / 50).to(dtype)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('forced', [False, True])
def test_half_precision_is_as_exact_as_the_plain_form(dtype, autocast, memory_format, forced):
    levels, weight = psp_levels(dtype, batch=2, memory_format=memory_format)
    expected = plain([x.double() for x in levels], weight.double())
    if autocast:
        levels, weight = [x.float() for x in levels], weight.float()
    below = [False, True, True, True, True] if forced else None
    with torch.autocast('cpu', dtype=dtype, enabled=autocast):
        results = [pyramid_conv2d(levels, weight, below=below), plain(levels, weight)]
    assert all(result.dtype == dtype for result in results)
    errors = [(result.double() - expected).abs() for result in results]
    assert errors[0].max() <= errors[1].max()
    assert errors[0].square().mean() <= errors[1].square().mean()


def test_half_precision_chooses_pixel_maps_for_small_levels_and_trains():
    levels, weight = psp_levels(torch.bfloat16)
    parts = [x.clone().requires_grad_() for x in levels], weight.clone().requires_grad_()
    pyramid_conv2d(*parts).float().square().mean().backward()
    exact = [x.double().requires_grad_() for x in levels], weight.double().requires_grad_()
    plain(*exact).square().mean().backward()
    for ours, theirs in zip([*parts[0], parts[1]], [*exact[0], exact[1]], strict=True):
        assert (ours.grad.double() - theirs.grad).abs().max() <= 0.03 * theirs.grad.abs().max()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_compiled_function_gives_the_same(dtype):
    levels, weight = psp_levels(dtype)
    below = [False, True, True, True, True]
    compiled = torch.compile(pyramid_conv2d, backend='aot_eager', fullgraph=True)
    expected = pyramid_conv2d(levels, weight, below=below)
    # A compiler may round intermediate results in half precision differently.
    tolerance = dict(rtol=1e-5, atol=1e-4) if dtype == torch.float32 else dict(rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(compiled(levels, weight, below=below), expected, **tolerance)


class FourLevels(torch.nn.Module):
    """Two levels that pay below the upsampling, and two that don't."""

    def __init__(self):
        super().__init__()
        self.conv = PyramidConv2d([8, 64, 64, 4], 64)

    def forward(self, a, b, c, d):
        return self.conv([a, b, c, d])


def four_levels():
    sizes = [(64, 64), (8, 8), (4, 4), (64, 64)]
    return tuple(x.detach() for x in make_levels(sizes, [8, 64, 64, 4], dtype=torch.float32))


def test_exported_program_works_below_the_upsampling_and_gives_the_same():
    module, levels = FourLevels().eval(), four_levels()
    program = torch.export.export(module, levels)
    torch.testing.assert_close(program.module()(*levels), module(*levels), rtol=1e-5, atol=1e-5)
    convolutions = [node for node in program.graph.nodes if 'aten.conv2d' in str(node.target)]
    assert (9 * 64, 8, 8) in {tuple(node.meta['val'].shape[1:]) for node in convolutions}


def test_exported_program_takes_other_sizes_where_sizes_are_left_open():
    module = FourLevels().eval()
    wide = torch.export.Dim('width', min=16, max=512)
    dynamic = [{3: wide}, None, None, {3: wide}]
    program = torch.export.export(module, four_levels(), dynamic_shapes=dynamic)
    levels = [torch.randn(1, c, h, w) for c, h, w in ((8, 64, 96), (64, 8, 8), (64, 4, 4), (4, 64, 96))]
    torch.testing.assert_close(program.module()(*levels), module(*levels), rtol=1e-5, atol=1e-5)


def test_onnx_model_gives_the_same(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    module, levels = FourLevels().eval(), four_levels()
    path = tmp_path / 'conv.onnx'
    torch.onnx.export(module, levels, str(path), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path))
    inputs = {x.name: level.numpy() for x, level in zip(session.get_inputs(), levels, strict=True)}
    result = torch.from_numpy(session.run(None, inputs)[0])
    torch.testing.assert_close(result, module(*levels), rtol=1e-4, atol=1e-4)


def test_layer_has_the_parameters_of_the_convolution_over_the_concatenation():
    layer = PyramidConv2d([3, 5], 4, kernel_size=3, dilation=2, align_corners=True)
    conv = torch.nn.Conv2d(8, 4, 3, padding=2, dilation=2)
    conv.load_state_dict(layer.state_dict(), strict=True)
    levels = [torch.randn(2, 3, 9, 8), torch.randn(2, 5, 4, 3)]
    upsampled = F.interpolate(levels[1], size=(9, 8), mode='bilinear', align_corners=True)
    torch.testing.assert_close(layer(levels), conv(torch.cat([levels[0], upsampled], 1)), rtol=1e-5, atol=1e-5)


def test_choice_follows_the_arithmetic():
    def saves(low, size, kernel_size, channels, out_channels):
        return Placing(low, size, kernel_size, 1, False).saves(1, channels, out_channels)

    assert saves((64, 64), (128, 128), 3, 512, 512)
    assert saves((1, 1), (64, 64), 3, 512, 512)
    assert not saves((128, 128), (128, 128), 3, 512, 512)
    assert not saves((200, 128), (128, 128), 3, 512, 512)
    assert not saves((126, 126), (128, 128), 3, 512, 512)
    assert not saves((4, 4), (8, 8), 3, 8, 8)
    assert not saves((64, 64), (128, 128), 1, 4, 512)


def test_what_inference_mode_has_cached_can_be_trained_with():
    levels, weight = make_levels([(40, 40), (7, 7)], [2, 2]), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    with torch.inference_mode():
        pyramid_conv2d(levels, weight, below=[False, True])
    grads = torch.autograd.grad(pyramid_conv2d(levels, weight, below=[False, True]).sum(), levels, create_graph=True)
    sum(grad.sum() for grad in grads)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((4, 9, 3, 3), r'\[3, 5\] channels, in sum 8, the weight 9'),
        ((4, 8, 2, 2), 'must be square and odd'),
        ((4, 8, 3, 1), 'must be square and odd'),
    ],
)
def test_weights_that_do_not_fit_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        pyramid_conv2d([torch.randn(1, 3, 4, 4), torch.randn(1, 5, 2, 2)], torch.randn(shape))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_an_infinite_number_in_a_level_reaches_no_more_than_torch_lets_it(dtype):
    levels = [torch.rand(1, 4, 16, 20), torch.rand(1, 4, 4, 5), torch.rand(1, 4, 2, 2)]
    levels[1][0, 2, 1, 1] = torch.inf
    levels, weight = [x.to(dtype) for x in levels], torch.randn(3, 12, 3, 3).to(dtype)
    expected = plain(levels, weight)
    out = pyramid_conv2d(levels, weight, below=[False, True, True])
    finite = expected.isfinite()
    assert 0.3 < finite.float().mean() < 1
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(out[finite], expected[finite], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('large', [2000.0, 60000.0])
def test_a_tap_that_float16_cannot_hold_spoils_nothing_that_it_has_no_part_in(large):
    levels = [torch.rand(1, 4, 16, 20), torch.rand(1, 8, 2, 2)]
    levels[1][0, 0, 0, 0] = large
    levels, weight = [x.half() for x in levels], torch.randn(3, 12, 3, 3).half()
    weight[0, 4] = 60
    exact = plain([x.double() for x in levels], weight.double())
    out = pyramid_conv2d(levels, weight, below=[False, True])
    assert exact.abs().max() > 65504
    representable = exact.abs() < 60000
    assert out[representable].isfinite().all()
    errors = [(result.double() - exact)[representable].abs() for result in (out, plain(levels, weight))]
    assert errors[0].max() <= 2 * errors[1][errors[1].isfinite()].max()


def test_users_who_reduce_the_precision_of_products_keep_their_setting_and_get_exact_interpolations():
    levels, weight = make_levels([(64, 64), (16, 16)], [4, 64], dtype=torch.float32), torch.randn(64, 68, 3, 3)
    exact = plain([x.double() for x in levels], weight.double())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('medium')
    try:
        results = [pyramid_conv2d(levels, weight, below=[False, True]), plain(levels, weight)]
        assert torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.set_float32_matmul_precision(before)
    errors = [(result.double() - exact).abs().max() for result in results]
    assert errors[0] <= 2 * errors[1]


def test_one_input_that_is_a_function_of_another_has_the_right_gradient_of_its_gradient():
    x, weight = torch.randn(1, 4, 8, 8, dtype=torch.float64, requires_grad=True), torch.randn(3, 8, 3, 3).double()
    results = []
    for function in (
        lambda levels: pyramid_conv2d(levels, weight, below=[False, True]),
        lambda levels: plain(levels, weight),
    ):
        out = function([x, F.avg_pool2d(x, 4)]).square().sum()
        (first,) = torch.autograd.grad(out, x, create_graph=True)
        results.append((first.detach(), *torch.autograd.grad(first.square().sum(), x)))
    torch.testing.assert_close(*results)
