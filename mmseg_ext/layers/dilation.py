"""Strides and dilations of a network that is made denser without changing its weights.

A layer whose stride is removed leaves a map that is denser by that factor; every layer behind it keeps its meaning
when it is dilated by the density of its input ("a trous": Chen et al., DeepLab, arXiv:1606.00915, section 3.1). Where
sizes divide, the dense map, subsampled, equals the strided one. Pools are layers like any other.

This file only computes numbers. ``output_stride.py`` puts them into layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BlockPlan:
    """Stride and dilations of one block.

    ``dilation_in`` is for the layers up to and including the strided one, ``dilation_out`` for those behind it. They
    differ only in a block whose stride was removed.
    """

    stride: int
    dilation_in: int
    dilation_out: int


def dilation_plan(block_strides: Sequence[int], output_stride: int, *, stem_stride: int = 1) -> list[BlockPlan]:
    """Plan the blocks of a network, in order, for an output stride.

    Args:
        block_strides: native stride of each block, e.g. ``(1, 1, 2, 1, 2, 1, 2, 1)`` for ResNet-18.
        output_stride: size of the input over size of the last block's output.
        stem_stride: stride of what comes before the first block; it stays.

    Raises:
        ValueError: the strides can't reach ``output_stride``; the message lists those they can.
    """
    reachable = [stem_stride]
    for stride in block_strides:
        if stride > 1:
            reachable.append(reachable[-1] * stride)
    if output_stride not in reachable:
        raise ValueError(f'output_stride={output_stride} must be one of {reachable} for this network')
    plans, reached, density = [], stem_stride, 1
    for stride in block_strides:
        before = density
        if stride > 1 and reached == output_stride:
            density *= stride
            stride = 1
        reached *= stride
        plans.append(BlockPlan(stride, before, density))
    return plans


def mmseg_dilation_plan(
    num_blocks: int,
    stride: int,
    dilation: int,
    *,
    multi_grid: Sequence[int] | None = None,
    contract_dilation: bool = False,
) -> list[tuple[int, int]]:
    """Stride and dilation of each block of one stage from mmseg's arguments, by mmseg's rules.

    ``contract_dilation`` halves the dilation of the first block. ``multi_grid`` (one value a block) *replaces* the
    stage's dilation where the paper multiplies it.

    Raises:
        ValueError: ``multi_grid`` has fewer values than the stage has blocks.
    """
    if multi_grid is None:
        first = dilation // 2 if contract_dilation and dilation > 1 else dilation
        dilations = [first] + [dilation] * (num_blocks - 1)
    elif len(multi_grid) < num_blocks:
        raise ValueError(
            f'multi_grid={tuple(multi_grid)} needs one value for each of the {num_blocks} blocks of the stage'
        )
    else:
        dilations = list(multi_grid[:num_blocks])
    return [(stride if i == 0 else 1, d) for i, d in enumerate(dilations)]


def removed_strides(strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Say of which stride each stage was deprived, 1 for none, from mmseg's arguments.

    A dilation that grows to a multiple at a stage without stride stands for a stride. Any other is the stage's own, as
    are all of the first stage, which a ResNet doesn't subsample.
    """
    removed, density = [1], 1
    for stride, dilation in zip(strides[1:], dilations[1:], strict=True):
        # With multi_grid, mmseg takes anything for the last stage's.
        grown = stride == 1 and isinstance(dilation, int) and dilation > density and dilation % density == 0
        removed.append(dilation // density if grown else 1)
        density *= removed[-1]
    return removed
