import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mmseg_ext.layers import resampling
from mmseg_ext.layers.resampling import Resampling, stream_tiles


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Cut these small maps into many tiles as well."""
    monkeypatch.setattr(resampling, '_TILE_COLUMNS', 7)
    monkeypatch.setattr(resampling, '_CPU_TILE_BYTES', 600)


def run(x: Tensor, chain: Resampling) -> Tensor:
    out = x.new_full((*x.shape[:2], *chain.out_size), torch.nan)
    for (image, rows, columns), tile in stream_tiles(x, chain):
        out[image, :, rows, columns] = tile
    return out


def apply(x: Tensor, chain: Resampling, step: tuple) -> tuple[Tensor, Resampling]:
    """Apply one step with torch, and add it to the chain."""
    name, arguments = step
    if name == 'resize':
        size, align_corners = arguments
        x = F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)
        return x, chain.resize(size, align_corners)
    if name == 'flip':
        horizontal, vertical = arguments
        axes = [axis for axis, flipped in ((3, horizontal), (2, vertical)) if flipped]
        return x.flip(axes), chain.flip(horizontal, vertical)
    height, width = x.shape[2:]
    top, bottom, left, right = (n % size for n, size in zip(arguments, (height, height, width, width), strict=True))
    bottom, right = min(bottom, height - 1 - top), min(right, width - 1 - left)
    return x[:, :, top : height - bottom, left : width - right], chain.crop(top, bottom, left, right)


SIDE = st.integers(1, 40)
STEP = st.one_of(
    st.tuples(st.just('resize'), st.tuples(st.tuples(SIDE, SIDE), st.booleans())),
    st.tuples(st.just('flip'), st.tuples(st.booleans(), st.booleans())),
    st.tuples(st.just('crop'), st.tuples(*[st.integers(0, 9)] * 4)),
)


@settings(max_examples=100, deadline=None)
@given(SIDE, SIDE, st.lists(STEP, max_size=5))
def test_any_chain_of_steps_is_torchs(height, width, steps):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected, chain = x, Resampling((height, width), torch.float64)
    for step in steps:
        expected, chain = apply(expected, chain, step)
    assert chain.in_size == (height, width)
    torch.testing.assert_close(run(x, chain), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('size', 'out'), [((9, 65), (70, 523)), ((64, 128), (375, 500)), ((40, 300), (333, 291))])
def test_positions_are_rounded_as_torch_rounds_them(size, out, align_corners):
    x = torch.rand(1, 2, *size)
    expected = F.interpolate(x, size=out, mode='bilinear', align_corners=align_corners)
    torch.testing.assert_close(run(x, Resampling(size).resize(out, align_corners)), expected, rtol=0, atol=1e-6)


def test_each_block_reads_only_the_rows_that_it_needs():
    rows, _ = Resampling((100, 1)).resize((800, 1), False).tiles(1, torch.empty(0))
    assert [block.last - block.first for block in rows[:2]] == [20, 20]
    assert rows[0].matrix.shape == (150, 20)


def test_an_axis_without_interpolation_has_no_matrix():
    rows, columns = Resampling((100, 20)).resize((100, 40), False).crop(3, 4, 0, 0).tiles(1, torch.empty(0))
    assert all(block.matrix is None for block in rows)
    assert (rows[0].first, rows[0].last) == (3, 3 + 21)
    assert all(block.matrix is not None for block in columns)


@pytest.mark.parametrize('size', [(5, 6), (20, 30)])
def test_gradients_of_the_blocks_are_their_transposes(size):
    chain = Resampling((5, 6), torch.float64).flip(True, False).resize(size, False)
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    grad = torch.zeros_like(x)
    weight = torch.randn(3, *size, dtype=torch.float64)
    rows, columns = chain.tiles(3, x)
    for row in rows:
        strip_grad = torch.zeros_like(row.rows(x)).contiguous()
        for column in columns:
            column.add_columns_gradient(strip_grad, weight[:, row.outputs, column.outputs])
        row.add_rows_gradient(grad, strip_grad)
    x.requires_grad_()
    flipped = F.interpolate(x.flip(2)[None], size=size, mode='bilinear')
    (expected,) = torch.autograd.grad((flipped[0] * weight).sum(), x)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-12)


@pytest.fixture
def restored_precision():
    """Settings of the process, put back behind the test."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures('restored_precision')
def test_users_who_reduce_the_precision_of_products_get_exact_maps_and_keep_their_setting(monkeypatch):
    # Torch reduces the precision of large products only.
    monkeypatch.setattr(resampling, '_TILE_COLUMNS', 128)
    monkeypatch.setattr(resampling, '_CPU_TILE_BYTES', 2**20)
    torch.set_float32_matmul_precision('medium')
    x = torch.rand(1, 64, 32, 32)
    with torch.autocast('cpu', torch.bfloat16):
        out = run(x, Resampling((32, 32)).resize((128, 128), False))
    assert torch.get_float32_matmul_precision() == 'medium'
    torch.testing.assert_close(out, F.interpolate(x, size=(128, 128), mode='bilinear'), rtol=0, atol=1e-6)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(30, 41), (9, 17), (5, 6), (12, 16)])
def test_an_infinite_number_reaches_no_more_than_torch_lets_it(size, align_corners):
    x = torch.rand(1, 3, 12, 16)
    x[0, 1, 4, 5], x[0, 1, 9, 0] = torch.inf, -torch.inf
    out = run(x, Resampling((12, 16)).resize(size, align_corners))
    expected = F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)
    finite = expected.isfinite()
    assert finite.any()
    torch.testing.assert_close(out[finite], expected[finite], rtol=0, atol=1e-6)
    # Where torch multiplies an infinite number by zero, ours does not.
    assert not out.isnan().any()


def test_a_map_of_infinite_numbers_stays_one():
    x = torch.full((1, 2, 6, 7), -torch.inf)
    x[:, 1] = 1
    chain = Resampling((6, 7)).resize((20, 30), False).crop(1, 0, 2, 3).flip(True, False).resize((33, 25), False)
    out = run(x, chain)
    assert (out[:, 0] == -torch.inf).all()
    torch.testing.assert_close(out[:, 1], torch.ones(1, 33, 25))


def test_taps_do_what_products_do():
    x = torch.randn(3, 12, 17, dtype=torch.float64)
    chain = Resampling((12, 17), torch.float64).resize((40, 50), True).crop(2, 5, 0, 9).resize((33, 60), False)
    grad = torch.randn(3, *chain.out_size, dtype=torch.float64)
    results = []
    for products in (False, True):
        rows, columns = chain.tiles(3, x, products)
        out, gradient = torch.empty_like(grad), torch.zeros_like(x)
        for row in rows:
            strip = row.rows(x)
            strip_gradient = torch.zeros(strip.shape, dtype=x.dtype)
            for column in columns:
                out[:, row.outputs, column.outputs] = column.columns(strip)
                column.add_columns_gradient(strip_gradient, grad[:, row.outputs, column.outputs])
            row.add_rows_gradient(gradient, strip_gradient)
        results.append((out, gradient))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    torch.testing.assert_close(results[0][0][None], chain.apply(x[None]), rtol=0, atol=1e-12)


def test_steps_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match=r'size=\(0, 4\)'):
        Resampling((4, 4)).resize((0, 4), False)
    with pytest.raises(ValueError, match=r'top=2, bottom=2, left=0, right=0: .* map of 4x4'):
        Resampling((4, 4)).crop(2, 2, 0, 0)
    with pytest.raises(ValueError, match='right=-1'):
        Resampling((4, 4)).crop(0, 0, 0, -1)
