"""Pyramid pooling module of PSPNet (Zhao et al., arXiv:1612.01105, section 3.2).

Ours returns the pooled maps at their own size, so that the caller can choose how they are joined with the input. Its
single level with a 1x1 grid is the image pooling of DeepLabV3 (Chen et al., arXiv:1706.05587, section 3.3).
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .batch_norm import check_norm_input


class PooledProjection(nn.Sequential):
    """Average-pool a feature map to a grid and project it: ``(B, C, H, W)`` to ``(B, C', scale, scale)``.

    Args:
        scale: side length of the grid, in cells.
        projection: the module (a 1x1 convolution in the papers) that is applied to the pooled map.
    """

    def __init__(self, scale: int, projection: nn.Module):
        super().__init__(nn.AdaptiveAvgPool2d(scale), projection)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            ValueError: in training, a batch of one leaves batch normalisation behind a 1x1 grid one value a channel.
        """
        pool, projection = self
        x = pool(x)
        if self.training and x.numel() == x.shape[1]:
            for name, layer in projection.named_modules():
                check_norm_input(layer, x, f'PooledProjection.1.{name}')
        return projection(x)


class PyramidPooling(nn.ModuleList):
    """Average-pool a feature map to several grids and project each.

    Args:
        pool_scales: side length of each grid, in cells.
        make_projection: called once a grid; returns the module (a 1x1 convolution in the paper) that is applied to
            the pooled map.

    Raises:
        ValueError: ``pool_scales`` is not a list of positive integers.
    """

    def __init__(self, pool_scales: Sequence[int], make_projection: Callable[[], nn.Module]):
        if not isinstance(pool_scales, (list, tuple)) or not all(isinstance(s, int) and s > 0 for s in pool_scales):
            raise ValueError(
                f'pool_scales must be a list of positive integers such as (1, 2, 3, 6), got {pool_scales!r}'
            )
        super().__init__(PooledProjection(scale, make_projection()) for scale in pool_scales)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map ``(B, C, H, W)`` to one ``(B, C', scale, scale)`` for each scale.

        Raises:
            ValueError: in training, a batch of one leaves batch normalisation behind a 1x1 grid one value a channel.
        """
        return [level(x) for level in self]
