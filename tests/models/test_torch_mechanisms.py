"""What torch does to modules, done to our heads and to mmseg's of the same name: the same comes out.

Heads that mmseg lacks stand beside themselves with every level upsampled.
"""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from mmseg_ext.layers import PyramidConv2d, pyramid_conv
from mmseg_ext.models import decode_heads
from tests.models.head_parity import ARGUMENTS, convolve_every_level_at_its_own_size, pair
from tests.reference.weights import randomise, relative_error

LEVELS = dict(in_channels=[4, 6, 8], in_index=[0, 1, 2])
LAST = dict(in_channels=8, in_index=2)
HEADS = {
    'PSPHead': dict(LAST, pool_scales=(1, 2)),
    'ASPPHead': dict(LAST, dilations=(1, 2)),
    'DepthwiseSeparableASPPHead': dict(LAST, dilations=(1, 2), c1_in_channels=4, c1_channels=4),
    'FCNHead': dict(LEVELS, input_transform='resize_concat', num_convs=1),
    'UPerHead': dict(LEVELS, pool_scales=(1, 2)),
    'SegformerHead': dict(LEVELS),
    'DeepLabV3PlusHead': dict(LAST, dilations=(1, 2), low_level_in_channels=4, low_level_channels=4),
    'DeepLabV2Head': dict(LAST, dilations=(1, 2), hidden_channels=4),
    'LargeFOVHead': dict(LAST, dilation=2),
}
OURS_ALONE = ('DeepLabV3PlusHead', 'DeepLabV2Head', 'LargeFOVHead')
every_head = pytest.mark.parametrize('name', HEADS)


@pytest.fixture(autouse=True)
def _below_the_upsampling(monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)


