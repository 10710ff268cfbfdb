"""Strides and dilations of a residual network, block by block.

A stage whose stride is removed keeps its receptive field when every convolution behind the removed stride is dilated
by it ("a trous"; Chen et al., DeepLab, arXiv:1606.00915, section 3.1; Yu and Koltun, arXiv:1511.07122). This module
only computes numbers; backbones put them into their layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BlockPlan:
    """Stride and dilations of one residual block.

    ``dilation_in`` belongs to the convolutions up to and including the strided one, ``dilation_out`` to those behind
    it. They differ only in the first block of a stage whose stride was removed.
    """

    stride: int
    dilation_in: int
    dilation_out: int


def stage_dilation_plan(
    num_blocks: int,
    stride: int,
    dilation: int,
    *,
    multi_grid: Sequence[int] | None = None,
    contract_dilation: bool = False,
) -> list[BlockPlan]:
    """Plan of one stage from mmseg's ``strides`` / ``dilations`` arguments, by mmseg's rules.

    ``contract_dilation`` halves the dilation of the first block. ``multi_grid`` (one value a block) *replaces* the
    stage's dilation, where the DeepLabV3 paper (arXiv:1706.05587, section 3.2.1) multiplies it.

    Raises:
        ValueError: ``multi_grid`` has fewer values than the stage has blocks.
    """
    if multi_grid is None:
        first = dilation // 2 if contract_dilation and dilation > 1 else dilation
        dilations = [first] + [dilation] * (num_blocks - 1)
    elif len(multi_grid) < num_blocks:
        raise ValueError(
            f'multi_grid={tuple(multi_grid)} needs a value for each of the {num_blocks} blocks of the stage'
        )
    else:
        dilations = list(multi_grid[:num_blocks])
    return [BlockPlan(stride if i == 0 else 1, d, d) for i, d in enumerate(dilations)]
