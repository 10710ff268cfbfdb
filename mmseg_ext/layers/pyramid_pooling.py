"""Pyramid pooling module of PSPNet (Zhao et al., arXiv:1612.01105, section 3.2).

Ours returns the pooled maps at their own size, so that the caller can choose how they are joined with the input.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .batch_norm import check_norm_input


class PyramidPooling(nn.ModuleList):
    """Average-pool a feature map to several grids and project each.

    Args:
        pool_scales: side length of each grid, in cells.
        make_projection: called once a grid; returns the module (a 1x1 convolution in the paper) that is applied to
            the pooled map.
    """

    def __init__(self, pool_scales: Sequence[int], make_projection: Callable[[], nn.Module]):
        super().__init__(nn.Sequential(nn.AdaptiveAvgPool2d(scale), make_projection()) for scale in pool_scales)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map ``(B, C, H, W)`` to one ``(B, C', scale, scale)`` for each scale.

        Raises:
            ValueError: in training, a batch of one leaves batch normalisation behind a 1x1 grid one value a channel.
        """
        return [self._level(i, x) for i in range(len(self))]

    def _level(self, index: int, x: Tensor) -> Tensor:
        pool, projection = self[index]
        x = pool(x)
        if self.training and x.numel() == x.shape[1]:
            for name, layer in projection.named_modules():
                check_norm_input(layer, x, f'pyramid pooling {index}.1.{name}')
        return projection(x)
