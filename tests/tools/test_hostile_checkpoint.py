"""One file that would run code, through every entry of ours that loads a file or builds a model."""

import pytest
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from benchmarks.tiny_run import TinyNet, config
from mmseg_ext.checkpoints import UnsafeCheckpointError, load_checkpoint, load_file, load_pretrained, safe_loading
from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.runner import Runner
from mmseg_ext.inference import Predictor
from tests.reference.malicious import save_malicious

from .conftest import ROOT, load_tool

CONFIG = str(ROOT / 'configs/psp_r18v1c_cityscapes.py')
FPN = dict(type='FPN', in_channels='[8,16,32,64]', out_channels=64, num_outs=4)
PARTS = {
    'model': [],
    'backbone': [],
    'neck': [f'model.neck.{key}={value}' for key, value in FPN.items()],
    'decode_head': [],
    'auxiliary_head': [],
}


@pytest.fixture
def hostile(tmp_path):
    before = CheckpointLoader.__dict__['_get_checkpoint_loader'], dict(CheckpointLoader._schemes)
    yield str(save_malicious(tmp_path / 'hostile.pth', tmp_path / 'trace'))
    assert not (tmp_path / 'trace').exists()
    assert (CheckpointLoader.__dict__['_get_checkpoint_loader'], dict(CheckpointLoader._schemes)) == before


def with_init_cfg(part: str, hostile: str) -> list[str]:
    key = 'model.init_cfg' if part == 'model' else f'model.{part}.init_cfg'
    return [f'{key}.type=Pretrained', f'{key}.checkpoint={hostile}', *PARTS[part]]


@pytest.mark.parametrize('flag', ['--resume', '--load-from'])
def test_train_refuses_it_as_what_it_begins_from(hostile, options, tmp_path, flag):
    with pytest.raises(UnsafeCheckpointError, match=r'hostile\.pth'):
        load_tool('train').main([CONFIG, '--work-dir', str(tmp_path / 'work'), flag, hostile, *options])


def test_train_refuses_it_as_the_newest_of_its_work_directory(hostile, options, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(hostile)
    with pytest.raises(UnsafeCheckpointError, match=r'hostile\.pth'):
        load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), '--resume', *options])


@pytest.mark.parametrize('part', PARTS)
def test_train_refuses_it_as_weights_of_every_part(hostile, options, tmp_path, part):
    arguments = [CONFIG, '--work-dir', str(tmp_path / 'work'), *options]
    if part == 'backbone':
        arguments.remove('model.backbone.init_cfg=None')
    with pytest.raises(UnsafeCheckpointError, match=r'hostile\.pth'):
        load_tool('train').main([*arguments, *with_init_cfg(part, hostile)])


@pytest.mark.parametrize('part', [part for part in PARTS if part != 'backbone'])  # the benchmark draws its weights
def test_benchmark_refuses_it_as_weights_of_every_part(hostile, options, part):
    with pytest.raises(UnsafeCheckpointError, match=r'hostile\.pth'):
        load_tool('benchmark').main([CONFIG, '--size', '64x64', *options, *with_init_cfg(part, hostile)])


def test_every_tool_refuses_it_as_a_checkpoint(hostile, options, tmp_path):
    out, picture = str(tmp_path / 'out'), tmp_path / 'a.png'
    picture.touch()
    for name, arguments in (
        ('test', [CONFIG, hostile, '--work-dir', out, *options]),
        ('predict', [CONFIG, hostile, str(picture), '--out', out, *options]),
        ('benchmark', [CONFIG, hostile, *options]),
        ('convert_checkpoint', [hostile, out]),
        ('convert_checkpoint', [hostile, out, '--config', CONFIG]),
    ):
        with pytest.raises(UnsafeCheckpointError, match=r'hostile\.pth'):
            load_tool(name).main(arguments)


@pytest.mark.parametrize('use', [
    load_file,
    load_checkpoint,
    lambda file: load_pretrained(TinyNet(), file),
    lambda file: Predictor(load_config(CONFIG), file),
])  # fmt: skip
def test_python_refuses_it(hostile, use):
    with pytest.raises(UnsafeCheckpointError, match=r'hostile\.pth'):
        use(hostile)


@pytest.mark.parametrize('method', ['resume', 'load_checkpoint', 'train', 'test'])
def test_the_runner_refuses_it(hostile, tmp_path, method):
    cfg: Config = config(tmp_path / 'work')
    if method in ('train', 'test'):
        cfg.load_from = hostile
        cfg.update(test_dataloader=cfg.val_dataloader, test_evaluator=cfg.val_evaluator, test_cfg=dict(type='TestLoop'))
    runner = Runner.from_cfg(cfg)
    with pytest.raises(UnsafeCheckpointError, match=r'hostile\.pth'):
        getattr(runner, method)(*([] if cfg.get('load_from') else [hostile]))


def test_other_code_loads_its_own_files_as_before(tmp_path):
    marker = object()
    CheckpointLoader.register_scheme('mine://', loader=lambda *_: marker, force=True)
    try:
        with safe_loading(), pytest.raises(ValueError, match='mine:// has no safe loader'):
            CheckpointLoader.load_checkpoint('mine://x')
        assert CheckpointLoader.load_checkpoint('mine://x') is marker
    finally:
        del CheckpointLoader._schemes['mine://']
