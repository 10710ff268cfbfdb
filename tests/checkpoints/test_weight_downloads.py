"""Names, URLs and downloads: only a whole file with the published hash arrives."""

import hashlib
import http.server
import io
import re
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
import torchvision.models
from mmengine.runner.checkpoint import get_external_models, get_mmcls_models, get_torchvision_models

from mmseg_ext.checkpoints import PUBLISHED, UnsafeCheckpointError, download, load_checkpoint, load_file, resolve
from mmseg_ext.checkpoints.download import published_hash
from tests.reference.malicious import save_malicious


@pytest.fixture
def server():
    """A server on this machine: (files by name, number of bytes after which it hangs up or None, its URL)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            content = files.get(self.path.removeprefix('/').split('?')[0])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if 'hang-up' in self.path else content)

        def log_message(self, *args):
            pass

    files, requests = {}, []
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield files, requests, f'http://127.0.0.1:{httpd.server_port}'
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def weights(value: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    torch.save({'weight': torch.full((1000,), value)}, buffer)
    return buffer.getvalue()


def named(content: bytes) -> str:
    return f'net-{hashlib.sha256(content).hexdigest()[:8]}.pth'


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob('*') if path.is_file()]


def test_a_file_with_the_hash_of_its_name_is_kept_and_not_fetched_again(server, tmp_path):
    files, requests, url = server
    name = named(weights())
    files[name] = weights()
    path = download(f'{url}/{name}?raw=true', tmp_path)
    assert path == tmp_path / name
    assert path.read_bytes() == weights()
    assert download(f'{url}/{name}', tmp_path) == path
    assert len(requests) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_another_hash_is_refused_and_deleted(server, tmp_path):
    files, _, url = server
    name = named(weights(1.0))
    files[name] = weights(2.0)
    got = hashlib.sha256(weights(2.0)).hexdigest()
    expected = published_hash(name)
    with pytest.raises(ValueError, match=rf'refused and deleted.*starts with {expected}, but it is {got}'):
        download(f'{url}/{name}', tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stored_file_with_another_hash_is_replaced(server, tmp_path):
    files, _, url = server
    name = named(weights())
    files[name] = weights()
    (tmp_path / name).write_bytes(b'half')
    assert download(f'{url}/{name}', tmp_path).read_bytes() == weights()


@pytest.mark.parametrize('name', ['hang-up.pth', 'hang-up-01234567.pth'])
def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(server, tmp_path, name):
    files, _, url = server
    files[name] = weights()
    size = len(weights())
    with pytest.raises(ConnectionError, match=f'broke off after {size // 2} of {size} bytes'):
        download(f'{url}/{name}', tmp_path)
    assert files_in(tmp_path) == []


def test_a_missing_file_and_a_missing_server_are_errors_of_one_sentence_within_seconds(server, tmp_path):
    start = time.perf_counter()
    url = f'{server[2]}/none.pth'
    with pytest.raises(
        ConnectionError, match=rf'of {url} failed: the server answers 404 Not Found\. Download it by hand'
    ):
        download(url, tmp_path)
    with pytest.raises(ConnectionError, match=r'of http://127\.0\.0\.1:1/none\.pth failed: .*refused'):
        download('http://127.0.0.1:1/none.pth', tmp_path)
    assert time.perf_counter() - start < 5
    assert files_in(tmp_path) == []


def test_a_url_loads_from_torch_hubs_folder_and_never_runs_code(server, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    files, requests, url = server
    name = named(weights())
    files[name] = weights()
    assert load_checkpoint(f'{url}/{name}')['weight'].sum() == 1000
    assert Path(torch.hub.get_dir(), 'checkpoints', name).is_file()
    assert Path(torch.hub.get_dir()).is_relative_to(tmp_path)
    load_checkpoint(f'{url}/{name}')
    assert len(requests) == 1
    files['bad.pth'] = save_malicious(tmp_path / 'bad.pth', tmp_path / 'trace').read_bytes()
    with pytest.raises(UnsafeCheckpointError, match='system'):
        load_checkpoint(f'{url}/bad.pth')
    assert not (tmp_path / 'trace').exists()


def test_addresses_that_end_in_one_name_never_share_a_file_without_a_hash(server, tmp_path):
    files, requests, url = server
    files.update({'a/net.pth': weights(1.0), 'b/net.pth': weights(2.0)})
    addresses = [f'{url}/a/net.pth', f'{url}/b/net.pth', f'{url}/b/net.pth?version=2']
    paths = [download(address, tmp_path) for address in addresses]
    assert [path.name for path in paths] == ['net.pth'] * 3
    assert len(set(paths)) == 3
    assert [load_file(path)['weight'][0] for path in paths] == [1, 2, 2]
    assert [download(address, tmp_path) for address in addresses] == paths
    assert len(requests) == 3


def test_the_folder_of_an_address_is_not_taken_for_the_hash_of_its_file(server, tmp_path):
    files, _, url = server
    files['net.pth.tar'] = weights()
    path = download(f'{url}/net.pth.tar', tmp_path)
    assert re.fullmatch('[0-9a-f]{16}', path.parent.name)
    assert path.parent.parent == tmp_path


@pytest.mark.parametrize(
    'end',
    [
        '', '/', '.', '..', 'a/..', '%2e%2e', '..%2Fa.pth', '%2Fetc%2Fa.pth', '..%5Ca.pth', 'a%00.pth', 'a%0A.pth',
        '?a.pth', '#a.pth', 'a%1b.pth',
    ],
)  # fmt: skip
def test_an_address_without_a_proper_file_name_is_an_error_that_names_it(server, tmp_path, end):
    address = f'{server[2]}/x/{end}'
    with pytest.raises(ValueError, match=re.escape(repr(address)) + '.*name of a file'):
        download(address, tmp_path / 'cache')
    assert list(tmp_path.iterdir()) == []
    assert server[1] == []


@pytest.mark.parametrize(
    'address', ['file:///etc/passwd', 'ftp://host/a.pth', 'a.pth', 'http://[/a.pth', 'https:///a.pth']
)
def test_what_is_no_address_of_the_web_is_an_error_that_names_it(tmp_path, address):
    with pytest.raises(ValueError, match=re.escape(repr(address)) + ' is no address'):
        download(address, tmp_path)


@pytest.mark.parametrize('end', ['.pth', '-0123abcd.pth'])
def test_names_of_any_length_and_with_blanks_and_umlauts_work(server, tmp_path, end):
    files, _, url = server
    end = end.replace('0123abcd', hashlib.sha256(weights()).hexdigest()[:8])
    name = 'ä b' * 300 + end
    files[quote(name)] = weights()
    path = download(f'{url}/{name}', tmp_path)
    assert path.name.endswith('ä b' + end)
    assert download(f'{url}/{name}', tmp_path) == path
    assert path.read_bytes() == weights()


def test_a_folder_that_can_not_be_made_is_named_with_the_variable_that_changes_it(server, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    with pytest.raises(ValueError, match=rf'folder {tmp_path}/file/hub/checkpoints.*: Not a directory\. .*TORCH_HOME'):
        load_checkpoint(f'{server[2]}/net.pth')
    assert server[1] == []


def test_a_missing_home_folder_is_an_error_and_no_folder_of_that_name_is_made(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', '~nobody-of-this-name/torch')
    with pytest.raises(ValueError, match=r'folder ~nobody-of-this-name.*home folder is not known\. .*TORCH_HOME'):
        load_checkpoint(f'{server[2]}/net.pth')
    assert list(tmp_path.iterdir()) == []


def test_only_a_hash_at_the_end_of_a_pth_name_counts():
    assert published_hash('resnet50_8xb32_in1k_20210831-ea4938fc.pth') == 'ea4938fc'
    assert published_hash('net-0123456789abcdef.pth.tar') == '0123456789abcdef'
    assert published_hash('resnet50-d8.pth') is None
    assert published_hash('net_0123abcd.pth') is None


def test_every_published_file_carries_its_hash_and_comes_by_https():
    for name, url in PUBLISHED.items():
        assert url.startswith('https://'), name
        assert published_hash(url.rsplit('/', 1)[1]), name
        assert resolve(name) == url


def test_the_table_says_what_torchvision_says():
    names = [name.removeprefix('torchvision://') for name in PUBLISHED if name.startswith('torchvision://')]
    assert len(names) == 11
    for name in names:
        model, _, version = name.partition('.')
        entry = torchvision.models.get_model_weights(model)[(version or 'imagenet1k_v1').upper()]
        assert PUBLISHED[f'torchvision://{name}'] == entry.url
        assert get_torchvision_models()[name] == entry.url


def test_the_table_says_what_the_official_resnest_says():
    from resnest.torch import ablation, resnest

    official = {**resnest.resnest_model_urls, **ablation.resnest_model_urls}
    ours = {name.removeprefix('resnest://'): url for name, url in PUBLISHED.items() if name.startswith('resnest://')}
    # The release on PyPI names the same files on a host that is gone.
    assert {name: url.rsplit('/', 1)[1] for name, url in official.items()} == {
        name: url.rsplit('/', 1)[1] for name, url in ours.items()
    }


def test_the_table_names_the_files_that_mmengine_names():
    names = [name.removeprefix('open-mmlab://') for name in PUBLISHED if name.startswith('open-mmlab://')]
    assert sorted(names) == ['resnet101_v1c', 'resnet18_v1c', 'resnet50_v1c']
    for name in names:
        theirs = get_external_models()[name]
        assert PUBLISHED[f'open-mmlab://{name}'].rsplit('/', 1)[1] == theirs.rsplit('/', 1)[1]


def test_names_outside_the_table_resolve_through_mmengine():
    assert resolve('open-mmlab://resnest50') == get_external_models()['resnest50']
    assert resolve('mmcls://resnet50') == get_mmcls_models()['resnet50']
    assert resolve('torchvision://resnet50.default') == get_torchvision_models()['resnet50.default']
    assert resolve('modelzoo://resnet50') == resolve('torchvision://resnet50')
    assert resolve('openmmlab://resnet50_v1c') == resolve('open-mmlab://resnet50_v1c')
    assert resolve('open-mmlab://resnet50_caffe') == get_external_models()['detectron/resnet50_caffe']


def test_paths_and_urls_mean_themselves():
    for source in ('work_dirs/a.pth', '/a.pth', 'http://host/a.pth', 'https://host/a.pth'):
        assert resolve(source) == source


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('resnest://resnest51', "did you mean one of ['resnest://resnest50"),
        ('torchvision://resnet5', 'torchvision://resnet50'),
        ('s3://bucket/a.pth', 'unknown scheme'),
    ],
)
def test_an_unknown_name_is_an_error_with_the_names_near_it(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(name)
