"""Every way in which mmengine, and our tools through it, load a file."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from mmseg.apis import init_model
from torch import nn
from torch.utils.data import Dataset

from mmseg_ext.checkpoints import UnsafeCheckpointError, mmengine_loader, safe_loading
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


def loader(address: str):
    return CheckpointLoader._get_checkpoint_loader(address)


def is_ours(address: str = 'a.pth') -> bool:
    return loader(address).__module__ == mmengine_loader.__name__


ADDRESSES = [
    'a.pth', '/a.pth', 'http://host/a.pth', 'https://host/a.pth', 'torchvision://a', 'modelzoo://a', 'open-mmlab://a',
    'openmmlab://a', 'mmcls://a', 's3://bucket/a.pth', 'cluster:s3://bucket/a.pth', 'petrel://bucket/a.pth', 'pavi://a',
]  # fmt: skip


@pytest.mark.parametrize('address', ADDRESSES)
def test_inside_the_block_every_kind_of_address_has_a_loader_of_ours_and_after_it_mmengines(address):
    before = loader(address)
    with safe_loading():
        assert is_ours(address)
    assert loader(address) is before
    assert not is_ours(address)


def test_every_kind_of_address_that_mmengine_knows_has_an_entry_except_pavi():
    known = {prefix for prefix in CheckpointLoader._schemes if prefix in mmengine_loader._LOADERS}
    assert CheckpointLoader._schemes.keys() - known == {'pavi://'}
    assert mmengine_loader._LOADERS.keys() == known


def test_neither_importing_us_nor_a_block_leaves_anything_in_mmengine():
    code = (
        'from mmengine.runner.checkpoint import CheckpointLoader; before = dict(vars(CheckpointLoader))\n'
        'import mmseg_ext.checkpoints, mmseg_ext.models; assert dict(vars(CheckpointLoader)) == before\n'
        'with mmseg_ext.checkpoints.safe_loading(): assert dict(vars(CheckpointLoader)) != before\n'
        'assert dict(vars(CheckpointLoader)) == before'
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)


def test_blocks_can_be_nested_and_end_with_an_error():
    before = dict(vars(CheckpointLoader))
    with safe_loading():
        with pytest.raises(KeyError), safe_loading():
            raise KeyError
        assert is_ours()
    assert dict(vars(CheckpointLoader)) == before


def test_another_thread_has_mmengines_loader_meanwhile_and_blocks_may_overlap():
    before = dict(vars(CheckpointLoader))
    with ThreadPoolExecutor(1) as pool:
        other = safe_loading()
        with safe_loading():
            assert is_ours()
            assert not pool.submit(is_ours).result()
            pool.submit(other.__enter__).result()
            assert pool.submit(is_ours).result()
        # This block began first and ends first.
        assert not is_ours()
        assert pool.submit(is_ours).result()
        pool.submit(other.__exit__, None, None, None).result()
        assert not pool.submit(is_ours).result()
    assert dict(vars(CheckpointLoader)) == before


def test_many_threads_at_once_leave_mmengine_as_it_was(tmp_path):
    before = dict(vars(CheckpointLoader))
    torch.save(dict(state_dict={}), tmp_path / 'a.pth')

    def load(i: int) -> bool:
        with safe_loading() if i % 2 else nullcontext():
            CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), logger='silent')
            return is_ours() == bool(i % 2)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(load, range(200)))
    assert dict(vars(CheckpointLoader)) == before


def test_a_scheme_that_a_user_registers_meanwhile_stays_but_is_not_used_in_the_block():
    def load_from_cloud(source, map_location=None):
        return {}

    before = CheckpointLoader._schemes
    try:
        with safe_loading():
            CheckpointLoader.register_scheme('cloud://', load_from_cloud)
            with pytest.raises(ValueError, match='cloud:// has no safe loader'):
                CheckpointLoader.load_checkpoint('cloud://a.pth')
        assert loader('cloud://a.pth') is load_from_cloud
    finally:
        CheckpointLoader._schemes = before


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


def test_our_training_checkpoints_resume_with_optimizer_and_history_outside_of_a_block(tmp_path):
    whole = runner(tmp_path, 4)
    whole.train()
    state = whole.optim_wrapper.optimizer.state_dict()
    history = whole.message_hub.get_scalar('train/loss').data

    resumed = runner(tmp_path, 4, resume=True, load_from=str(tmp_path / 'iter_2.pth'))
    resumed.train()
    assert torch.equal(resumed.model.linear.weight, whole.model.linear.weight)
    for key, value in resumed.optim_wrapper.optimizer.state_dict()['state'][0].items():
        assert torch.equal(value, state['state'][0][key])
    for ours, theirs in zip(resumed.message_hub.get_scalar('train/loss').data, history, strict=True):
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize('resume', [True, False])
def test_our_runner_refuses_a_malicious_file_outside_of_a_block(malicious, tmp_path, resume):
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
