"""Atrous spatial pyramid pooling: convolutions with different rates, side by side, over one map.

Two forms: DeepLabV3's (Chen et al., arXiv:1706.05587, section 3.3), whose branches are concatenated, and DeepLabV2's
(Chen et al., arXiv:1606.00915, section 3.2), whose branches each end in scores, which are summed. DeepLabV3's further
branch, image pooling, is ``PooledProjection`` with a 1x1 grid. Ours leaves joining them to the caller, so that the
pooled map need not be upsampled (``pyramid_conv.py``).
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


def check_dilations(dilations: Sequence[int]) -> None:
    """Raise a ``ValueError`` unless ``dilations`` is a list of positive integers."""
    if not isinstance(dilations, (list, tuple)) or not all(isinstance(d, int) and d > 0 for d in dilations):
        raise ValueError(f'dilations must be a list of positive integers such as (6, 12, 18), got {dilations!r}')


class AtrousPyramid(nn.ModuleList):
    """The branches of DeepLabV3's pyramid.

    Args:
        dilations: the rate of each branch.
        make_branch: called with each rate; returns the branch, a module that keeps the size of the map.

    Raises:
        ValueError: ``dilations`` is not a list of positive integers.
    """

    def __init__(self, dilations: Sequence[int], make_branch: Callable[[int], nn.Module]):
        check_dilations(dilations)
        super().__init__(make_branch(dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map ``(B, C, H, W)`` to one ``(B, C', H, W)`` for each rate."""
        return [branch(x) for branch in self]


class SummedAtrousPyramid(AtrousPyramid):
    """DeepLabV2's pyramid; the arguments are ``AtrousPyramid``'s."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the sum ``(B, C', H, W)`` of the branches."""
        first, *others = self
        out = first(x)
        for branch in others:
            out = out + branch(x)
        return out
