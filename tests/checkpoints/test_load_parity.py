"""What ``torch.load`` makes of a file of data, our reader makes too."""

import io
import pathlib
import struct
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmseg_ext.checkpoints import load_file
from mmseg_ext.checkpoints.loading import load_bytes
from tests.reference.assembler import build, call, legacy, list_of, plain, storage, tuple_of

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip
# Those without a storage of their own, which torch writes in the new format only.
NEW_DTYPES = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32]
FORMATS = pytest.mark.parametrize('zipped', [True, False], ids=['new format', 'old format'])


def saved(content: Any, zipped: bool = True, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return buffer.getvalue()


def assert_same(ours: Any, theirs: Any, where: str = 'content') -> None:
    """Compare what was loaded: exact containers, plain tensors, and their memory to the last byte."""
    if isinstance(theirs, torch.Tensor):
        assert type(ours) is torch.Tensor, where
        assert not ours.requires_grad, where
        for name in ('dtype', 'device', 'shape', 'stride', 'storage_offset', 'is_conj', 'is_neg'):
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert (mine() if callable(mine) else mine) == (other() if callable(other) else other), (where, name)
        assert bytes(ours.untyped_storage()) == bytes(theirs.untyped_storage()), where
    elif isinstance(theirs, np.ndarray):
        assert type(ours) is np.ndarray, where
        assert ours.shape == theirs.shape, where
        assert ours.size == 0 or ours.strides == theirs.strides, where
        assert ours.dtype == theirs.dtype.newbyteorder('='), where
        assert ours.flags.writeable, where
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, HistoryBuffer):
        assert type(ours) is HistoryBuffer, where
        assert ours.max_length == theirs.max_length, where
        for mine, other in zip(ours.data, theirs.data, strict=True):
            assert_same(mine, other, where)
    elif isinstance(theirs, dict):
        assert type(ours) is dict, where
        assert [(type(key), key) for key in ours] == [(type(key), key) for key in theirs], where
        for key, value in theirs.items():
            assert_same(ours[key], value, f'{where}[{key!r}]')
    elif isinstance(theirs, (list, tuple, deque)):
        assert type(ours) is (tuple if isinstance(theirs, tuple) else list), where
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, other, f'{where}[{i}]')
    elif isinstance(theirs, pathlib.PurePath):
        assert ours == str(theirs), where
    else:
        assert type(ours) is type(theirs), where
        assert ours == theirs, where


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(2, 3, 4)
    complex_ = torch.complex(torch.arange(3.0), torch.ones(3))
    return dict(
        base=base, row=base[1], transposed=base.transpose(0, 2), strided=base[:, ::2], expanded=torch.ones(1).expand(9),
        empty=torch.empty(0, 3), empty_row=base[2:, 1:], scalar=torch.tensor(3), conjugate=complex_.conj(),
        negative=complex_.clone().conj().imag, parameter=nn.Parameter(torch.ones(2)), buffer=nn.Buffer(torch.ones(2)),
    )  # fmt: skip


def values() -> dict[str, Any]:
    return dict(
        keys={None: 1, 2: 3, -5: 1, True: 2, 1.5: 'x', b'k': 1, (1, 'a'): 3, np.int64(7): 1},
        numbers=[2**70, -(2**70), 2**2000, 255, 256, 65536, -1, 1.5, float('inf'), 1 + 2j, None, True],
        text='ä\U0001f600\0',
        content=[b'', b'abc\xff', bytearray(b'xy'), bytearray()],
        containers=[(), (1,), (1, 2), (1, 2, 3, [4, {5: (6,)}]), [], {}, {1, 2, 'a'}, set()],
        ordered=OrderedDict(a=1, b=OrderedDict(c=2)),
        default=defaultdict(list, {1: [2]}),
        counter=Counter('aab'),
        deque=deque([1, 2], 5),
        torch=[torch.float16, torch.device('cuda', 1), torch.device('cpu')],
        numpy=[np.float64(1.5), np.int32(3), np.bool_(True), np.complex64(1j)],
        arrays=[np.eye(3), np.asfortranarray(np.eye(3)[:2]), np.zeros((0, 2)), np.array(3), np.arange(6, dtype='>i4')],
        large_array=np.arange(4000.0).reshape(2, 20, 100).transpose(1, 0, 2),
        paths=[pathlib.PurePosixPath('a/b'), pathlib.PureWindowsPath('c:/d')],
        histories=[HistoryBuffer([1.0, 2.0], [1, 1]), HistoryBuffer()],
        state=nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)).state_dict(),
    )


