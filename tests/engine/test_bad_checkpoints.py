"""Thirty kinds of wrong checkpoint: each is refused, at once, with one sentence that names the file and what to do."""

import os
import pickle
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.tiny_run import TinyNet, train
from mmseg_ext.checkpoints import load_file
from tests.reference.malicious import save_malicious

SECONDS = 10


@pytest.fixture(scope='module')
def good(tmp_path_factory) -> Path:
    """A checkpoint of a training."""
    folder = tmp_path_factory.mktemp('good')
    train(folder, **{'train_cfg.max_iters': 2})
    return folder / 'iter_2.pth'


def write(path: Path, content) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def save(path: Path, content) -> str:
    torch.save(content, path)
    return str(path)


def change(good: Path, path: Path, **entries) -> str:
    content = load_file(good)
    for name, value in entries.items():
        content.pop(name) if value is None else content.update({name: value})
    return save(path, content)


def deflate(good: Path, path: Path) -> str:
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return str(path)


def without_record(good: Path, path: Path) -> str:
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, 'w') as target:
        names = source.namelist()
        for name in names:
            if not name.endswith('/data/0'):
                target.writestr(name, source.read(name))
    return str(path)


def network(**options) -> dict[str, torch.Tensor]:
    return TinyNet(**options).state_dict()


def weights(good: Path, path: Path, state_dict: dict[str, torch.Tensor]) -> str:
    return change(good, path, state_dict=state_dict)


SGD = dict(state={}, param_groups=[dict(lr=0.1, momentum=0.9, params=list(range(6)))])

# Name -> (how the file is made from a good one at a path, what the sentence says).
FILES = {
    'missing': (lambda good, c: str(c), r'c\.pth does not exist'),
    'a folder': (lambda good, c: str(c.parent), 'directory|folder'),
    'empty': (lambda good, c: write(c, b''), 'empty'),
    'a text': (lambda good, c: write(c, '<html>404</html>'), 'is not a torch file'),
    'a picture': (lambda good, c: write(c, b'\x89PNG\r\n\x1a\n' + bytes(99)), 'is not a torch file'),
    'truncated': (lambda good, c: write(c, good.read_bytes()[:5000]), 'damaged'),
    'end missing': (lambda good, c: write(c, good.read_bytes()[:-30]), 'damaged'),
    'a record missing': (lambda good, c: without_record(good, c), 'damaged'),
    'compressed': (lambda good, c: deflate(good, c), 'compressed'),
    'a bare pickle': (lambda good, c: write(c, pickle.dumps({'a': 1})), r'c\.pth'),
    'hostile': (lambda good, c: str(save_malicious(c, c.parent / 'trace')), 'execute code'),
    'a whole module': (lambda good, c: save(c, nn.Linear(2, 2)), r'Linear'),
    'a tensor': (lambda good, c: save(c, torch.zeros(3)), 'holds no weights'),
    'a list': (lambda good, c: save(c, [1, 2]), 'holds no weights'),
    'no weights': (lambda good, c: save(c, dict(meta={})), 'holds no weights'),
    'empty weights': (lambda good, c: save(c, dict(state_dict={})), 'weights'),
    'state_dict is a list': (lambda good, c: save(c, dict(state_dict=[1])), 'state_dict'),
    'keys are numbers': (lambda good, c: save(c, {1: torch.zeros(2)}), r'c\.pth'),
    'damaged safetensors': (lambda good, c: write(c.with_suffix('.safetensors'), b'no'), 'damaged'),
    'other classes': (
        lambda good, c: weights(good, c, {**network(), 'net.4.weight': torch.zeros(7, 16)}),
        r'net\.4\.weight: \(7, 16\) in the file, \(1, 16\)',
    ),
    'another width': (lambda good, c: weights(good, c, network(hidden=8)), r'\(8, 8\) in the file'),
    'a stage more': (lambda good, c: weights(good, c, {**network(), 'net.5.bias': torch.zeros(1)}), r'net\.5\.bias'),
    'a stage less': (
        lambda good, c: weights(good, c, {key: value for key, value in network().items() if 'net.4' not in key}),
        r'net\.4\.weight',
    ),
    'another network': (lambda good, c: weights(good, c, nn.Conv2d(3, 4, 1).state_dict()), 'another architecture'),
    'integers': (
        lambda good, c: weights(good, c, {key: value.long() for key, value in network().items()}),
        'int64',
    ),
    'weights alone': (lambda good, c: save(c, network()), 'is not of a training that can go on.*--load-from'),
    'no optimizer': (lambda good, c: change(good, c, optimizer=None), 'no optimizer.*--load-from'),
    'no progress': (lambda good, c: change(good, c, meta={}), r'no meta\.iter'),
    'another optimizer': (lambda good, c: change(good, c, optimizer=SGD), 'has no .*betas, eps.* as AdamW has'),
    'unknown name': (lambda good, c: 'torchvision://resnet5', 'did you mean'),
    'unknown scheme': (lambda good, c: 'gopher://a/b.pth', 'unknown scheme|no safe loader'),
    'address of a folder': (lambda good, c: 'http://127.0.0.1:9/weights/', 'weights/'),
    'address of nothing': (lambda good, c: 'http://127.0.0.1:9/a.pth', r'http://127\.0\.0\.1:9/a\.pth failed'),
}


@pytest.mark.parametrize('kind', FILES)
def test_a_wrong_checkpoint_is_refused_at_once_with_its_name(tmp_path, good, kind):
    make, message = FILES[kind]
    (tmp_path / 'files').mkdir()
    source = make(good, tmp_path / 'files/c.pth')
    begun = time.monotonic()
    with pytest.raises((ValueError, OSError), match=f'(?s){message}') as caught:
        train(tmp_path / 'work', resume=True, load_from=source)
    assert time.monotonic() - begun < SECONDS
    assert Path(source).name in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'files/trace').exists()
    assert not list((tmp_path / 'work').glob('*.pth'))


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no FIFOs here')
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.pth')
    with pytest.raises((ValueError, OSError), match=r'pipe\.pth'):
        train(tmp_path / 'work', resume=True, load_from=str(tmp_path / 'pipe.pth'))


def test_an_address_that_is_not_found_is_refused_with_its_status(tmp_path):
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f'http://127.0.0.1:{server.server_port}/a.pth'
        with pytest.raises(ConnectionError, match=rf'{address} failed.*404'):
            train(tmp_path / 'work', resume=True, load_from=address)
    finally:
        server.shutdown()


def test_an_address_is_resumed_from(tmp_path, good, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))

    class Send(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(good.read_bytes())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Send)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f'http://127.0.0.1:{server.server_port}/iter_2.pth'
        runner = train(tmp_path / 'work', resume=True, load_from=address, **{'train_cfg.max_iters': 3})
    finally:
        server.shutdown()
    assert runner.iter == 3
