"""Fit a first convolution, trained on RGB, to images with another number of channels."""

from torch import Tensor


def adapt_input_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Return the weight ``(out, 3, k, k)`` of a first convolution for ``in_channels`` input channels.

    timm's rule (``timm.models._manipulate.adapt_input_conv``): one channel gets the sum of the three filters, so that
    a grey image gives what its RGB copy gave; more (or two) get the filters R, G, B, R, ... scaled by
    ``3 / in_channels``, which keeps the size of the outputs.

    Raises:
        ValueError: ``weight`` isn't that of a convolution over three channels.
    """
    if weight.ndim != 4 or weight.shape[1] != 3:
        raise ValueError(f'a first convolution of shape {tuple(weight.shape)} has not 3 input channels to adapt from')
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // 3)
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (3 / in_channels)
