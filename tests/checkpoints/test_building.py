"""No file that a config names is executed when its model is built and initialised."""

import pytest
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmseg_ext.checkpoints import UnsafeCheckpointError
from mmseg_ext.checkpoints.building import build_model
from mmseg_ext.engine.benchmark import benchmark_models
from mmseg_ext.engine.config import load_config
from mmseg_ext.registry import MODELS
from tests.reference.malicious import save_malicious
from tests.tools.conftest import ROOT


@pytest.fixture
def malicious(tmp_path) -> str:
    yield str(save_malicious(tmp_path / 'malicious.pth', tmp_path / 'trace'))
    assert not (tmp_path / 'trace').exists()


def test_a_model_that_loads_a_file_as_it_is_built_does_not_execute_it(malicious):
    @MODELS.register_module(force=True)
    class Loading(nn.Module):
        def __init__(self, path):
            super().__init__()
            self.weights = CheckpointLoader.load_checkpoint(path)

    with pytest.raises(UnsafeCheckpointError):
        build_model(dict(type='Loading', path=malicious), 'mmseg_ext')


@pytest.mark.parametrize('part', ['neck', 'decode_head', 'auxiliary_head'])
def test_the_benchmark_does_not_execute_what_init_cfg_of_a_part_names(part, malicious):
    cfg = load_config(str(ROOT / 'configs/psp_r18v1c_cityscapes.py'))
    if part == 'neck':
        cfg.model.neck = dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=512, num_outs=4)
        cfg.model.auxiliary_head = None
    cfg.model[part].init_cfg = dict(type='Pretrained', checkpoint=malicious)
    with pytest.raises(UnsafeCheckpointError):
        benchmark_models(cfg, size=(64, 64))
