"""Put a checkpoint together by hand, down to the operations of the pickle machine.

``pickle.dumps`` writes what an object gives it. Here each function returns the code that leaves one value on the stack.
"""

import io
import pickle
import struct
import zipfile
from typing import Any

import torch


def plain(value: Any) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def name(text: str) -> bytes:
    module, _, attribute = text.rpartition('.')
    return f'c{module}\n{attribute}\n'.encode()


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + tuple_of(*arguments) + b'R'


def new(kind: str, *arguments: bytes) -> bytes:
    return name(kind) + tuple_of(*arguments) + b'\x81'


def tuple_of(*items: bytes) -> bytes:
    return b'(' + b''.join(items) + b't'


def list_of(*items: bytes) -> bytes:
    return b'](' + b''.join(items) + b'e'


def dict_of(**items: bytes) -> bytes:
    return b'}(' + b''.join(plain(key) + value for key, value in items.items()) + b'u'


def build(value: bytes, state: bytes) -> bytes:
    return value + state + b'b'


def remember(value: bytes, place: int = 5000) -> bytes:
    return value + b'r' + struct.pack('<I', place)


def recall(place: int = 5000) -> bytes:
    return b'j' + struct.pack('<I', place)


def storage(count: int = 4, key: str = '0', kind: str = 'torch.FloatStorage', extra: bytes = b'') -> bytes:
    return tuple_of(plain('storage'), name(kind), plain(key), plain('cpu'), plain(count), extra) + b'Q'


def tensor(offset: Any = 0, size: Any = (4,), stride: Any = (1,), of: bytes | None = None) -> bytes:
    rest = plain(False), call('collections.OrderedDict')
    return call('torch._utils._rebuild_tensor_v2', of or storage(), plain(offset), plain(size), plain(stride), *rest)


def number_type(code: str = 'f8', order: str = '<') -> bytes:
    kind = call('numpy.dtype', plain(code), plain(False), plain(True))
    return build(kind, plain((3, order, None, None, None, -1, -1, 0)))


def array(shape: Any, content: bytes, kind: bytes | None = None, owner: str = 'numpy.ndarray') -> bytes:
    empty = call('numpy._core.multiarray._reconstruct', name(owner), plain((0,)), call('builtins.bytes'))
    return build(empty, array_state(shape, content, kind))


def array_state(shape: Any, content: bytes, kind: bytes | None = None) -> bytes:
    return tuple_of(plain(1), plain(shape), kind or number_type(), plain(False), content)


def bytes_of(content: bytes) -> bytes:
    return b'B' + struct.pack('<I', len(content)) + content


def history(values: bytes, counts: bytes, length: int = 10, **state: bytes) -> bytes:
    kind = new('mmengine.logging.history_buffer.HistoryBuffer')
    return build(kind, dict_of(_log_history=values, _count_history=counts, max_length=plain(length), **state))


def zipped(code: bytes, data: bytes = b'\0' * 16, compression: int = zipfile.ZIP_STORED, protocol: int = 2) -> bytes:
    """A file in torch's zip format whose one storage, '0', has 4 floats."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as file:
        file.writestr('archive/data.pkl', b'\x80' + bytes([protocol]) + code + b'.')
        file.writestr('archive/byteorder', 'little')
        file.writestr('archive/data/0', data)
        file.writestr('archive/version', '3\n')
    return buffer.getvalue()


def legacy(code: bytes, keys: Any = (), data: bytes = b'') -> bytes:
    """A file in torch's old format."""
    head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}]
    pickles = [*(pickle.dumps(item, 2) for item in head), b'\x80\x02' + code + b'.', pickle.dumps(list(keys), 2)]
    return b''.join(pickles) + data
