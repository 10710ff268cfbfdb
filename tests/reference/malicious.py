"""Checkpoint files that want to do something: one for each thing to try."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import torch

from .assembler import (
    array,
    array_state,
    build,
    bytes_of,
    call,
    dict_of,
    history,
    legacy,
    list_of,
    name,
    new,
    number_type,
    plain,
    recall,
    remember,
    storage,
    tensor,
    tuple_of,
    zipped,
)  # fmt: skip

HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'


class Command:
    """Unpickles as the result of a shell command that makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f'touch {self.trace}',)


def save_malicious(path: Path, trace: Path, **kwargs) -> Path:
    """Write what looks like a checkpoint, with weights and a command."""
    weights = {'conv1.weight': torch.ones(4, 3, 7, 7)}
    torch.save(dict(meta=dict(epoch=1, iter=1, extra=Command(trace)), state_dict=weights), path, **kwargs)
    return path


def _overlapping() -> bytes:
    """A table of contents that names one place of the file two times."""
    content = bytearray(zipped(tensor(), data=b'\0' * 16))
    entries = [place for place in range(len(content)) if content[place : place + 4] == b'PK\1\2']
    content[entries[3] + 42 : entries[3] + 46] = content[entries[2] + 42 : entries[2] + 46]
    return bytes(content)


