"""Every way in which mmengine, and our tools through it, load a file."""

import subprocess
import sys

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from mmseg.apis import init_model
from torch import nn
from torch.utils.data import Dataset

from mmseg_ext.checkpoints import UnsafeCheckpointError, install_safe_loading, mmengine_loader, safe_loading
from mmseg_ext.engine.runner import Runner
from tests.reference.malicious import save_malicious

BACKBONE = dict(depth=18, base_channels=4, stem_channels=4)


@pytest.fixture
def safe():
    with safe_loading():
        yield


@pytest.fixture
def malicious(tmp_path):
    yield save_malicious(tmp_path / 'malicious.pth', tmp_path / 'trace')
    assert not (tmp_path / 'trace').exists()


def test_after_installing_every_kind_of_address_has_a_loader_of_ours():
    before = dict(CheckpointLoader._schemes)
    with safe_loading():
        assert CheckpointLoader._schemes.keys() == before.keys()
        for prefix, loader in CheckpointLoader._schemes.items():
            assert loader.__module__ == mmengine_loader.__name__, prefix
    assert CheckpointLoader._schemes == before


def test_every_kind_of_address_that_mmengine_knows_has_an_entry_except_pavi():
    known = {prefix for prefix in CheckpointLoader._schemes if prefix in mmengine_loader._LOADERS}
    assert CheckpointLoader._schemes.keys() - known == {'pavi://'}
    assert mmengine_loader._LOADERS.keys() == known


def test_without_installing_mmengine_is_not_changed_by_importing_us():
    code = (
        'from mmengine.runner.checkpoint import CheckpointLoader; before = dict(CheckpointLoader._schemes);'
        'import mmseg_ext.checkpoints, mmseg_ext.models; assert CheckpointLoader._schemes == before;'
        'mmseg_ext.checkpoints.install_safe_loading(); assert CheckpointLoader._schemes != before'
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)


def test_installing_twice_is_installing_once():
    with safe_loading():
        once = dict(CheckpointLoader._schemes)
        install_safe_loading()
        assert CheckpointLoader._schemes == once


@pytest.mark.usefixtures('safe')
class TestMalicious:
    def test_mmengines_load_checkpoint_refuses_it(self, malicious):
        with pytest.raises(UnsafeCheckpointError):
            load_checkpoint(nn.Conv2d(3, 4, 7), str(malicious))

    @pytest.mark.parametrize('prefix', [None, 'backbone.'])
    def test_the_init_cfg_of_mmsegs_own_classes_refuses_it(self, malicious, prefix):
        init_cfg = dict(type='Pretrained', checkpoint=str(malicious), prefix=prefix)
        with DefaultScope.overwrite_default_scope('mmseg'):
            backbone = MODELS.build(dict(type='ResNet', init_cfg=init_cfg, **BACKBONE))
        with pytest.raises(UnsafeCheckpointError):
            backbone.init_weights()

    def test_mmsegs_init_model_refuses_it(self, malicious, tmp_path):
        config = tmp_path / 'config.py'
        config.write_text(
            "default_scope = 'mmseg'\nmodel = dict(type='EncoderDecoder', data_preprocessor=dict(type="
            f"'SegDataPreProcessor'), backbone=dict(type='ResNet', {', '.join(f'{k}={v}' for k, v in BACKBONE.items())}"
            "), decode_head=dict(type='FCNHead', in_channels=32, channels=32, num_classes=2, num_convs=0, in_index=3,"
            " concat_input=False), test_cfg=dict(mode='whole'))\n"
        )
        with pytest.raises(UnsafeCheckpointError):
            init_model(str(config), str(malicious), device='cpu')

    @pytest.mark.parametrize('address', ['pavi://a.pth', 'ftp://host/a.pth'])
    def test_an_address_without_a_safe_loader_is_an_error(self, address):
        with pytest.raises(ValueError, match=r'safe loader|unknown scheme'):
            CheckpointLoader.load_checkpoint(address)


class Numbers(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return dict(inputs=torch.full((2,), float(index)))


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.linear(torch.stack(inputs)).pow(2).mean())


def runner(work_dir, max_iters: int, **kwargs) -> Runner:
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(batch_size=2, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='PolyLR', by_epoch=False, end=4),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        experiment_name=f'{work_dir.name}_{max_iters}_{len(kwargs)}',
        log_level='ERROR',
        **kwargs,
    )


def test_our_training_checkpoints_resume_with_optimizer_and_history_although_nothing_is_installed(tmp_path):
    whole = runner(tmp_path, 4)
    whole.train()
    state = whole.optim_wrapper.optimizer.state_dict()
    history = whole.message_hub.get_scalar('train/loss').data

    resumed = runner(tmp_path, 4, resume=True, load_from=str(tmp_path / 'iter_2.pth'))
    resumed.load_or_resume()
    assert resumed.iter == 2
    resumed.train()
    assert torch.equal(resumed.model.linear.weight, whole.model.linear.weight)
    for key, value in resumed.optim_wrapper.optimizer.state_dict()['state'][0].items():
        assert torch.equal(value, state['state'][0][key])
    for ours, theirs in zip(resumed.message_hub.get_scalar('train/loss').data, history, strict=True):
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize('resume', [True, False])
def test_our_runner_refuses_a_malicious_file_although_nothing_is_installed(malicious, tmp_path, resume):
    with pytest.raises(UnsafeCheckpointError):
        runner(tmp_path, 2, resume=resume, load_from=str(malicious)).train()


def test_a_config_inside_a_checkpoint_is_not_executed(tmp_path):
    runner(tmp_path, 2).train()
    path = tmp_path / 'iter_2.pth'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['config'] = f"open({str(tmp_path / 'trace')!r}, 'w')"
    torch.save(checkpoint, path)
    runner(tmp_path, 4, resume=True, load_from=str(path)).train()
    assert not (tmp_path / 'trace').exists()
