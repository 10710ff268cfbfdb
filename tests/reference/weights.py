"""Random weights that leave no layer without effect."""

import torch
from torch import nn


def randomise(module: nn.Module) -> nn.Module:
    """Give every normalisation layer random statistics and affine parameters, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    return module


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    assert result.shape == expected.shape, f'{tuple(result.shape)} != {tuple(expected.shape)}'
    return ((result - expected).abs().max() / expected.abs().max()).item()