@FORMATS
@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_containers_numbers_and_tensors_of_every_kind_load_as_torch_loads_them(zipped, protocol):
    content = saved(dict(tensors(), **values()), zipped, protocol)
    assert_same(load_bytes(content, 'c.pth'), torch.load(io.BytesIO(content), weights_only=False))


@FORMATS
def test_weights_load_as_torchs_weights_only_loads_them(zipped):
    content = saved(dict(tensors(), state=values()['state']), zipped)
    assert_same(load_bytes(content, 'c.pth'), torch.load(io.BytesIO(content), weights_only=True))


@pytest.mark.parametrize(
    ('dtype', 'zipped'), [*((d, True) for d in DTYPES + NEW_DTYPES), *((d, False) for d in DTYPES)]
)
def test_every_dtype_loads(dtype, zipped):
    tensor = torch.arange(96, dtype=torch.uint8).view(dtype) if dtype != torch.bool else torch.tensor([True, False])
    assert_same(load_bytes(saved(tensor[1:], zipped), 'c.pth'), tensor[1:])


def test_a_file_of_torch_0_3_written_by_python_2_loads():
    rebuilt = call('torch._utils._rebuild_tensor', storage(extra=b'N'), plain(0), plain((4,)), plain((1,)))
    state = tuple_of(plain(True), plain(False), call('collections.OrderedDict', plain([])))
    parameter = build(call('torch.nn.parameter.Parameter', rebuilt), state)
    key = b'U\x06weight'
    pairs = list_of(list_of(key, parameter))
    content = legacy(call('collections.OrderedDict', pairs), ['0'], struct.pack('<q4f', 4, 1, 2, 3, 4))
    for loaded in (load_bytes(content, 'c.pth'), torch.load(io.BytesIO(content))):
        assert list(loaded) == ['weight']
        assert loaded['weight'].tolist() == [1, 2, 3, 4]


def test_a_size_is_a_tuple():
    assert type(load_bytes(saved(torch.Size([1, 2])), 'c.pth')) is tuple


@FORMATS
def test_tensors_that_share_memory_still_do_and_can_be_resized(zipped):
    base = torch.arange(6.0)
    loaded = load_bytes(saved([base, base[2:], base.view(2, 3).t()], zipped), 'c.pth')
    loaded[0][2] = 50
    assert loaded[1][0] == loaded[2][2, 0] == 50
    loaded[0].resize_(1000)


def test_files_without_checksums_load():
    torch.serialization.set_crc32_options(False)
    try:
        content = saved(tensors())
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(load_bytes(content, 'c.pth'), torch.load(io.BytesIO(content)))


def test_files_of_machines_with_the_other_byte_order_load():
    values = [1.0, -2.5, 3.25]
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(torch.tensor(values)))) as old, zipfile.ZipFile(buffer, 'w') as new:
        for record in old.namelist():
            content = old.read(record)
            content = b'big' if record.endswith('byteorder') else content
            content = struct.pack('>3f', *values) if record.endswith('data/0') else content
            new.writestr(record, content)
    assert load_bytes(buffer.getvalue(), 'c.pth').tolist() == values
    assert sys.byteorder == 'little'


