"""A convolution over an upsampled pyramid in half precision, whose smallest levels enter as a few channels.

Interpolating a level of ``p`` pixels gives, in every channel, a sum of the same ``p`` maps: those of the bilinear
interpolation of single pixels. So a convolution over its ``C`` upsampled channels is one over these maps with weights
``W x``, and can be done in one convolution together with the other levels. That matters in half precision: parts of a
sum that are rounded on their own (``pyramid_place.py``) would add an error that the plain form does not have. Maps and
weights come in two parts, coarse and fine, so that their rounding does not count; it costs ``3 p`` channels, not ``C``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .pyramid_level import Placing

# What it costs to copy one number of a weight, in multiply-adds of a convolution in half precision.
_MOVE = 40


def saves(placing: Placing, channels: int, all_channels: int) -> bool:
    """Whether pixel maps are cheaper than the upsampled level: they ask for a weight of its own for each image."""
    (h, w), (height, width) = placing.low, placing.size
    return height * width * (channels - 3 * h * w) > _MOVE * all_channels


def conv_with_pixel_maps(
    direct: Sequence[Tensor],
    direct_weights: Sequence[Tensor],
    bias: Tensor | None,
    lows: Sequence[Tensor],
    low_weights: Sequence[Tensor],
    placings: Sequence[Placing],
    dtype: torch.dtype,
) -> Tensor:
    """Convolve maps of the output's size and small levels.

    Args:
        direct: maps ``(B, C_i, H, W)``.
        direct_weights: their slices of the weight, ``(C_out, C_i, k, k)``.
        bias: ``(C_out,)``.
        lows: levels ``(B, C_j, h, w)``.
        low_weights: their slices of the weight.
        placings: where the levels lie.
        dtype: of the convolution, half precision.

    Returns:
        ``(B, C_out, H, W)`` in ``dtype``.
    """
    maps, weights = [], []
    for low, weight, placing in zip(lows, low_weights, placings, strict=True):
        pixel_maps = _pixel_maps(placing, low.device)
        pixel_weights = torch.einsum('ockl,bcp->bopkl', weight.float(), low.flatten(2).float())
        if dtype == torch.float16:
            # What is too large for it, an infinity that would meet the zeros of the maps, is shared with these.
            excess = (pixel_weights.detach().abs().amax() / 2**15).log2().ceil().clamp(0, 15)
            pixel_maps, pixel_weights = pixel_maps.ldexp(excess), pixel_weights.ldexp(-excess)
        fine_maps, coarse_maps = _split(pixel_maps, dtype)
        fine_weights, coarse_weights = _split(pixel_weights, dtype)
        maps += [coarse_maps, coarse_maps, fine_maps]
        weights += [coarse_weights, fine_weights, coarse_weights]
    maps = torch.cat(maps).expand(len(lows[0]), -1, -1, -1)
    x = torch.cat([*(x.to(dtype) for x in direct), maps], dim=1)
    shared = [weight.to(dtype) for weight in direct_weights]
    bias = None if bias is None else bias.to(dtype)
    padding, dilation = placings[0].padding, placings[0].dilation
    out = [
        F.conv2d(image[None], torch.cat([*shared, *own], dim=1), bias, padding=padding, dilation=dilation)
        for image, *own in zip(x, *weights, strict=True)
    ]
    return torch.cat(out)


def _pixel_maps(placing: Placing, device: torch.device) -> Tensor:
    """The interpolation of each single pixel: ``(h * w, H, W)``, float32."""
    h, w = placing.low
    pixels = torch.eye(h * w, device=device).view(1, h * w, h, w)
    return F.interpolate(pixels, size=placing.size, mode='bilinear', align_corners=placing.align_corners)[0]


def _split(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what ``dtype`` cuts off of ``x``, and the rounded ``x``; together they have twice the digits."""
    coarse = x.to(dtype)
    return (x - coarse).to(dtype), coarse
