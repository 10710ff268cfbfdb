"""What batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) needs of its input in training."""

import torch
from torch import Tensor, nn


def check_norm_input(norm: nn.Module, x: Tensor, name: str) -> None:
    """Refuse an input that batch normalisation could only turn into zeros: one value a channel, in training.

    Layers behind a global pool (split attention, image pooling) meet it with a batch of one. Other normalisations,
    evaluation mode, and synchronised batch normalisation over several processes pass.

    Args:
        norm: the layer that ``x`` goes into.
        x: its input, ``(B, C, ...)``.
        name: what to call the layer in the message.

    Raises:
        ValueError: there is one value a channel; the message names the layer and what to do.
    """
    # Evaluation comes first: an exported network's batch would be fixed by the question for its size.
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or (not norm.training and norm.running_mean is not None):
        return
    if x.numel() != x.shape[1]:
        return
    if isinstance(norm, nn.SyncBatchNorm) and _world_size(norm) > 1:
        return
    raise ValueError(
        f'{name}: batch normalisation over one value a channel (input {tuple(x.shape)}) has no variance. Train with a '
        'batch of 2 or more a GPU, set norm_eval=True, use SyncBN over several processes, or a norm_cfg that does not '
        "depend on the batch, such as dict(type='GN', num_groups=32)"
    )


def _world_size(norm: nn.SyncBatchNorm) -> int:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size(norm.process_group)
