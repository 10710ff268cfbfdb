"""tools/train.py --replay: the batch of an iteration as pictures, and that it is the one that was trained on."""

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image

from mmseg_ext.engine.replay import _picture

from .conftest import ROOT, load_tool

CONFIG = str(ROOT / 'configs/psp_r18v1c_cityscapes.py')


@HOOKS.register_module(force=True)
class KeepBatch(Hook):
    """Keeps what the network is shown at one iteration."""

    kept: dict

    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == self.iteration - 1:
            KeepBatch.kept = data_batch


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp('replayed')


def test_the_pictures_are_those_of_the_batch_that_was_trained_on(trained, options, capsys):
    hook = ['custom_hooks.0.type=mmengine.KeepBatch', 'custom_hooks.0.iteration=2']
    load_tool('train').main([CONFIG, '--work-dir', str(trained), *options, *hook])
    written = trained / 'psp_r18v1c_cityscapes.py'
    capsys.readouterr()
    load_tool('train').main([str(written), '--work-dir', str(trained), '--replay', '2'])
    kept, said = KeepBatch.kept, capsys.readouterr().out
    panels = sorted((trained / 'replay_2').glob('*.png'))
    assert len(panels) == len(kept['inputs']) == 2
    for position, (image, sample) in enumerate(zip(kept['inputs'], kept['data_samples'], strict=True)):
        assert panels[position].name.startswith(f'{position}_')
        assert sample.img_path in said
        panel = np.asarray(Image.open(panels[position]))
        height, width = image.shape[1:]
        top = next(
            y
            for y in range(40)
            if np.array_equal(panel[y : y + height, :width], image.flip(0).permute(1, 2, 0).numpy())
        )
        labels = panel[top : top + height, width + 8 : 2 * width + 8]
        truth = sample.gt_sem_seg.data[0].numpy()
        assert (labels[truth == 255] == 0).all()
        assert len({tuple(colour) for colour in labels[truth == truth[0, 0]]}) == 1


@pytest.mark.parametrize(
    ('iteration', 'changes', 'message'),
    [
        ('0', [], 'iterations are counted from 1'),
        ('3', [], 'the training of this config has 2 iterations'),
        ('1', ['randomness.seed=None'], r'no randomness\.seed'),
    ],
)
def test_what_has_no_batch_is_refused(options, tmp_path, iteration, changes, message):
    arguments = [CONFIG, '--work-dir', str(tmp_path), '--replay', iteration, *options, *changes]
    with pytest.raises(ValueError, match=message):
        load_tool('train').main(arguments)


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 7])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32, torch.int32])
def test_every_number_of_channels_and_type_has_a_picture(channels, dtype):
    picture = _picture((torch.rand(channels, 4, 5) * 300).to(dtype))
    assert picture.shape == (4, 5, 3)
    assert picture.dtype == np.uint8
