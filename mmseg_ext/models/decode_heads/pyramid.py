"""Where a head convolves upsampled and concatenated maps."""

import math
from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmseg_ext.layers import pyramid_conv2d


def conv_over_pyramid(
    module: nn.Module, levels: Sequence[Tensor], size: Sequence[int] | None = None, *, align_corners: bool
) -> Tensor:
    """Apply a module to the concatenation of maps that are first upsampled to one size.

    A ``ConvModule`` with a plain convolution works below the upsampling (``layers/pyramid_conv.py``), and batch
    normalisation that is a fixed scale becomes part of the weight where that is smaller than the output. Any other
    module (a ``conv_cfg`` of its own, a separable convolution) gets the concatenation.

    Args:
        module: maps ``(B, sum of C_i, H, W)`` to ``(B, C, H, W)``.
        levels: maps ``(B, C_i, H_i, W_i)``.
        size: height and width of the output; None for those of the first level.
        align_corners: of the bilinear upsampling.
    """
    size = tuple(levels[0].shape[2:] if size is None else size)
    if not _is_plain(module):
        maps = [
            level
            if level.shape[2:] == size
            else F.interpolate(level, size=size, mode='bilinear', align_corners=align_corners)
            for level in levels
        ]
        return module(torch.cat(maps, dim=1))
    conv = module.conv
    weight, bias = conv.weight, conv.bias
    out_numel = len(levels[0]) * len(weight) * math.prod(size)
    fold = module.with_norm and _is_fixed(module.norm) and weight.numel() <= out_numel
    if fold:
        weight, bias = fuse_conv_bn_weights(weight, bias, *_statistics(module.norm))
    x = pyramid_conv2d(levels, weight, bias, size=size, dilation=conv.dilation[0], align_corners=align_corners)
    if module.with_norm and not fold:
        x = module.norm(x)
    if module.with_activation:
        x = module.activate(x)
    return x


def _is_fixed(norm: nn.Module) -> bool:
    """Whether the layer is batch normalisation by running statistics, and nobody asks for gradients."""
    return (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and not norm.training
        and norm.running_mean is not None
        and norm.affine
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled(norm.weight.device.type)
        and norm.weight.dtype in (torch.float32, torch.float64)
    )


def _statistics(norm: nn.modules.batchnorm._BatchNorm) -> tuple:
    return norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias


def _is_plain(module: nn.Module) -> bool:
    """Whether the module is a convolution that ``pyramid_conv2d`` can do, then norm and activation."""
    if not isinstance(module, ConvModule) or type(module.conv) is not nn.Conv2d:
        return False
    conv = module.conv
    kernel_size, dilation = conv.kernel_size[0], conv.dilation[0]
    return (
        module.order == ('conv', 'norm', 'act')
        and not module.with_spectral_norm
        and not module.with_explicit_padding
        and conv.stride == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == 'zeros'
        and conv.dilation == (dilation, dilation)
        and conv.kernel_size == (kernel_size, kernel_size)
        and kernel_size % 2 == 1
        and conv.padding == (kernel_size // 2 * dilation,) * 2
    )