def programs(trace: Path) -> dict[str, bytes]:
    """Pickles, without their head and end, none of which may be loaded."""
    command = plain(f'touch {trace}')
    python = plain(f'open({str(trace)!r}, "w")')
    long = remember(plain('x' * 100_000)) + b'0'
    one = array((1,), bytes_of(b'1' * 8))
    pointer = bytes_of(b'\xff' * 8)
    objects = call('numpy.dtype', plain('O8'), plain(False), plain(True))
    many_bytes = remember(bytes_of(b'x' * 80_000)) + b'0'
    many_items = remember(plain([1] * 50_000)) + b'0'
    deep = b''.join([b')'] + [b'\x85'] * 20_000)
    return {
        'calls system': call('posix.system', command),
        'calls eval': call('builtins.eval', python),
        'calls eval, as python 2 names it': call('__builtin__.eval', python),
        'calls by INST': b'(' + command + b'iposix\nsystem\n',
        'calls by OBJ': b'(' + name('posix.system') + command + b'o',
        'calls by NEWOBJ': new('posix.system', command),
        'calls by NEWOBJ_EX': name('subprocess.Popen') + tuple_of(plain(['touch', str(trace)])) + b'}\x92',
        'calls an extension': b'\x82\x01',
        'calls what it made': plain('x') + tuple_of() + b'R',
        'calls a tensor': tensor() + tuple_of() + b'R',
        'calls with a list of arguments': name('collections.OrderedDict') + b'](e' + b'R',
        'names a method': name('collections.OrderedDict.get'),
        'names a function of ours': name('mmseg_ext.checkpoints.loading.load_file'),
        'names a function of torch': name('torch.load'),
        'leaves a name': name('collections.OrderedDict'),
        'leaves a name, deep': dict_of(a=list_of(tuple_of(name('torch.Tensor')))),
        'leaves a storage': storage(),
        'leaves a type of numpy': number_type(),
        'gets a method': call('builtins.getattr', name('collections.OrderedDict'), plain('pop')),
        'gets an attribute of a tensor': call('builtins.getattr', tensor(), plain('data')),
        'calls a statistic': call('builtins.getattr', name(HISTORY), plain('mean')) + b')R',
        'leaves a statistic': name(f'{HISTORY}.mean'),
        'sets attributes of a class': build(name('torch.Tensor'), dict_of(shape=plain(1))),
        'sets attributes of a function': build(name('builtins.getattr'), dict_of(a=plain(1))),
        'sets attributes of a dict': build(b'}', dict_of(pop=name('collections.Counter'))),
        'sets attributes of a list': build(b']', dict_of(append=name('collections.Counter'))),
        'sets attributes of a tensor': build(tensor(), dict_of(shape=plain(1))),
        'sets a state twice': build(build(call('collections.OrderedDict'), b'}'), b'}'),
        'sets the state of an array twice': build(one, array_state((1,), bytes_of(b'2' * 8))),
        'sets the state of an array out of a tuple': build(array((1,), bytes_of(b'1' * 8), tuple_of()), b'}'),
        'hides eval in a dropped state': build(call('collections.OrderedDict'), dict_of(pop=name('builtins.eval'))),
        'appends to a string': plain('x') + plain(1) + b'a',
        'appends to a tensor': tensor() + plain(1) + b'a',
        'appends many to a dict': b'}(' + plain(1) + b'e',
        'sets items of a list': plain([1, 2]) + plain(0) + plain(5) + b's',
        'sets items of a tensor': tensor() + b'(' + plain(0) + plain(5) + b'u',
        'adds items to a list': b'](' + plain(1) + b'\x90',
        'an odd number of items': b'}(' + plain(1) + b'u',
        'an array of objects': array((1,), pointer, objects),
        'an array of dates': array((1,), pointer, number_type('M8')),
        'an array of records': array((1,), pointer, number_type('V8')),
        'an array of objects, by its type': build(number_type(), plain((3, '|', None, None, None, -1, -1, 63))),
        'an array of another class': array((1,), bytes_of(b'1' * 8), owner='torch.Tensor'),
        'an array with the wrong shape': array((2**40,), bytes_of(b'1' * 8)),
        'an array with a negative shape': array((-1, -1), bytes_of(b'1' * 8)),
        'an array of numbers in a list': array((1,), list_of(plain(1))),
        'a scalar with too many bytes': call('numpy._core.multiarray.scalar', number_type(), bytes_of(b'1' * 16)),
        'a scalar of objects': call('numpy.core.multiarray.scalar', number_type('O8'), bytes_of(b'1' * 8)),
        'a buffer of objects': call(
            'numpy._core.numeric._frombuffer', bytes_of(b'1' * 8), number_type('O8'), plain((1,)), plain('C')
        ),
        'a history of strings': history(plain(['a']), plain([1])),
        'a history of two dimensions': history(array((1, 1), bytes_of(b'1' * 8)), one),
        'a history that is too long': history(*[array((2,), bytes_of(b'1' * 16))] * 2, length=1),
        'a history with eval': history(*[one] * 2, statistics_methods=name('builtins.eval')),
        'a tensor beyond its storage': tensor(size=(5,)),
        'a tensor beyond its storage by its offset': tensor(offset=1),
        'a tensor beyond its storage by its stride': tensor(size=(2,), stride=(4,)),
        'a tensor with a negative offset': tensor(offset=-1, size=(1,)),
        'a tensor with a negative stride': tensor(offset=3, stride=(-1,)),
        'a tensor with a negative size': tensor(size=(-1, -1), stride=(1, 1)),
        'a tensor of 2**62 elements in one': tensor(size=(2**62,), stride=(0,)),
        'a tensor of many elements in one': tensor(size=(2**30,), stride=(0,)),
        'an empty tensor of 2**62 rows': tensor(size=(2**62, 0), stride=(1, 1)),
        'a tensor with many dimensions': tensor(size=(1,) * 1000, stride=(1,) * 1000),
        'a tensor with a size out of floats': tensor(size=(1.0,)),
        'a tensor of no storage': tensor(of=plain('x')),
        'a storage of another size': tensor(of=storage(5)),
        'a storage of 2**62 elements': tensor(of=storage(2**62)),
        'a storage of a negative size': tensor(of=storage(-1)),
        'a storage that is not there': tensor(of=storage(key='../0')),
        'a storage of an unknown type': tensor(of=storage(kind='torch.nn.FloatStorage')),
        'a storage of a type that is none': tensor(of=storage(kind='torch.Tensor')),
        'a reference to a module': tuple_of(plain('module'), name('torch.Tensor'), plain('a'), plain('b')) + b'Q',
        'a reference that is a string': plain('x') + b'Q',
        'a reference of protocol 0': b'Px\n',
        'a quantised tensor': call('torch._utils._rebuild_qtensor'),
        'a sparse tensor': call('torch._utils._rebuild_sparse_tensor'),
        'a nested tensor': call('torch._utils._rebuild_nested_tensor'),
        'a tensor of a wrapper': call('torch._utils._rebuild_wrapper_subclass'),
        'a tensor of another class': call(
            'torch._tensor._rebuild_from_type_v2',
            name('torch._utils._rebuild_tensor'), name('collections.OrderedDict'),
            tuple_of(storage(), plain(0), plain((4,)), plain((1,))), b'}',
        ),
        'a tensor by another function': call(
            'torch._tensor._rebuild_from_type_v2', name('builtins.getattr'), name('torch.Tensor'), tuple_of(), b'}'
        ),
        'a parameter of a string': call('torch._utils._rebuild_parameter', plain('x'), plain(True), plain(None)),
        'bytes out of a number': call('builtins.bytes', plain(2**30)),
        'a bytearray out of a number': call('builtins.bytearray', plain(2**30)),
        'a bytearray out of a list': call('builtins.bytearray', plain([1, 2])),
        'a decoder': call('_codecs.encode', plain('x'), plain('zip')),
        'a string encoded many times': long + list_of(*[call('_codecs.encode', recall(), plain('latin1'))] * 10_000),
        'a path of a string many times': long + list_of(*[call('pathlib.PosixPath', recall(), recall())] * 10_000),
        'an array copied many times': many_bytes + list_of(*[array((10_000,), recall())] * 10_000),
        'a list copied many times': many_items + list_of(*[call('collections.deque', recall())] * 10_000),
        'a key that is a name': b'}' + name('torch.Tensor') + plain(1) + b's',
        'a key that is a tensor': b'}' + tensor() + plain(1) + b's',
        'a key that is a deep tuple': b'}' + deep + plain(1) + b's',
        'a key that is a long tuple': b'}' + plain((1,) * 100_000) + plain(1) + b's',
        'keys that collide': b'}(' + b''.join(plain(i * (2**61 - 1)) + b'N' for i in range(30_000)) + b'u',
        'complex keys that collide': b'}('
        + b''.join(call('builtins.complex', plain(-1000003.0 * i), plain(float(i))) + b'N' for i in range(10_000))
        + b'u',
        'members that collide': call('builtins.set', plain([i * (2**61 - 1) for i in range(30_000)])),
        'a number of 2**31 digits': b'\x8b' + struct.pack('<i', 2**31 - 1),
        'a number of -1 digits': b'\x8b' + struct.pack('<i', -1),
        'a string of 2**31 bytes': b'X' + struct.pack('<I', 2**31),
        'a string of 2**62 bytes': b'\x8d' + struct.pack('<Q', 2**62),
        'bytes of 2**40': b'\x8e' + struct.pack('<Q', 2**40),
        'a bytearray of 2**40': b'\x96' + struct.pack('<Q', 2**40),
        'a frame of 2**62 bytes': b'\x95' + struct.pack('<Q', 2**62),
        'a frame of 2**40 bytes': b'\x95' + struct.pack('<Q', 2**40),
        'a buffer from elsewhere': b'\x97',
        'a name without an end': b'c' + b'x' * 100_000,
        'a name made of a list': b']]\x93',
        'a value that is not remembered': recall(7),
        'an empty stack': b'R',
        'a state and nothing to have it': plain(1) + b'b',
        'a mark that is missing': b't',
        'nothing at all': b'',
    }  # fmt: skip


