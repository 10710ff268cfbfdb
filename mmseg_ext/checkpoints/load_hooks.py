"""What modules do to the weights while they are loaded: rename them, resize them, compute what is missing.

mmcv's deformable convolutions, transformers' position embeddings and torch's normalised weights do, in
``_load_from_state_dict`` or in hooks in front of it. Only a run of these tells which weights they understand.
"""

import copy
from collections.abc import Mapping

from torch import Tensor, nn


def has_load_hooks(module: nn.Module) -> bool:
    """Whether a part of ``module`` does something to weights that it is given; torch's own layers don't."""
    return any(
        part._load_state_dict_pre_hooks or not type(part)._load_from_state_dict.__module__.startswith('torch.nn.')
        for part in module.modules()
    )


def run_load_hooks(module: nn.Module, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """Give ``weights`` to a copy of ``module``; return what its parts make of them, and the keys they complain of.

    The latter are keys of either side that the other one doesn't have.
    """
    weights, missing, unexpected = dict(weights), [], []

    def load(part: nn.Module, prefix: str) -> None:
        # All parts see all weights: mmcv's deformable convolutions have had keys that don't begin with their name.
        part._load_from_state_dict(weights, prefix, {}, True, missing, unexpected, [])
        for name, child in part._modules.items():
            if child is not None:
                load(child, f'{prefix}{name}.')

    load(copy.deepcopy(module), '')
    return weights, {*missing, *unexpected}
