"""On an accelerator every operator is a launch and every look at a number is a wait: few of both.

Counted on the meta device, which computes as an accelerator does, without numbers.
"""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_ext.layers import Resampling, measured, pyramid_conv, resampling, streamed_cross_entropy, streamed_labels
from mmseg_ext.layers.measured import measured_choice
from mmseg_ext.models import decode_heads

_FREE = ('empty', 'detach', 'promote_types')
_WAITS = ('aten._local_scalar_dense', 'aten.nonzero', 'aten.equal')


class Counting(TorchDispatchMode):
    """Count operators that are no views, and those that wait for the device."""

    def __init__(self):
        super().__init__()
        self.operators = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and func.overloadpacket.__name__ not in _FREE:
            self.operators[func.name()] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.operators.values())

    def assert_few(self) -> None:
        assert self.total < 30, self.operators
        assert not any(name.startswith(_WAITS) for name in self.operators), self.operators


@pytest.mark.parametrize('options', [{}, dict(class_weight=[1.0] * 19, avg_non_ignore=True)])
def test_loss_and_its_gradient(options):
    logits = torch.empty(4, 19, 64, 128, device='meta', requires_grad=True)
    target = torch.empty(4, 512, 1024, dtype=torch.int64, device='meta')
    with Counting() as counting:
        loss, _ = streamed_cross_entropy(logits, target, align_corners=False, **options)
        loss.backward()
    counting.assert_few()


def test_labels():
    logits = torch.empty(1, 19, 64, 128, device='meta')
    chain = Resampling((64, 128)).resize((512, 1024), False).resize((1024, 2048), False)
    with Counting() as counting:
        labels, _ = streamed_labels(logits, chain, probability=True)
    assert labels.shape == (1, 1024, 2048)
    counting.assert_few()


def test_bottleneck_of_upernet_and_its_gradient():
    head = decode_heads.UPerHead(
        in_channels=[256, 512, 1024, 2048], in_index=[0, 1, 2, 3], channels=512, num_classes=19
    )
    head = head.to('meta')
    levels = [torch.empty(2, 512, 128 >> i, 128 >> i, device='meta', requires_grad=True) for i in range(4)]
    with Counting() as counting:
        head._over(head.fpn_bottleneck, levels).sum().backward()
    counting.assert_few()


def test_maps_of_an_accelerator_are_whole_up_to_a_number_of_bytes():
    maps = torch.empty(4, 19, 64, 128, device='meta')
    assert resampling.fits_one_tile(maps, (512, 1024))
    assert not resampling.fits_one_tile(maps, (2048, 4096))
    assert not resampling.fits_one_tile(torch.empty(4, 19, 64, 128), (512, 1024))


@pytest.fixture
def choices(monkeypatch):
    monkeypatch.setattr(measured, '_choices', {})
    return measured._choices


def test_the_fastest_way_is_taken_and_measured_once(choices, monkeypatch):
    x, runs = torch.ones(2, requires_grad=True), []
    clock = iter(range(10**6))

    def way(name: str, ticks: int):
        def run():
            runs.append(name)
            for _ in range(ticks):
                next(clock)
            return 2 * x

        return run

    monkeypatch.setattr(measured.time, 'perf_counter', lambda: next(clock))
    ways = [way('slow', 9), way('fast', 3), way('slower', 20)]
    assert measured_choice('key', ways, [x]) == 1
    count = len(runs)
    assert measured_choice('key', ways, [x]) == 1
    assert len(runs) == count
    assert measured_choice('another', ways[::-1], [x]) == 1
    with torch.no_grad():
        measured_choice('key', ways, [x])
    assert len(choices) == 3
    assert x.grad is None


def test_nothing_is_measured_where_every_run_must_be_the_same(choices):
    torch.use_deterministic_algorithms(True)
    try:
        assert measured_choice('key', [None, None], [torch.ones(1)]) == 0
    finally:
        torch.use_deterministic_algorithms(False)
    assert not choices


def test_an_accelerator_takes_what_was_measured(monkeypatch):
    # Any device that is no CPU; the numbers stay here.
    levels = [torch.randn(1, 4, 16, 16), torch.randn(1, 4, 4, 4)]
    weight = torch.randn(3, 8, 3, 3)
    placings = [pyramid_conv.Placing(tuple(x.shape[2:]), (16, 16), 3, 1, False) for x in levels]
    for index, expected in enumerate(([False, False], [False, True])):
        monkeypatch.setattr(pyramid_conv, 'measured_choice', lambda *_, index=index: index)
        assert pyramid_conv._measured(print, [False, True], [*levels, weight], placings) == expected
    meta = [x.to('meta') for x in (*levels, weight)]
    assert pyramid_conv._measured(print, [False, True], meta, placings) == [False, False]
