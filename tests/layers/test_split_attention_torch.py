"""Split attention under what torch does to modules: the same as mmseg's plain operators, with their weights."""

import copy
import io
import pickle
from collections.abc import Callable

import onnxruntime
import pytest
import torch
from mmseg.models.backbones.resnest import SplitAttentionConv2d
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from mmseg_ext.layers import SplAtConv2d

LAYERS = ('conv', 'bn0', 'fc1', 'bn1', 'fc2')


def pair(dtype: torch.dtype = torch.float64) -> tuple[SplAtConv2d, SplitAttentionConv2d]:
    """Ours and mmseg's in training mode, with the same weights."""
    theirs = SplitAttentionConv2d(8, 8, 3, padding=1, groups=2, radix=2)
    for norm in (theirs.bn0, theirs.bn1):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    ours = SplAtConv2d(8, 8, 3, padding=1, groups=2, radix=2)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.to(dtype), theirs.to(dtype)


def image(height: int = 6, width: int = 7, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, 8, height, width, dtype=dtype, generator=torch.Generator().manual_seed(1))


def gradients(layer: nn.Module, run: Callable = lambda layer, x: layer(x)) -> list[Tensor]:
    """Output and gradients of one backward pass."""
    x = image(dtype=next(layer.parameters()).dtype).requires_grad_()
    out = run(layer, x)
    return [out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])]


def two_steps(layer: nn.Module) -> list[Tensor]:
    """Output and parameters after two steps of training."""
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        layer(image()).square().mean().backward()
        optimizer.step()
    return [layer(image()), *layer.parameters()]


def pruned(layer: nn.Module) -> list[Tensor]:
    for name in ('conv', 'bn0'):
        prune.l1_unstructured(getattr(layer, name), 'weight', amount=0.5)
    return two_steps(layer)


def reparametrised(change: Callable[[nn.Module], object]) -> Callable[[nn.Module], list[Tensor]]:
    def run(layer: nn.Module) -> list[Tensor]:
        for name in ('conv', 'fc1', 'fc2'):
            torch.manual_seed(0)  # spectral norm begins at random
            change(getattr(layer, name))
        return two_steps(layer)

    return run


class Exponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def parametrised_norm(layer: nn.Module) -> list[Tensor]:
    parametrize.register_parametrization(layer.bn0, 'weight', Exponential())
    return two_steps(layer)


class ShiftedNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.5


def subclass_of_norm(layer: nn.Module) -> list[Tensor]:
    layer.bn0.__class__ = ShiftedNorm
    return gradients(layer)


def hooked(layer: nn.Module) -> list[Tensor]:
    calls = []
    for name in LAYERS:
        getattr(layer, name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        getattr(layer, name).register_forward_hook(lambda module, inputs, out: out * 1.5)
    results = gradients(layer)
    assert calls == list(LAYERS)
    return results


def functional(layer: nn.Module) -> list[Tensor]:
    weights = {name: (1.5 * p).detach().requires_grad_() for name, p in layer.named_parameters()}
    out = functional_call(layer, weights, image())
    return [out, *torch.autograd.grad(out.square().sum(), list(weights.values()))]


def func_grad(layer: nn.Module) -> list[Tensor]:
    weights = dict(layer.eval().named_parameters())
    return list(grad(lambda weights: functional_call(layer, weights, image()).square().sum())(weights).values())


def per_sample_gradients(layer: nn.Module) -> list[Tensor]:
    weights = dict(layer.eval().named_parameters())

    def loss(weights: dict, x: Tensor) -> Tensor:
        return functional_call(layer, weights, x[None]).square().sum()

    return list(vmap(grad(loss), (None, 0))(weights, image()).values())


def func_jvp(layer: nn.Module) -> list[Tensor]:
    return list(jvp(layer.eval(), (image(),), (image() + 1,)))


def dual_numbers(layer: nn.Module) -> list[Tensor]:
    with forward_ad.dual_level():
        return list(forward_ad.unpack_dual(layer(forward_ad.make_dual(image(), image() + 1))))


def double_backward(layer: nn.Module) -> list[Tensor]:
    x = image().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).pow(3).mean(), x, create_graph=True)
    return list(torch.autograd.grad(first.square().sum(), [x, *layer.parameters()]))


def twice_backward(layer: nn.Module) -> list[Tensor]:
    loss = layer(image()).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return [p.grad for p in layer.parameters()]


def inference_then_training(layer: nn.Module) -> list[Tensor]:
    with torch.inference_mode():
        out = layer(image())
    return [out.clone(), *gradients(layer)]


def channels_last(layer: nn.Module) -> list[Tensor]:
    layer = layer.to(memory_format=torch.channels_last)
    return gradients(layer, lambda layer, x: layer(x.to(memory_format=torch.channels_last)))


def bias_changed_before_backward(layer: nn.Module) -> list[Tensor]:
    out = layer(image())
    with torch.no_grad():
        layer.bn0.bias.fill_(7)
    return list(torch.autograd.grad(out.square().sum(), [layer.conv.weight, layer.bn0.weight, layer.bn0.bias]))