class Plain(nn.Module):
    """A head whose convolutions see every level upsampled."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, features: list[Tensor]) -> Tensor:
        original = pyramid_conv._saves
        pyramid_conv._saves = lambda *_: False
        try:
            return self.head(features)
        finally:
            pyramid_conv._saves = original


def head_and_reference(name: str) -> tuple[nn.Module, nn.Module]:
    if name not in OURS_ALONE:
        return tuple(head.double().eval() for head in pair(name, dropout_ratio=0, **HEADS[name]))
    arguments = {**ARGUMENTS, 'dropout_ratio': 0, **HEADS[name]}
    if name == 'DeepLabV2Head':
        arguments.pop('channels')
    ours = randomise(getattr(decode_heads, name)(**arguments)).double().eval()
    return ours, Plain(copy.deepcopy(ours))


def inner(head: nn.Module) -> nn.Module:
    return head.head if isinstance(head, Plain) else head


def features(batch: int = 2, scale: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(scale)
    sizes = ((4, 12, 16), (6, 6, 8), (8, 3, 4))
    return [
        torch.randn(batch, c, scale * h, scale * w, dtype=torch.float64, generator=generator).to(dtype)
        for c, h, w in sizes
    ]


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-9) -> None:
    assert theirs.isfinite().all()
    assert theirs.abs().max() > 0
    assert relative_error(ours, theirs) <= tolerance


def assert_steps_agree(heads: tuple[nn.Module, nn.Module], steps: int = 2) -> None:
    """Train both; outputs, gradients and what becomes of the parameters must agree."""
    x = [one.requires_grad_() for one in features()]
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.1) for head in heads]
    for _ in range(steps):
        outs = [head.train()(x) for head in heads]
        assert_close(*outs)
        for out, optimizer in zip(outs, optimizers, strict=True):
            optimizer.zero_grad()
            out.square().mean().backward()
        theirs = dict(inner(heads[1]).named_parameters())
        for key, parameter in heads[0].named_parameters():
            largest = max(theirs[key].grad.abs().max(), 1e-3)
            assert (parameter.grad - theirs[key].grad).abs().max() <= 1e-8 * largest, key
        for optimizer in optimizers:
            optimizer.step()


def convolutions(head: nn.Module) -> list[nn.Conv2d]:
    return [module for module in head.modules() if isinstance(module, nn.Conv2d)]


def _prune(conv: nn.Conv2d) -> None:
    prune.l1_unstructured(conv, 'weight', amount=0.5)


def _parametrise_spectral(conv: nn.Conv2d) -> None:
    torch.manual_seed(0)
    parametrizations.spectral_norm(conv)


def _spectral(conv: nn.Conv2d) -> None:
    torch.manual_seed(0)
    spectral_norm(conv)


RECOMPUTED_WEIGHTS: dict[str, Callable[[nn.Conv2d], object]] = {
    'prune': _prune,
    'weight_norm': weight_norm,
    'spectral_norm': _spectral,
    'parametrised weight_norm': parametrizations.weight_norm,
    'parametrised spectral_norm': _parametrise_spectral,
}


@pytest.mark.parametrize('how', RECOMPUTED_WEIGHTS)
@pytest.mark.filterwarnings('ignore:.*weight_norm.*:FutureWarning')
@every_head
def test_weights_that_are_computed_anew_in_every_step(name, how):
    heads = head_and_reference(name)
    for head in heads:
        for conv in convolutions(head):
            RECOMPUTED_WEIGHTS[how](conv)
    assert_steps_agree(heads)
    for head in heads:
        head.eval()
    state = {key.removeprefix('head.'): value for key, value in heads[1].state_dict().items()}
    heads[0].load_state_dict(state, strict=True)
    with torch.no_grad():
        assert_close(heads[0](features()), heads[1](features()))


@every_head
def test_every_module_is_called_so_that_hooks_fire(name):
    fired = []
    for head in head_and_reference(name):
        names = set()
        for key, module in inner(head).named_modules():
            module.register_forward_hook(lambda *_, key=key, names=names: names.add(key))
        head(features())
        fired.append(names)
    assert fired[0] >= fired[1]
    own = {key for key, module in head_and_reference(name)[0].named_modules() if list(module.parameters(recurse=False))}
    assert fired[0] >= own


@every_head
def test_a_hook_on_a_convolution_changes_what_follows(name):
    heads = head_and_reference(name)
    for head in heads:
        for conv in convolutions(head):
            conv.register_forward_hook(lambda module, args, out: out * 1.5)
    assert_steps_agree(heads, steps=1)


@every_head
def test_functional_call_uses_the_parameters_that_it_is_given(name):
    ours, theirs = head_and_reference(name)
    parameters = {key: (1.3 * value).detach().requires_grad_() for key, value in ours.named_parameters()}
    results = []
    for head, prefix in ((ours, ''), (theirs, 'head.' if isinstance(theirs, Plain) else '')):
        out = functional_call(head, {prefix + key: value for key, value in parameters.items()}, (features(),))
        results.append((out, torch.autograd.grad(out.square().mean(), list(parameters.values()))))
    assert_close(results[0][0], results[1][0])
    for key, a, b in zip(parameters, results[0][1], results[1][1], strict=True):
        assert (a - b).abs().max() <= 1e-8 * max(b.abs().max(), 1e-3), key


@every_head
def test_derivatives_of_torch_func(name):
    ours, theirs = head_and_reference(name)
    x = features()
    direction = [torch.randn_like(one) for one in x]

    def loss(head):
        return lambda *maps: head(list(maps)).square().mean()

    for a, b in zip(*(grad(loss(head), argnums=(0, 1, 2))(*x) for head in (ours, theirs)), strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(1, b.abs().max())
    outs = [jvp(lambda *maps, head=head: head(list(maps)), tuple(x), tuple(direction)) for head in (ours, theirs)]
    assert_close(outs[0][1], outs[1][1])
    outs = [vmap(lambda *maps, head=head: head([m[None] for m in maps])[0])(*x) for head in (ours, theirs)]
    assert_close(*outs)
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(*both) for both in zip(x, direction, strict=True)]
        tangents = [forward_ad.unpack_dual(head(dual)).tangent for head in (ours, theirs)]
    assert_close(*tangents)


@every_head
def test_second_derivatives_and_batches_of_gradients(name):
    x = [one.requires_grad_() for one in features()]
    results = []
    for head in head_and_reference(name):
        out = head(x).square().mean()
        (first,) = torch.autograd.grad(out, [x[2]], create_graph=True)
        second = torch.autograd.grad(first.square().sum(), x, allow_unused=True)
        out = head(x)
        vectors = torch.stack([torch.ones_like(out), torch.linspace(-1, 1, out.numel()).view_as(out).to(out)])
        batch = torch.autograd.grad(out, [x[2]], vectors, is_grads_batched=True)
        results.append([*(one for one in second if one is not None), *batch])
    for a, b in zip(*results, strict=True):
        assert_close(a, b, 1e-7)


@every_head
def test_copies_and_pickles(name):
    ours, theirs = head_and_reference(name)
    expected = theirs(features())
    assert_close(copy.deepcopy(ours)(features()), expected)
    assert_close(pickle.loads(pickle.dumps(ours))(features()), expected)
    assert_steps_agree((copy.deepcopy(ours), theirs), steps=1)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore:.*torch.jit.*')
@every_head
def test_a_trace_takes_another_size(name):
    ours, theirs = head_and_reference(name)
    traced = torch.jit.trace(ours, (features(),), check_trace=False)
    assert_close(traced(features(1, 3)), theirs(features(1, 3)))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning', 'ignore::UserWarning')
@pytest.mark.parametrize('dynamo', [False, True])
def test_onnx_models(dynamo, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    # All heads as one model, because an export takes seconds, and twice the size, because pools have to divide it.
    heads, x, path = AllHeads().float().eval(), features(1, 2, torch.float32), str(tmp_path / 'heads.onnx')
    torch.onnx.export(heads, tuple(x), path, dynamo=dynamo, **({} if dynamo else dict(opset_version=17)))
    session = onnxruntime.InferenceSession(path)
    outs = session.run(None, {i.name: one.numpy() for i, one in zip(session.get_inputs(), x, strict=True)})
    for out, expected in zip(outs, heads(*x), strict=True):
        assert_close(torch.from_numpy(out), expected.detach(), 1e-4)


class AllHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(head_and_reference(name)[0] for name in HEADS)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return [head(list(maps)) for head in self.heads]


@pytest.mark.parametrize('training', [False, True])
@every_head
def test_compiles_in_one_graph(name, training):
    torch._dynamo.reset()
    ours, theirs = (head.train(training) for head in head_and_reference(name))
    compiled = torch.compile(ours, backend='eager', fullgraph=True)
    outs = [head(features()) for head in (compiled, theirs)]
    assert_close(*outs)
    if training:
        for out in outs:
            out.square().mean().backward()
        conv = [convolutions(head)[0].weight.grad for head in (ours, theirs)]
        assert_close(*conv, 1e-7)


@every_head
def test_exports_with_sizes_left_open(name):
    ours, theirs = head_and_reference(name)
    if name == 'UPerHead':
        sizes = [{2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}] * 3
    else:
        height, width = torch.export.Dim('height', min=2, max=64), torch.export.Dim('width', min=2, max=64)
        sizes = [{2: 4 * height, 3: 4 * width}, {2: 2 * height, 3: 2 * width}, {2: height, 3: width}]
    program = torch.export.export(ours, (features(),), dynamic_shapes=(sizes,), strict=False)
    assert_close(program.module()(features(2, 3)), theirs(features(2, 3)))


@every_head
def test_runs_without_numbers(name):
    ours, _ = head_and_reference(name)
    expected = ours(features()).shape
    assert copy.deepcopy(ours).to('meta')([one.to('meta') for one in features()]).shape == expected
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [mode.from_tensor(one) for one in features()]
        assert ours(fake).shape == expected


@pytest.mark.parametrize('use_reentrant', [False, True])
@every_head
def test_activations_that_are_computed_again(name, use_reentrant):
    ours, theirs = head_and_reference(name)
    x = [one.requires_grad_() for one in features()]

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = ours

        def forward(self, maps):
            return checkpoint(lambda *maps: self.head(list(maps)), *maps, use_reentrant=use_reentrant)

    outs = [head(x) for head in (Checkpointed(), theirs)]
    grads = [
        torch.autograd.grad(out.square().mean(), convolutions(inner(head))[0].weight, allow_unused=True)
        if not use_reentrant
        else (out.square().mean().backward(), convolutions(inner(head))[0].weight.grad)[1:]
        for out, head in zip(outs, (ours, theirs), strict=True)
    ]
    assert_close(grads[0][0], grads[1][0])


@every_head
def test_trains_after_inference_mode(name):
    heads = head_and_reference(name)
    with torch.inference_mode():
        assert_close(*(head(features()) for head in heads))
    assert_steps_agree(heads)


@every_head
def test_channels_last(name):
    ours, theirs = head_and_reference(name)
    x = [one.contiguous(memory_format=torch.channels_last) for one in features()]
    assert_close(copy.deepcopy(ours).to(memory_format=torch.channels_last)(x), theirs(features()))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@every_head
def test_autocast(name, dtype):
    ours, theirs = head_and_reference(name)
    expected = theirs(features())
    x = features(dtype=torch.float32)
    errors = []
    for head in (ours, theirs):
        with torch.autocast('cpu', dtype), torch.no_grad():
            out = head.float()(x)
        assert out.dtype == dtype
        errors.append((out.double() - expected).square().mean().sqrt())
    assert errors[0] <= 1.5 * errors[1]


def test_convolutions_over_levels_are_pyramid_convolutions_in_the_heads_that_have_levels():
    # Or the tests above compare a form of no interest.
    for name in set(HEADS) - {'DeepLabV2Head', 'LargeFOVHead'}:
        assert any(isinstance(module, PyramidConv2d) for module in head_and_reference(name)[0].modules()), name
