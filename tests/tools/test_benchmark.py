import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from mmseg_ext.checkpoints.building import build_model
from mmseg_ext.engine.config import load_config
from mmseg_ext.models.segmentors import EncoderDecoder

from .conftest import NARROW, ROOT, load_tool

SHIPPED = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
SMALL = ['--size', '64x64', '--repeats', '2', '--threads', '1', '--device', 'cpu']


@pytest.fixture(scope='module')
def configs(tmp_path_factory) -> dict[str, str]:
    """Some of our configs, by head and data set, with a narrow network."""
    files = {}
    for name in ('psp_r18v1c_cityscapes', 'psp_r18v1c_camvid', 'deeplabv3_r18v1c_cityscapes'):
        head, _, data = name.split('_')
        files[f'{head} {data}'] = path = str(tmp_path_factory.mktemp('configs') / f'{name}.py')
        load_config(str(ROOT / f'configs/{name}.py'), {'model.backbone.init_cfg': None, **NARROW}).dump(path)
    return files


@pytest.fixture
def config(configs) -> str:
    return configs['psp cityscapes']


def test_ours_and_mmsegs_are_measured_side_by_side_with_equal_labels(tmp_path, capsys):
    out = tmp_path / 'figures.json'
    arguments = [SHIPPED, '--upgrade', '--against', 'mmseg', '--fold-bn', '--channels-last', *SMALL, '--out', str(out)]
    options = ['--cfg-options', *(f'{key}={value}' for key, value in {**NARROW, 'model.pretrained': None}.items())]
    load_tool('benchmark').main([*arguments, *options])
    results = json.loads(out.read_text())
    ours, theirs = results['model'], results['against']
    assert ours['parameters'] == theirs['parameters'] > 10**5
    # At this size nothing pays below the upsampling; labels are made by products of matrices, of a network so narrow.
    assert 0 < ours['prediction']['multiply_adds'] < 1.1 * theirs['prediction']['multiply_adds']
    # Two images, each forward and twice back.
    assert ours['training_step']['multiply_adds'] > 4 * ours['prediction']['multiply_adds']
    for shares in (ours['shares'], theirs['shares']):
        assert min(shares.values()) > 0
        assert sum(shares.values()) == pytest.approx(1)
    for key in ('prediction', 'training_step'):
        assert 0 < ours[key]['median'] <= ours[key]['p90']
        assert ours[key]['ratio'] == 1
        assert theirs[key]['ratio'] > 0
        assert ours[key]['peak_bytes'] > 0
    assert results['label_agreement']['plain'] > 0.9999
    assert results['label_agreement']['against'] > 0.999
    table = capsys.readouterr().out
    assert 'share of the post-processing' in table
    assert 'labels equal to those of against' in table


@pytest.fixture
def weights(config) -> dict[str, torch.Tensor]:
    model = build_model(load_config(config).model, 'mmseg_ext')
    assert isinstance(model, EncoderDecoder)
    return model.state_dict()


def test_a_checkpoint_is_measured_and_another_model_beside_it(weights, configs, config, tmp_path):
    torch.save(dict(state_dict=weights), tmp_path / 'x.pth')
    other = ['--against', configs['deeplabv3 cityscapes']]
    results = load_tool('benchmark').main([config, str(tmp_path / 'x.pth'), *other, '--precision', 'bf16', *SMALL])
    assert set(results['label_agreement']) == {'plain'}
    assert results['against']['parameters'] != results['model']['parameters']


def test_a_checkpoint_at_an_address_is_measured_in_both_models(weights, configs, config, tmp_path, monkeypatch):
    torch.save(dict(state_dict=weights), tmp_path / 'x.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f'http://127.0.0.1:{server.server_port}/x.pth'
            results = load_tool('benchmark').main([config, url, '--against', config, *SMALL])
            with pytest.raises(ValueError, match=rf'checkpoint {url} does not fit .*trained for 19 classes'):
                load_tool('benchmark').main([configs['psp camvid'], url, *SMALL])
        finally:
            server.shutdown()
            thread.join()
    assert results['label_agreement'] == {'plain': 1, 'against': 1}


def test_what_may_miss_in_a_checkpoint_is_said_by_switches(weights, config, tmp_path):
    changed = {key: value for key, value in weights.items() if not key.startswith('auxiliary_head.')}
    changed['backbone.extra'] = torch.ones(1)
    torch.save(dict(state_dict=changed), tmp_path / 'x.pth')
    arguments = [config, str(tmp_path / 'x.pth'), *SMALL]
    with pytest.raises(ValueError, match=r'1 unexpected \(backbone\.extra\).*--allow-missing auxiliary_head\. --allow'):
        load_tool('benchmark').main(arguments)
    switches = ['--allow-missing', 'auxiliary_head.', '--allow-unexpected', 'backbone.extra']
    load_tool('benchmark').main([*arguments, *switches])


def test_a_missing_checkpoint_is_an_error_before_a_model_is_built(config, tmp_path):
    arguments = [config, str(tmp_path / 'gone.pth'), *SMALL, '--cfg-options', 'model.type=NoSuchSegmentor']
    with pytest.raises(FileNotFoundError, match=r'gone\.pth'):
        load_tool('benchmark').main(arguments)


def test_a_model_with_other_classes_keeps_its_own_weights_and_its_labels_are_not_compared(configs, config):
    results = load_tool('benchmark').main([config, '--against', configs['psp camvid'], *SMALL])
    assert set(results['label_agreement']) == {'plain'}


def test_a_config_that_mmsegs_classes_do_not_know_is_refused_with_the_remedy(config):
    with pytest.raises(ValueError, match=r"--against: mmseg's classes .*compare with a config that mmseg ships"):
        load_tool('benchmark').main([config, '--against', 'mmseg', *SMALL])