def move_to_meta(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage | None:
    return torch.UntypedStorage(storage.nbytes(), device='meta') if location == 'cpu' else None


@FORMATS
@pytest.mark.parametrize(
    ('map_location', 'device'),
    [
        (None, 'cpu'), ('cpu', 'cpu'), (torch.device('cpu'), 'cpu'), ({'cuda:0': 'cpu'}, 'cpu'),
        (lambda storage, location: storage, 'cpu'), (lambda storage, location: None, 'cpu'),
        ('meta', 'meta'), ({'cpu': 'meta'}, 'meta'), (move_to_meta, 'meta'),
    ],
)  # fmt: skip
def test_map_location_is_read_as_torch_reads_it(zipped, map_location, device):
    loaded = load_bytes(saved([torch.ones(3)] * 2, zipped), 'c.pth', map_location)
    assert loaded[0] is loaded[1]
    assert loaded[0].device.type == device
    if device == 'cpu':
        assert loaded[0].tolist() == [1, 1, 1]


def from_an_absent_device(zipped: bool) -> bytes:
    content = saved(torch.ones(3), zipped)
    name = b'X' + struct.pack('<I', 3) + b'cpu'
    assert content.count(name) == 1
    if not zipped:
        return content.replace(name, b'X' + struct.pack('<I', 7) + b'cuda:99')
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, 'w') as new:
        for record in old.namelist():
            new.writestr(record, old.read(record).replace(name, b'X' + struct.pack('<I', 7) + b'cuda:99'))
    return buffer.getvalue()


@FORMATS
def test_without_map_location_tensors_of_an_absent_device_are_on_the_cpu(zipped):
    assert load_bytes(from_an_absent_device(zipped), 'c.pth', None).tolist() == [1, 1, 1]


@FORMATS
def test_a_map_location_that_is_not_here_is_named_and_not_called_damage(zipped):
    with pytest.raises(ValueError, match=r"c\.pth can not be put where map_location='cuda:99' says"):
        load_bytes(saved(torch.ones(3), zipped), 'c.pth', 'cuda:99')


def test_what_a_callable_map_location_raises_comes_out():
    def refuse(storage, location):
        raise KeyError('mine')

    with pytest.raises(KeyError, match='mine'):
        load_bytes(saved(torch.ones(3)), 'c.pth', refuse)


@pytest.mark.parametrize(
    ('value', 'culprit'),
    [
        (torch.eye(2).to_sparse(), '_rebuild_sparse_tensor'),
        (torch.ones(2, device='meta'), '_rebuild_meta_tensor_no_storage'),
        (torch.ones(2).untyped_storage(), 'Storage'),
        (frozenset([1]), 'frozenset'),
        (slice(1), 'slice'),
        (np.dtype('f8'), 'NumpyType'),
    ],
)
def test_other_tensors_and_values_are_refused_by_name(value, culprit):
    with pytest.raises(ValueError, match=culprit):
        load_bytes(saved(value), 'c.pth')


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def forward(self, x, mode='loss'):
        return dict(loss=self.layers(x).square().mean())


def test_a_training_checkpoint_of_mmengine_loads_as_torch_loads_it(tmp_path):
    data = [dict(x=torch.rand(2)) for _ in range(8)]
    runner = Runner(
        Line(),
        str(tmp_path),
        train_dataloader=DataLoader(data, batch_size=4),
        train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='PolyLR', by_epoch=False, end=4),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        custom_hooks=[dict(type='EMAHook')],
        default_scope='mmengine',
        experiment_name=tmp_path.name,
        log_level='ERROR',
    )
    runner.train()
    ours = load_file(tmp_path / 'iter_4.pth')
    assert_same(ours, torch.load(tmp_path / 'iter_4.pth', weights_only=False))
    assert ours.keys() >= {'meta', 'state_dict', 'optimizer', 'param_schedulers', 'message_hub', 'ema_state_dict'}
    assert ours['message_hub']['log_scalars']['train/loss'].statistics('current') >= 0