CASES = dict(
    pruned=pruned,
    weight_norm=reparametrised(parametrizations.weight_norm),
    weight_norm_by_hook=reparametrised(weight_norm),
    spectral_norm=reparametrised(parametrizations.spectral_norm),
    spectral_norm_by_hook=reparametrised(spectral_norm),
    parametrised_norm=parametrised_norm,
    subclass_of_norm=subclass_of_norm,
    hooked=hooked,
    functional_call=functional,
    func_grad=func_grad,
    per_sample_gradients=per_sample_gradients,
    jvp=func_jvp,
    dual_numbers=dual_numbers,
    deepcopy=lambda layer: two_steps(copy.deepcopy(layer)),
    pickle=lambda layer: two_steps(pickle.loads(pickle.dumps(layer))),
    checkpoint=lambda layer: gradients(layer, lambda layer, x: checkpoint(layer, x, use_reentrant=False)),
    double_backward=double_backward,
    twice_backward=twice_backward,
    inference_then_training=inference_then_training,
    channels_last=channels_last,
    bias_changed_before_backward=bias_changed_before_backward,
    compiled=lambda layer: gradients(layer, torch.compile(lambda layer, x: layer(x), **COMPILER)),
)
COMPILER = dict(backend='aot_eager', fullgraph=True)


@pytest.mark.filterwarnings('ignore:.*weight_norm.* is deprecated:FutureWarning')
@pytest.mark.parametrize('case', list(CASES))
def test_results_are_those_of_plain_operators(case):
    ours, theirs = pair()
    results, expected = CASES[case](ours), CASES[case](theirs)
    assert len(results) == len(expected) > 0
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, rtol=1e-9, atol=1e-9)
    for result, value in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(result, value, rtol=1e-9, atol=1e-9)


def test_reentrant_checkpoint_accumulates_the_same_gradients():
    layers = pair()
    for layer in layers:
        checkpoint(layer, image().requires_grad_(), use_reentrant=True).square().sum().backward()
    for ours, theirs in zip(*(layer.parameters() for layer in layers), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)


def test_a_weight_of_the_norm_changed_before_the_backward_pass_is_refused():
    for layer in pair():
        out = layer(image()).sum()
        with torch.no_grad():
            layer.bn0.weight.add_(1)
        with pytest.raises(RuntimeError, match='modified by an inplace operation'):
            out.backward()


def test_bfloat16_autocast_stays_close_and_trains_every_parameter():
    ours, _ = pair(torch.float32)
    expected, *_ = gradients(ours)
    with torch.autocast('cpu', torch.bfloat16):
        out, *grads = gradients(ours)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().max() < 0.03 * expected.abs().max()
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in grads)


def onnx(layer: nn.Module, x: Tensor, **options) -> Callable[[Tensor], Tensor]:
    file = io.BytesIO()
    torch.onnx.export(layer, (x,), file, input_names=['x'], verbose=False, **options)
    session = onnxruntime.InferenceSession(file.getvalue())
    return lambda x: torch.from_numpy(session.run(None, {'x': x.numpy()})[0])


AXES = {0: 'batch', 2: 'height', 3: 'width'}
DIMS = ({axis: torch.export.Dim(name, min=2) for axis, name in AXES.items()},)
RECORDERS = dict(
    trace=torch.jit.trace,
    compile=lambda layer, x: torch.compile(layer, dynamic=True, **COMPILER),
    export=lambda layer, x: torch.export.export(layer, (x,), dynamic_shapes=DIMS).module(),
    onnx=lambda layer, x: onnx(layer, x, dynamo=True, dynamic_shapes=DIMS),
    onnx_of_torchscript=lambda layer, x: onnx(layer, x, dynamo=False, dynamic_axes={'x': AXES}),
    vmap=lambda layer, x: vmap(lambda x: layer(x[None])[0]),
)


@pytest.mark.filterwarnings('ignore')  # what the exporters say of themselves
@pytest.mark.parametrize('density', [1, 2])
@pytest.mark.parametrize('recorder', list(RECORDERS))
def test_a_layer_recorded_at_one_size_runs_at_others(recorder, density):
    layer, _ = pair(torch.float32)
    layer.eval().requires_grad_(False)
    layer.pool.dilation = density
    recorded = RECORDERS[recorder](layer, image(10, 12, dtype=torch.float32))
    for size in ((6, 8), (9, 5)):
        x = image(*size, dtype=torch.float32)[:2]
        torch.testing.assert_close(recorded(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('density', [1, 2])
@pytest.mark.parametrize('training', [False, True])
def test_shapes_without_values(density, training):
    ours, _ = pair()
    ours.train(training).pool.dilation = density
    expected = ours(image()).shape
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert ours(mode.from_tensor(image())).shape == expected
    out = ours.to('meta')(image().to('meta').requires_grad_())
    out.sum().backward()
    assert out.shape == expected
    assert all(p.grad.is_meta for p in ours.parameters())
