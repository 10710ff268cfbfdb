"""The convolution below the upsampling, and the choice where to convolve, on a device."""

import time

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg_ext.layers import measured, pyramid_conv2d
from mmseg_ext.layers.measured import measured_choice
from tests.gpu.heads import autocast, distance

SIZES = [(12, 16), (6, 8), (5, 7), (3, 3), (1, 1)]
WAYS = {'all': [True] * 5, 'some': [False, True, False, True, True], 'none': [False] * 5}


def example(device, kernel_size: int, batch: int = 2) -> list[Tensor]:
    """Return bias, weight and levels."""
    levels = [torch.randn(batch, 32, *size, device=device) for size in SIZES]
    weight = torch.randn(12, 32 * len(SIZES), kernel_size, kernel_size, device=device)
    return [torch.randn(12, device=device), weight, *levels]


def plain(bias: Tensor, weight: Tensor, *levels: Tensor, dilation: int = 1, align_corners: bool = False) -> Tensor:
    """Upsample, concatenate, convolve."""
    size = levels[0].shape[2:]
    maps = [F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners) for x in levels]
    padding = weight.shape[2] // 2 * dilation
    return F.conv2d(torch.cat(maps, 1), weight, bias, padding=padding, dilation=dilation)


def ours(bias: Tensor, weight: Tensor, *levels: Tensor, **options) -> Tensor:
    return pyramid_conv2d(levels, weight, bias, **options)


def with_gradients(run, inputs: list[Tensor], **options) -> list[Tensor]:
    """Return the result and the gradients of the inputs for one and the same of the result."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = run(*inputs, **options)
    grad = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


@pytest.mark.parametrize('below', WAYS)
@pytest.mark.parametrize('options', [{}, dict(dilation=2, align_corners=True)], ids=str)
@pytest.mark.parametrize('kernel_size', [1, 3])
def test_each_way_is_the_plain_form_in_float64(kernel_size, options, below, device):
    inputs = [x.double() for x in example(device, kernel_size)]
    results = with_gradients(ours, inputs, below=WAYS[below], **options)
    for result, expected in zip(results, with_gradients(plain, inputs, **options), strict=True):
        assert distance(result, expected) <= 1e-10


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('below', [*WAYS, None])
def test_each_way_is_as_exact_as_the_plain_form(below, dtype, device):
    inputs = example(device, 3)
    exact = with_gradients(plain, [x.double() for x in inputs])
    with autocast(device, dtype):
        results, others = with_gradients(ours, inputs, below=WAYS.get(below)), with_gradients(plain, inputs)
    assert results[0].dtype == dtype
    for result, other, value in zip(results, others, exact, strict=True):
        assert distance(result, value) <= 3 * distance(other, value) + 1e-5


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize('below', WAYS)
def test_an_infinite_pixel_stays_where_the_plain_form_has_it(below, dtype, device):
    inputs = example(device, 3)
    inputs[3][0, 4, 5, 7] = torch.inf
    with autocast(device, dtype):
        finite, expected = (x.isfinite() for x in (ours(*inputs, below=WAYS[below]), plain(*inputs)))
    assert torch.equal(finite, expected)
    assert 0 < (~expected[0]).sum() < expected[0].numel() / 4
    assert expected[1].all()


def test_the_choice_is_measured_once_for_each_kind_of_call(cuda):
    weight = torch.randn(256, 512, 3, 3, device=cuda)
    levels = [torch.randn(2, 256, side, side, device=cuda) for side in (128, 32)]
    expected = plain(None, weight, *levels)
    for _ in range(2):
        assert distance(pyramid_conv2d(levels, weight), expected.double()) <= 1e-5
    assert len(measured._choices) == 1
    pyramid_conv2d([x[:1] for x in levels], weight)
    assert len(measured._choices) == 2
    with torch.no_grad():
        pyramid_conv2d(levels, weight)
    assert len(measured._choices) == 3


def test_the_fastest_way_is_chosen(device):
    x = torch.ones(8, device=device, requires_grad=True)
    ways = [lambda: (time.sleep(0.02), 2 * x)[1], lambda: 2 * x]
    assert measured_choice('key', ways, [x]) == 1
    assert measured_choice('other', ways[::-1], [x]) == 0
    assert x.grad is None


def test_deterministic_algorithms_take_the_first_way_unmeasured(device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    assert measured_choice('key', [None, None], [torch.ones(1, device=device)]) == 0
    assert not measured._choices


def test_while_a_graph_is_captured_the_first_way_is_taken_unmeasured(cuda):
    x = torch.ones(8, device=cuda)
    torch.cuda.synchronize()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        assert measured_choice('key', [None, None], [x]) == 0
        x + 1
    assert not measured._choices
