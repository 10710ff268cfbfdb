"""Files that were made to do harm: each is refused, at once, without any effect."""

import sys
import time
import types
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmseg_ext.checkpoints.loading import load_bytes
from tests.reference.assembler import (
    array,
    build,
    bytes_of,
    call,
    dict_of,
    history,
    legacy,
    list_of,
    name,
    plain,
    recall,
    remember,
    storage,
    tensor,
    tuple_of,
    zipped,
)
from tests.reference.malicious import HISTORY, malicious_files

OWNERS = ('torch', 'torch._utils', 'torch.serialization', 'numpy', 'mmengine', 'mmseg_ext', 'collections', 'builtins')


def attributes() -> dict[tuple, int]:
    """The identities of all attributes of the modules and classes that a file could name."""
    modules = [module for text, module in list(sys.modules.items()) if text.startswith(OWNERS) and module]
    owners = [module for module in modules if isinstance(module, types.ModuleType)]
    owners += [torch.Tensor, torch.nn.Parameter, torch.UntypedStorage, HistoryBuffer, OrderedDict, Counter]
    owners += [
        value for module in modules if 'mmseg_ext.checkpoints' in module.__name__
        for value in vars(module).values() if isinstance(value, type)
    ]  # fmt: skip
    # `time` and the like are counted by some modules; a function, class or table that is replaced is what counts.
    kinds = (types.FunctionType, types.BuiltinFunctionType, type, property, classmethod, staticmethod)
    return {
        (owner.__name__, key): id(value)
        for owner in owners
        for key, value in list(vars(owner).items())
        if issubclass(type(value), kinds)
    }


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    trace = tmp_path_factory.mktemp('hostile') / 'trace'
    return trace, malicious_files(trace)


def refused(content: bytes) -> str | None:
    try:
        load_bytes(content, 'c.pth')
    except ValueError as error:
        return str(error)
    return None


def test_every_hostile_file_is_refused_within_a_second_and_changes_nothing(files):
    trace, contents = files
    # What the first load imports.
    load_bytes(zipped(history(*[array((1,), bytes_of(b'1' * 8))] * 2)), 'c.pth')
    before, statistics = attributes(), dict(HistoryBuffer._statistics_methods)
    for what, content in contents.items():
        start = time.perf_counter()
        refusal = refused(content)
        assert time.perf_counter() - start < 1, what
        assert refusal is not None, what
        assert len(refusal) < 1000, what
        assert refusal.isprintable(), what
    assert not trace.exists()
    assert attributes() == before
    assert HistoryBuffer._statistics_methods == statistics
    assert (np.dtype('f8').byteorder, np.dtype('f8').hasobject, np.dtype('f8').flags) == ('=', False, 0)


def memory_to_refuse(content: bytes) -> int:
    """The bytes by which the peak of this process grows."""

    def peak() -> int:
        status = Path('/proc/self/status').read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith('VmHWM'))

    Path('/proc/self/clear_refs').write_text('5')  # begins the peak anew
    before = peak()
    assert refused(content)
    return peak() - before


def test_no_hostile_file_makes_much_memory(files):
    for what, content in files[1].items():
        assert memory_to_refuse(content) < 16 * 2**20 + 8 * len(content), what


def test_what_is_made_of_a_few_bytes_each_is_limited():
    # 216 and 1500 bytes.
    assert memory_to_refuse(zipped(list_of(b'\x8f' * 1_000_000))) < 150 * 2**20
    history_again = (recall() + b')R') * 100_000
    assert memory_to_refuse(zipped(remember(name(HISTORY)) + b'0' + list_of(history_again))) < 150 * 2**20


def test_what_is_hung_on_a_dict_is_dropped_and_its_methods_are_those_of_dict():
    meta = build(call('collections.OrderedDict'), dict_of(pop=name('collections.Counter'), config=plain('x')))
    loaded = load_bytes(zipped(dict_of(meta=meta + plain('config') + plain('print()') + b's')), 'c.pth')
    assert type(loaded['meta']) is dict
    assert loaded['meta'].pop('config') == 'print()'
    assert loaded == {'meta': {}}


def test_what_is_hung_on_a_parameter_or_tensor_is_dropped():
    state = dict_of(shape=plain((1,)), numpy=name('collections.Counter'))
    parameter = call('torch._utils._rebuild_parameter_with_state', tensor(), plain(True), plain(None), state)
    rebuilt = tuple_of(storage(), plain(0), plain((4,)), plain((1,)))
    function, kind = name('torch._utils._rebuild_tensor'), name('torch.Tensor')
    other = call('torch._tensor._rebuild_from_type_v2', function, kind, rebuilt, state)
    for value in load_bytes(zipped(list_of(parameter, other)), 'c.pth'):
        assert type(value) is torch.Tensor
        assert vars(value) == {}
        assert value.shape == (4,)


def test_a_history_takes_two_arrays_and_a_length_and_nothing_else():
    one = array((1,), bytes_of(b'1' * 8))
    statistics = dict_of(mean=name(f'{HISTORY}.max'))
    loaded = load_bytes(zipped(history(one, one, mean=plain('x'), statistics_methods=statistics)), 'c.pth')
    assert vars(loaded).keys() == {'_log_history', '_count_history', 'max_length'}
    assert loaded.statistics('mean') == pytest.approx(1)


def test_arrays_of_one_content_have_memory_of_their_own():
    content = bytes_of(b'\0' * 8000)
    code = list_of(array((1000,), remember(content)), array((1000,), recall()), recall())
    first, second, third = load_bytes(zipped(code), 'c.pth')
    first[:] = 1
    assert second.sum() == 0
    assert third == b'\0' * 8000


@pytest.mark.parametrize('pack', [zipped, legacy])
def test_lists_of_any_depth_load(pack):
    value = load_bytes(pack(b']' * 100_000 + b'a' * 99_999), 'c.pth')
    depth = 0
    while value:
        (value,) = value
        depth += 1
    assert depth == 99_999


def test_tuples_of_any_depth_load():
    value = load_bytes(zipped(b')' + b'\x85' * 100_000), 'c.pth')
    depth = 0
    while value:
        (value,) = value
        depth += 1
    assert depth == 100_000


def test_a_list_that_is_in_itself_loads_as_that():
    value = load_bytes(zipped(remember(b']') + recall() + b'a'), 'c.pth')
    assert value[0] is value


def test_a_list_of_one_list_twice_forty_levels_deep_loads_in_no_time():
    code = remember(plain([1]), 5000) + b'0'
    for level in range(5000, 5040):
        code += remember(list_of(recall(level), recall(level)), level + 1) + b'0'
    start = time.perf_counter()
    value = load_bytes(zipped(code + recall(5040)), 'c.pth')
    assert time.perf_counter() - start < 1
    assert value[0] is value[1]


def test_a_name_far_inside_is_found():
    code = remember(tuple_of(name('torch.Tensor')), 5000) + b'0'
    for level in range(5000, 5040):
        code += remember(tuple_of(recall(level), recall(level)), level + 1) + b'0'
    with pytest.raises(ValueError, match=r'it holds torch\.Tensor'):
        load_bytes(zipped(code + recall(5040)), 'c.pth')
