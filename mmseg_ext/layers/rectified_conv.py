"""Rectified convolution: zero padding without its darkening of the borders.

Zhang et al., ResNeSt, arXiv:2004.08955, offer it as ``rectified_conv``, from the package ``rfconv`` (compiled
extension, not on PyPI). Ours is plain torch. A kernel's taps are counted exactly; rfconv, for a dilation, counts the
positions that the dilated kernel spans, so that it scales even the interior of the map. Undilated both are the same.
"""

import torch
from torch import Tensor, nn


class RectifiedConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` whose output is multiplied by (taps of the kernel) / (taps inside the image).

    Maps ``(B, C, H, W)`` to what ``torch.nn.Conv2d`` maps it to. A bias is scaled with the rest, as in rfconv.

    Args:
        average: divide by the taps inside the image only, so that the output is an average, not a sum.

    The other arguments are torch's.

    Raises:
        ValueError: the padding is not a number of zeros.
    """

    def __init__(self, *args, average: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        if isinstance(self.padding, str) or self.padding_mode != 'zeros':
            raise ValueError(
                f'padding={self.padding!r} with padding_mode={self.padding_mode!r}: rectified convolution needs a '
                "number and 'zeros'"
            )
        self.average = average

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if not self.average and not any(self.padding):
            return out
        taps = 1 if self.average else self.kernel_size[0] * self.kernel_size[1]
        rows, columns = (self._taps_inside(axis, x.shape[axis + 2], out.shape[axis + 2], x.device) for axis in (0, 1))
        # Far out in a wide padding there is no tap, and nothing to scale.
        inside = (rows[:, None] * columns).clamp(min=1).to(torch.promote_types(out.dtype, torch.float32))
        return out * (taps / inside).to(out.dtype)

    def _taps_inside(self, axis: int, size: int, out_size: int, device: torch.device) -> Tensor:
        """For each output position along an axis, how many taps lie inside the image: ``(out_size,)``."""
        first = torch.arange(out_size, device=device) * self.stride[axis] - self.padding[axis]
        taps = first[:, None] + torch.arange(self.kernel_size[axis], device=device) * self.dilation[axis]
        return ((taps >= 0) & (taps < size)).sum(1)
