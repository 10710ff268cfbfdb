"""Modes of CUDA: deterministic algorithms, and graphs of kernels."""

import pytest
import torch

from mmseg_ext.layers import streamed_cross_entropy
from tests.gpu.heads import HEADS, distance, gradients, pair_on

# mmseg's PSPHead and UPerHead pool to grids, for whose gradient torch has no deterministic kernel.
DETERMINISTIC = [name for name in HEADS if name not in ('PSPHead', 'UPerHead')]


@pytest.fixture
def _deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures('_deterministic')
@pytest.mark.parametrize('name', DETERMINISTIC)
def test_deterministic_algorithms_give_the_same_bits_twice(name, device):
    head, theirs, features = pair_on(device, name)
    grad = torch.randn_like(theirs.eval()(features))
    first, second = (gradients(head.eval(), features, grad) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    for key, expected in gradients(theirs, features, grad).items():
        assert distance(first[key], expected.double()) <= (1e-5 if key == 'logits' else 1e-2), key


@pytest.mark.usefixtures('_deterministic')
@pytest.mark.parametrize('name', DETERMINISTIC)
def test_the_loss_has_a_deterministic_gradient(name, device, budget):
    head, _, features = pair_on(device, name)
    target = torch.randint(0, 5, (2, 64, 96), device=device)
    runs = []
    for _ in range(2):
        head.zero_grad()
        streamed_cross_entropy(head.eval()(features), target, align_corners=False)[0].backward()
        runs.append([p.grad.clone() for p in head.parameters()])
    assert all(torch.equal(*grads) for grads in zip(*runs, strict=True))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', HEADS)
def test_a_captured_graph_of_a_head_replays_right(name, dtype, cuda):
    head, _, features = pair_on(cuda, name)
    head.eval()

    @torch.no_grad()
    def run(inputs: list[torch.Tensor]) -> torch.Tensor:
        # Casts that autocast keeps from before the capture would not be replayed.
        with torch.autocast('cuda', dtype, enabled=dtype != torch.float32, cache_enabled=False):
            return head(inputs)

    static = [x.clone() for x in features]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # measures, outside of the capture
            run(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = run(static)
    for place, x in zip(static, features, strict=True):
        place.copy_(2 * x)
    graph.replay()
    expected = run([2 * x for x in features])
    assert distance(logits, expected.double()) <= (1e-5 if dtype == torch.float32 else 2e-2)
