import pytest

from mmseg_ext.layers import BlockPlan, dilation_plan, mmseg_dilation_plan

RESNET18 = (1, 1, 2, 1, 2, 1, 2, 1)


def numbers(plans: list[BlockPlan]) -> list[tuple[int, int, int]]:
    return [(plan.stride, plan.dilation_in, plan.dilation_out) for plan in plans]


@pytest.mark.parametrize(
    ('output_stride', 'last_two_stages'),
    [
        (32, [(2, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 1)]),
        (16, [(2, 1, 1), (1, 1, 1), (1, 1, 2), (1, 2, 2)]),
        (8, [(1, 1, 2), (1, 2, 2), (1, 2, 4), (1, 4, 4)]),
    ],
)
def test_resnet18_contracts_the_first_block_of_each_dilated_stage(output_stride, last_two_stages):
    plan = dilation_plan(RESNET18, output_stride, stem_stride=4)
    assert numbers(plan)[:4] == [(1, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 1)]
    assert numbers(plan)[4:] == last_two_stages


def test_without_contraction_the_first_block_is_dilated_too():
    plan = dilation_plan(RESNET18, 8, stem_stride=4, contract=False)
    assert numbers(plan)[4:] == [(1, 2, 2), (1, 2, 2), (1, 4, 4), (1, 4, 4)]


def test_multi_grid_multiplies_the_dilation_of_the_last_blocks():
    plan = dilation_plan((1, 2, 2, 2, 1, 1), 16, stem_stride=4, multi_grid=(1, 2, 4))
    assert numbers(plan)[3:] == [(1, 1, 2), (1, 4, 4), (1, 8, 8)]


def test_unreachable_output_stride_is_refused_with_the_reachable_ones():
    with pytest.raises(ValueError, match=r'output_stride=12 must be one of \[4, 8, 16, 32\]'):
        dilation_plan(RESNET18, 12, stem_stride=4)


def test_more_multi_grid_factors_than_blocks_are_refused():
    with pytest.raises(ValueError, match=r'multi_grid=\(1, 2, 4\) has more values than the 2 blocks'):
        dilation_plan((2, 1), 2, multi_grid=(1, 2, 4))


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (dict(stride=2, dilation=1), [(2, 1), (1, 1), (1, 1)]),
        (dict(stride=1, dilation=4), [(1, 4), (1, 4), (1, 4)]),
        (dict(stride=1, dilation=4, contract_dilation=True), [(1, 2), (1, 4), (1, 4)]),
        (dict(stride=1, dilation=4, multi_grid=(1, 2, 4)), [(1, 1), (1, 2), (1, 4)]),
    ],
)
def test_mmsegs_arguments_follow_mmsegs_rules(arguments, expected):
    assert mmseg_dilation_plan(3, **arguments) == expected


def test_mmsegs_multi_grid_needs_a_value_for_each_block():
    with pytest.raises(ValueError, match='one value for each of the 3 blocks'):
        mmseg_dilation_plan(3, 1, 2, multi_grid=(1, 2))
