"""Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167): what it needs of its input, and what it used of it."""

import torch
from torch import Tensor, nn


def check_norm_input(norm: nn.Module, x: Tensor, name: str) -> None:
    """Refuse an input that batch normalisation could only turn into zeros: one value a channel, in training.

    Layers behind a global pool (split attention, image pooling) meet it with a batch of one. Other normalisations,
    evaluation mode, and synchronised batch normalisation over several processes pass.

    Args:
        norm: the layer that ``x`` goes into.
        x: its input, ``(B, C, ...)``.
        name: where the layer is in the network, for the message.

    Raises:
        ValueError: there is one value a channel; the message names the layer and what to do.
    """
    if x.numel() != x.shape[1] or not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return
    if not norm.training and norm.running_mean is not None:
        return
    if isinstance(norm, nn.SyncBatchNorm) and _world_size(norm) > 1:
        return
    raise ValueError(
        f'{name}: batch normalisation over one value a channel (input {tuple(x.shape)}) has no variance. Train with a '
        'batch of 2 or more a GPU, set norm_eval=True, use SyncBN over several processes, or a norm_cfg that does not '
        "depend on the batch, such as dict(type='GN', num_groups=32)"
    )


def batch_norm(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Call the layer, and return the statistics that it used as well.

    With them ``torch.nn.functional.batch_norm`` in evaluation mode gives the same output again, without the pass over
    ``x`` that computes them (which takes ten times as long on a CPU), and without a change of the running ones.

    Args:
        norm: the layer; its running statistics are updated as its own call does.
        x: its input, ``(B, C, H, W)``.

    Returns:
        The output like ``x``, mean and biased variance ``(C,)``.
    """
    if not norm.training and norm.running_mean is not None:
        return norm(x), norm.running_mean, norm.running_var
    running_mean, running_var, momentum = None, None, norm.momentum
    if norm.training and norm.track_running_stats:
        running_mean, running_var = norm.running_mean, norm.running_var
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1 / norm.num_batches_tracked.item()
    out, mean, inverse_std = torch.native_batch_norm(
        x, norm.weight, norm.bias, running_mean, running_var, True, momentum or 0.0, norm.eps
    )
    return out, mean, inverse_std.pow(-2) - norm.eps


def _world_size(norm: nn.SyncBatchNorm) -> int:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size(norm.process_group)