def malicious_files(trace: Path) -> dict[str, bytes]:
    """Contents of files that no loader may load; one that executes them makes ``trace``."""
    files = {}
    for what, code in programs(trace).items():
        files[what] = zipped(code)
        files[f'{what} (old format)'] = legacy(code.replace(b'tQ', b'NtQ'), ['0'], struct.pack('<q4f', 4, *[0] * 4))
    old = storage(2**40, extra=b'N')
    files |= {
        'a compressed archive': zipped(tensor(of=storage(2**22)), b'\0' * 2**24, zipfile.ZIP_DEFLATED),
        'a compressed pickle': zipped(plain('x' * 2**24), compression=zipfile.ZIP_DEFLATED),
        'overlapping records': _overlapping(),
        'an archive without a pickle': zipped(b'').replace(b'data.pkl', b'data.pki'),
        'two records of one name': zipped(b'').replace(b'archive/version', b'archive/data/00'[:15]),
        'a record with two names': zipped(tensor()).replace(b'archive/data/0', b'archive/data/1', 1),
        'an old storage of 2**40 elements': legacy(tensor(of=old), ['0'], struct.pack('<q', 2**40)),
        'an old storage that is not read': legacy(tensor(of=storage(extra=b'N'))),
        'an old storage of another size': legacy(
            tensor(of=storage(extra=b'N')), ['0'], struct.pack('<q4f', 5, *[0] * 4)
        ),
        'a part beyond its storage': legacy(
            tensor(of=storage(extra=plain(('1', 3, 2)))), ['0'], struct.pack('<q4f', 4, *[0] * 4)
        ),
        'a bare pickle': pickle.dumps(Command(trace)),
        'a bare pickle of protocol 0': pickle.dumps(Command(trace), 0),
        'a bare pickle of data': pickle.dumps({'weight': [1.0]}),
    }
    return files
