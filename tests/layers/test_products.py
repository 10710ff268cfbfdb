import torch

from mmseg_ext.layers import streamed_cross_entropy
from mmseg_ext.layers.products import may_multiply, without_autocast


@without_autocast
def depth(n: int) -> list[bool]:
    return [torch.is_autocast_enabled('cpu'), *(depth(n - 1) if n else [])]


def test_autocast_is_off_in_nested_calls_and_on_behind_them():
    with torch.autocast('cpu', torch.bfloat16):
        assert depth(2) == [False] * 3
        assert torch.is_autocast_enabled('cpu')
        assert torch.get_autocast_dtype('cpu') == torch.bfloat16
    assert not torch.is_autocast_enabled('cpu')


def test_behind_a_streamed_loss_autocast_is_on_as_before():
    logits, target = torch.randn(1, 3, 4, 4, requires_grad=True), torch.zeros(1, 32, 32, dtype=torch.long)
    with torch.autocast('cpu', torch.float16):
        streamed_cross_entropy(logits, target, align_corners=False)[0].backward()
        assert torch.is_autocast_enabled('cpu')
        assert torch.get_autocast_dtype('cpu') == torch.float16


def test_matrices_are_multiplied_where_that_is_exact_and_finite_alone():
    x = torch.ones(2, 2)
    assert may_multiply(x, x)
    assert not may_multiply(x, x / 0)
    assert not may_multiply(x.to('meta'))
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ('high', 'medium'):
            torch.set_float32_matmul_precision(precision)
            assert not may_multiply(x)
    finally:
        torch.set_float32_matmul_precision(before)
    assert may_multiply(x)
