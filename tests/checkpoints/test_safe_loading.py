"""Reading files: what is read, what is refused, and that nothing is executed."""

import argparse
import os
import pickle
import sys
import tarfile
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmseg_ext.checkpoints import UnsafeCheckpointError, load_file
from mmseg_ext.checkpoints.loading import TRUST_VARIABLE, load_bytes
from tests.reference.malicious import Command, save_malicious

WEIGHTS = {'state_dict': {'weight': torch.arange(1000.0)}}


class Call:
    """Unpickles as the result of a call, optionally with a state set on it."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


@pytest.fixture(params=[True, False], ids=['new format', 'old format'])
def zipped(request) -> dict:
    return dict(_use_new_zipfile_serialization=request.param)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    path = save_malicious(tmp_path / 'm.pth', tmp_path / 'trace', **zipped)
    with pytest.raises(UnsafeCheckpointError, match=rf'system.*{TRUST_VARIABLE}=1'):
        load_file(path)
    with pytest.raises(UnsafeCheckpointError, match='system'):
        load_bytes(path.read_bytes(), 'm.pth')
    assert not (tmp_path / 'trace').exists()


def test_that_pickle_does_run_for_a_user_who_says_so(tmp_path, zipped, monkeypatch):
    path = save_malicious(tmp_path / 'm.pth', tmp_path / 'trace', **zipped)
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    load_file(path)
    assert (tmp_path / 'trace').exists()


@pytest.mark.parametrize('value', ['0', 'true', ''])
def test_only_the_value_1_means_trust(tmp_path, monkeypatch, value):
    path = save_malicious(tmp_path / 'm.pth', tmp_path / 'trace')
    monkeypatch.setenv(TRUST_VARIABLE, value)
    with pytest.raises(UnsafeCheckpointError):
        load_file(path)
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('variable', ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'])
def test_torchs_variables_change_nothing(tmp_path, monkeypatch, variable):
    path = save_malicious(tmp_path / 'm.pth', tmp_path / 'trace')
    monkeypatch.setenv(variable, '1')
    with pytest.raises(UnsafeCheckpointError):
        load_file(path)
    assert not (tmp_path / 'trace').exists()


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path):
    path = tmp_path / 'm.pkl'
    for protocol in (2, pickle.DEFAULT_PROTOCOL):
        path.write_bytes(pickle.dumps(Command(tmp_path / 'trace'), protocol))
        with pytest.raises(UnsafeCheckpointError):
            load_file(path)
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize(
    ('content', 'culprit'),
    [
        (nn.Linear(2, 2), 'torch.nn.modules.linear.Linear'),
        (dict(args=argparse.Namespace(lr=1), **WEIGHTS), 'argparse.Namespace'),
        (dict(method=Call(getattr, OrderedDict, 'get'), **WEIGHTS), "calls getattr for 'get'"),
        (dict(memory=Call(bytes, 10), **WEIGHTS), 'bytes'),
        (dict(file=Call(open, 'file')), 'open'),
        (dict(names=np.array(['road']), **WEIGHTS), 'not a number'),
        (dict(things=np.array([None]), **WEIGHTS), 'numpy'),
    ],
)
def test_a_file_with_more_than_data_is_refused_by_the_name_of_the_culprit(tmp_path, content, culprit, zipped):
    torch.save(content, tmp_path / 'c.pth', **zipped)
    with pytest.raises(UnsafeCheckpointError, match=culprit):
        load_file(tmp_path / 'c.pth')


@pytest.mark.parametrize('name', ['c.pth', 'c.pth.tar', 'c.pt'])
def test_weights_load_from_both_formats_under_every_name(tmp_path, name, zipped):
    torch.save(WEIGHTS, tmp_path / name, **zipped)
    assert torch.equal(load_file(tmp_path / name)['state_dict']['weight'], torch.arange(1000.0))


def test_log_history_and_numbers_of_numpy_load_and_are_saved_as_numpys(tmp_path, zipped):
    arrays = [np.array([[0, 1, 1], [0, 0, 1]], dtype=kind) for kind in ('?', 'u1', 'i4', '<i8', '>f4', 'f8', 'c8')]
    arrays += [np.asfortranarray(np.eye(3)[:2]), np.zeros((0, 2))]
    content = dict(history=HistoryBuffer([1.5, 2.5], [1, 2]), best=np.float64(0.25), count=np.int32(3), arrays=arrays)
    torch.save(content, tmp_path / 'c.pth', **zipped)
    loaded = load_file(tmp_path / 'c.pth')
    assert loaded['history'].statistics('mean') == pytest.approx(4 / 3)
    assert type(loaded['history']) is HistoryBuffer
    assert (loaded['best'], loaded['count']) == (0.25, 3)
    assert isinstance(loaded['best'], np.float64)
    for array, expected in zip(loaded['arrays'], arrays, strict=True):
        assert array.dtype == expected.dtype.newbyteorder('=')
        np.testing.assert_array_equal(array, expected)
    assert [type(pickle.loads(pickle.dumps(array))) for array in loaded['arrays']] == [np.ndarray] * len(arrays)


def test_a_file_cannot_change_numpys_own_types(tmp_path):
    # The shared float64, told to be big-endian and to hold references.
    vandal = Call(np.dtype, 'f8', state=(3, '>', None, None, None, -1, -1, 63))
    torch.save(dict(bad=vandal, **WEIGHTS), tmp_path / 'c.pth')
    with pytest.raises(UnsafeCheckpointError, match='NumpyType'):
        load_file(tmp_path / 'c.pth')
    assert (np.dtype('f8').byteorder, np.dtype('f8').hasobject, np.dtype('f8').flags) == ('=', False, 0)


def test_a_file_cannot_change_the_statistics_of_log_histories(tmp_path):
    before = dict(HistoryBuffer._statistics_methods)
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    state = dict(history.__getstate__(), statistics_methods={'mean': HistoryBuffer.max}, extra=1)
    torch.save(Call(HistoryBuffer, state=state), tmp_path / 'c.pth')
    loaded = load_file(tmp_path / 'c.pth')
    assert HistoryBuffer._statistics_methods == before
    assert type(loaded) is HistoryBuffer
    assert loaded.statistics('mean') == 1.5
    assert not hasattr(loaded, 'extra')


def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path):
    class Short(np.ndarray):
        def __reduce__(self):
            function, arguments, state = np.zeros(4).__reduce__()
            return function, arguments, (*state[:-1], b'short')

    torch.save(dict(bad=np.zeros(4).view(Short)), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r'c\.pth'):
        load_file(tmp_path / 'c.pth')


def test_a_torchscript_archive_and_the_format_of_2016_are_refused_with_the_reason(tmp_path):
    torch.save(WEIGHTS, tmp_path / 'c.pth')
    with tarfile.open(tmp_path / 'old.pth', 'w') as file:
        file.add(tmp_path / 'c.pth', 'storages')
    with pytest.raises(UnsafeCheckpointError, match=r'legacy \.tar format'):
        load_file(tmp_path / 'old.pth')
    with zipfile.ZipFile(tmp_path / 'script.pth', 'w') as file:
        for name in ('version', 'data.pkl', 'constants.pkl', 'code/a.py'):
            file.writestr(f'script/{name}', b'3\n')
    with pytest.raises(UnsafeCheckpointError, match='TorchScript'):
        load_file(tmp_path / 'script.pth')


def test_a_truncated_file_is_called_damaged(tmp_path, zipped):
    torch.save(WEIGHTS, tmp_path / 'c.pth', **zipped)
    content = (tmp_path / 'c.pth').read_bytes()
    for size in (len(content) // 2, len(content) - 30):
        (tmp_path / 't.pth').write_bytes(content[:size])
        with pytest.raises(ValueError, match=r't\.pth could not be read, it may be damaged'):
            load_file(tmp_path / 't.pth')


@pytest.mark.parametrize(('content', 'message'), [(b'<html>404</html>\n', 'is not a torch file'), (b'', 'is empty')])
def test_a_text_and_an_empty_file_are_no_checkpoints(tmp_path, content, message):
    (tmp_path / 'c.pth').write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_file(tmp_path / 'c.pth')
    assert not isinstance(caught.value, UnsafeCheckpointError)
    with pytest.raises(ValueError, match=message):
        load_bytes(content, 'c.pth')


def test_any_changed_byte_gives_weights_or_a_value_error(tmp_path, zipped):
    torch.save(dict(history=HistoryBuffer([1.0], [1]), **WEIGHTS), tmp_path / 'c.pth', **zipped)
    content = (tmp_path / 'c.pth').read_bytes()
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        changed = bytearray(content)
        changed[generator.integers(len(content))] = generator.integers(256)
        try:
            load_bytes(bytes(changed), 'c.pth')
            outcomes.add('loaded')
        except ValueError as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {'loaded', 'ValueError', 'UnsafeCheckpointError'}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no\.pth does not exist'):
        load_file(tmp_path / 'no.pth')


def test_a_folder_and_a_pipe_are_told_from_a_file_without_waiting(tmp_path):
    with pytest.raises(ValueError, match='is a folder'):
        load_file(tmp_path)
    os.mkfifo(tmp_path / 'pipe.pth')
    for path in (tmp_path / 'pipe.pth', '/dev/zero'):
        with pytest.raises(ValueError, match='is a device or pipe'):
            load_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    torch.save(WEIGHTS, tmp_path / 'c.pth')
    (tmp_path / 'c.pth').chmod(0)
    with pytest.raises(PermissionError, match=r'c\.pth may not be read by you'):
        load_file(tmp_path / 'c.pth')


def test_paths_that_can_not_be_are_missing_files(tmp_path):
    for path in ('a\0b.pth', 'x' * 5000, tmp_path / 'c.pth' / 'd.pth', '~nobody-of-this-name/c.pth'):
        with pytest.raises(FileNotFoundError, match='does not exist'):
            load_file(path)


def test_what_a_user_allows_torch_to_load_changes_nothing(tmp_path, zipped):
    history = HistoryBuffer([1.5], [1])
    torch.save(dict(history=history, **WEIGHTS), tmp_path / 'c.pth', **zipped)
    path = save_malicious(tmp_path / 'm.pth', tmp_path / 'trace', **zipped)
    multiarray = np._core.multiarray
    with torch.serialization.safe_globals(
        [multiarray._reconstruct, np.ndarray, np.dtype, HistoryBuffer, getattr, os.system]
    ):
        assert load_file(tmp_path / 'c.pth')['history'].statistics('mean') == 1.5
        with pytest.raises(UnsafeCheckpointError, match='system'):
            load_file(path)
        assert torch.serialization.get_safe_globals()
    assert not (tmp_path / 'trace').exists()


def test_threads_that_load_at_once_all_get_their_files(tmp_path, zipped):
    torch.save(dict(history=HistoryBuffer([1.5], [1]), **WEIGHTS), tmp_path / 'c.pth', **zipped)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load_file, [tmp_path / 'c.pth'] * 40))
    assert all(content['history'].statistics('mean') == 1.5 for content in loaded)


def test_a_trusted_file_is_left_as_torch_loads_it(tmp_path, zipped, monkeypatch):
    content = OrderedDict(weight=nn.Parameter(torch.ones(2)))
    torch.save(content, tmp_path / 'c.pth', **zipped)
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    loaded = load_file(tmp_path / 'c.pth')
    assert type(loaded) is OrderedDict
    assert type(loaded['weight']) is nn.Parameter


def test_safetensors_load(tmp_path):
    from safetensors.torch import save_file

    save_file(WEIGHTS['state_dict'], tmp_path / 'c.safetensors')
    loaded = load_file(tmp_path / 'c.safetensors')
    assert type(loaded) is dict
    assert torch.equal(loaded['weight'], torch.arange(1000.0))
    (tmp_path / 'd.safetensors').write_bytes(b'no')
    with pytest.raises(ValueError, match=r'd\.safetensors could not be read'):
        load_file(tmp_path / 'd.safetensors')


def test_without_the_package_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / 'c.safetensors').write_bytes(b'x')
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(ImportError, match='pip install safetensors'):
        load_file(tmp_path / 'c.safetensors')
