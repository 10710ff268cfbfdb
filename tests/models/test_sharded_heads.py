"""Heads in two processes: parameters in shards (FSDP2) or copies (DDP) train as in one."""

import copy
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.models.test_torch_mechanisms import HEADS, features, head_and_reference


def step(head: nn.Module, x: list[torch.Tensor]) -> torch.Tensor:
    out = head(x).square().mean()
    out.backward()
    return out.detach()


def gradients(head: nn.Module) -> dict[str, torch.Tensor]:
    whole = {}
    for key, parameter in head.named_parameters():
        grad = parameter.grad
        whole[key.removeprefix('module.')] = grad.full_tensor() if hasattr(grad, 'full_tensor') else grad
    return whole


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    mesh = init_device_mesh('cpu', (2,))
    for name in HEADS:
        torch.manual_seed(0)
        head = head_and_reference(name)[0]
        alone, sharded, copied = head, copy.deepcopy(head), copy.deepcopy(head)
        x = features()
        step(alone, x)
        for module in list(sharded.modules()):
            # Each part by itself: reading a weight past its module would meet a shard of it.
            if list(module.parameters(recurse=False)) and isinstance(module, nn.Conv2d):
                fully_shard(module, mesh=mesh)
        for child in sharded.children():
            if list(child.parameters()) and not isinstance(child, (nn.ModuleList, nn.Conv2d)):
                fully_shard(child, mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        step(sharded, x)
        copied = DistributedDataParallel(copied)
        step(copied, x)
        expected = gradients(alone)
        for kind in (sharded, copied):
            found = gradients(kind)
            assert found.keys() == expected.keys()
            for key, grad in expected.items():
                assert (found[key] - grad).abs().max() <= 1e-9 * max(1, grad.abs().max()), (name, type(kind), key)
    Path(folder, f'{rank}.done').touch()
    distributed.destroy_process_group()


def test_heads_in_shards_and_copies_have_the_gradients_of_one_process(tmp_path):
    multiprocessing.spawn(run, (str(tmp_path),), nprocs=2)
    assert len(list(tmp_path.glob('*.done'))) == 2
