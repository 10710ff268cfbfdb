"""DropBlock (Ghiasi et al., "DropBlock: A regularization method for convolutional networks", arXiv:1810.12890).

ResNeSt's official torch code names the layer but leaves it unimplemented. Ours follows the paper's algorithm 1, with
one mask for each channel and blocks that lie inside the map; a block is never larger than the map.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DropBlock2d(nn.Module):
    """Set random squares of a feature map ``(B, C, H, W)`` to zero and scale up the rest; the identity in evaluation.

    Args:
        drop_prob: share of the map that is dropped, about, in [0, 1).
        block_size: side length of a square.

    Raises:
        ValueError: ``drop_prob`` is outside of [0, 1).
    """

    def __init__(self, drop_prob: float, block_size: int = 3):
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(f'drop_prob={drop_prob} must be in [0, 1)')
        self.drop_prob = drop_prob
        self.block_size = block_size

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob}, block_size={self.block_size}'

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        batch, channels, height, width = x.shape
        kernel = min(self.block_size, height), min(self.block_size, width)
        corners = height - kernel[0] + 1, width - kernel[1] + 1
        # Equation 1: the rate of block corners that drops drop_prob of the map, overlaps aside.
        gamma = self.drop_prob * height * width / (kernel[0] * kernel[1] * corners[0] * corners[1])
        seeds = torch.rand(batch, channels, *corners, device=x.device) < gamma
        margins = (kernel[1] - 1, kernel[1] - 1, kernel[0] - 1, kernel[0] - 1)
        kept = 1 - F.max_pool2d(F.pad(seeds.float(), margins), kernel, stride=1)
        scale = kept.numel() / kept.sum().clamp(min=1)
        return x * (kept * scale).to(x.dtype)
