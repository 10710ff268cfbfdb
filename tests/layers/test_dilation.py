import pytest

from mmseg_ext.layers import BlockPlan, dilation_plan, mmseg_dilation_plan, removed_strides

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


def test_unreachable_output_stride_is_refused_with_the_reachable_ones():
    with pytest.raises(ValueError, match=r'output_stride=12 must be one of \[4, 8, 16, 32\]'):
        dilation_plan(RESNET18, 12, stem_stride=4)


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


@pytest.mark.parametrize(
    ('strides', 'dilations', 'removed'),
    [
        ((1, 2, 2, 2), (1, 1, 1, 1), [1, 1, 1, 1]),
        ((1, 2, 1, 1), (1, 1, 2, 4), [1, 1, 2, 2]),
        ((1, 2, 1, 1), (1, 1, 2, 2), [1, 1, 2, 1]),
        ((1, 2, 1, 1), (1, 1, 2, 1), [1, 1, 2, 1]),
        ((1, 1, 1, 1), (1, 4, 2, 8), [1, 4, 1, 2]),
        ((1, 2, 1, 1), (1, 1, 2, 5), [1, 1, 2, 1]),
        ((1, 2, 2, 2), (2, 2, 2, 2), [1, 1, 1, 1]),
        ((1, 2, 2, 1), (1, 1, 1, (2, 4)), [1, 1, 1, 1]),
    ],
)
def test_only_a_dilation_that_grows_to_a_multiple_stands_for_a_stride(strides, dilations, removed):
    assert removed_strides(strides, dilations) == removed
