"""``tools/convert_checkpoint.py``: what it writes and says."""

from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from mmseg_ext.checkpoints import UnsafeCheckpointError, load_file
from mmseg_ext.models.backbones import ResNetV1c
from tests.reference.foreign_networks import DeepLab, SemsegPSPNet
from tests.reference.malicious import save_malicious
from tests.reference.weights import randomise
from tests.tools.conftest import load_tool

CONFIG = """
default_scope = '{scope}'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor'),
    backbone=dict(type='ResNetV1c', depth=50, base_channels=8, stem_channels=16, norm_cfg=norm_cfg),
    decode_head=dict(type='PSPHead', in_channels=256, in_index=3, channels=64, num_classes=5, norm_cfg=norm_cfg),
    auxiliary_head=dict(type='FCNHead', in_channels=128, in_index=2, channels=12, num_convs=1, concat_input=False,
                        num_classes={classes}, norm_cfg=norm_cfg),
)
"""


def run(capsys, *arguments) -> str:
    load_tool('convert_checkpoint').main([*map(str, arguments)])
    return capsys.readouterr().out


@pytest.fixture
def semseg(tmp_path) -> Path:
    weights = {f'module.{key}': value for key, value in randomise(SemsegPSPNet()).state_dict().items()}
    torch.save(dict(epoch=3, state_dict=weights, optimizer=dict(state={})), tmp_path / 'semseg.pth')
    return tmp_path / 'semseg.pth'


@pytest.mark.parametrize('scope', ['mmseg', 'mmseg_ext'])
def test_a_pspnet_of_semseg_becomes_a_checkpoint_for_a_config(semseg, tmp_path, capsys, scope):
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(scope=scope, classes=5))
    out = run(capsys, semseg, tmp_path / 'new' / 'psp.pth', '--config', config)
    weights = load_file(tmp_path / 'new' / 'psp.pth')
    assert weights.keys() == {'meta', 'state_dict'}
    assert weights['meta']['layout'] == 'hszhao/semseg PSPNet, backbone: mmseg ResNet V1c or V1d'
    assert {key.split('.')[0] for key in weights['state_dict']} == {'backbone', 'decode_head', 'auxiliary_head'}
    assert 'layout: hszhao/semseg PSPNet' in out
    assert 'for the config: set stem_channels=128, dilations=(1, 1, 2, 4)' in out
    assert '0 missing, 0 unexpected, 0 mismatched, 0 left out' in out
    assert 'left out:' not in out
    assert list((tmp_path / 'new').iterdir()) == [tmp_path / 'new' / 'psp.pth']


def test_a_config_that_does_not_fit_is_an_error(semseg, tmp_path, capsys):
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(scope='mmseg', classes=7))
    with pytest.raises(ValueError, match=r'auxiliary_head\.conv_seg\.weight: \(5, 12, 1, 1\) in the file'):
        run(capsys, semseg, tmp_path / 'psp.pth', '--config', config)
    assert not (tmp_path / 'psp.pth').exists()
    out = run(
        capsys,
        semseg,
        tmp_path / 'p.pth',
        '--config',
        config,
        '--allow-missing',
        'auxiliary_head.conv_seg',
    )
    assert '2 mismatched (auxiliary_head.conv_seg.weight, auxiliary_head.conv_seg.bias)' in out


def test_what_is_left_out_of_jfzhang95s_deeplab_is_named(tmp_path, capsys):
    network = DeepLab()
    torch.save(dict(epoch=1, state_dict=network.state_dict(), best_pred=0.5), tmp_path / 'model_best.pth.tar')
    out = run(capsys, tmp_path / 'model_best.pth.tar', tmp_path / 'r50.pth')
    weights = load_file(tmp_path / 'r50.pth')['state_dict']
    assert {key.split('.')[0] for key in weights} == {'backbone'}
    assert f'converted: {len(weights)}\n' in out
    rest = [key for key in network.state_dict() if not key.startswith('backbone.')]
    assert f'left out: {len(rest)} (' in out
    assert all(key in out for key in rest)
    assert 'multi_grid=(2, 4, 8)' in out


def test_mmengine_loads_the_result_strictly(tmp_path, capsys):
    source = randomise(ResNetV1c(depth=18, base_channels=4, stem_channels=4))
    state_dict = dict(source.state_dict(), **{'fc.weight': torch.ones(2, 2)})
    torch.save(state_dict, tmp_path / 'w.pth')
    assert 'left out: 1 (fc.weight)' in run(capsys, tmp_path / 'w.pth', tmp_path / 'n.pth')
    network = ResNetV1c(depth=18, base_channels=4, stem_channels=4)
    load_checkpoint(network, str(tmp_path / 'n.pth'), strict=True)
    assert torch.equal(network.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_a_malicious_or_unknown_source_writes_nothing(tmp_path, capsys):
    malicious = save_malicious(tmp_path / 'malicious.pth', tmp_path / 'trace')
    with pytest.raises(UnsafeCheckpointError):
        run(capsys, malicious, tmp_path / 'new.pth')
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / 'linear.pth')
    with pytest.raises(ValueError, match='unknown key layout'):
        run(capsys, tmp_path / 'linear.pth', tmp_path / 'new.pth')
    assert not (tmp_path / 'trace').exists()
    assert not (tmp_path / 'new.pth').exists()
