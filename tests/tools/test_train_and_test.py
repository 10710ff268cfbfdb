import re
import runpy
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from PIL import Image

from mmseg_ext.checkpoints import load_file
from mmseg_ext.datasets import DatasetError, scan_dataset
from mmseg_ext.engine import run
from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.run import _constant_prediction, evaluate_model
from mmseg_ext.engine.work_dir import BusyError, held
from mmseg_ext.registry import DATASETS
from mmseg_ext.visualization import read_scalars

from .conftest import ROOT, load_tool

CONFIG = str(ROOT / 'configs/psp_r18v1c_cityscapes.py')
SHIPPED = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
CLASSES = 19


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Work directory of a finished training; made by the first test that asks for it."""
    return tmp_path_factory.mktemp('work')


@pytest.fixture
def work_dir(trained, options, request):
    if not (trained / 'iter_2.pth').exists():
        request.getfixturevalue('pictures')
        load_tool('train').main([CONFIG, '--work-dir', str(trained), *options])
    return trained


def log_of(folder: Path) -> str:
    """Text of the newest log in a work directory."""
    return max(folder.glob('*/*.log')).read_text()


def test_training_leaves_checkpoints_log_and_curves(work_dir):
    assert {'iter_1.pth', 'iter_2.pth', 'curves.png'} <= {path.name for path in work_dir.iterdir()}
    assert list(work_dir.glob('*/confusion_matrix.png'))
    assert list(work_dir.glob('best_mIoU_iter_2.pth'))
    assert not list(work_dir.glob('*.part'))
    log = log_of(work_dir)
    assert 'Iter(train) [2/2]' in log
    assert 'mIoU' in log
    assert '\r' not in log


def test_two_trainings_in_one_process_have_curves_of_their_own(work_dir, options, tmp_path, pictures):
    load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), *options])
    one, two = read_scalars(work_dir), read_scalars(tmp_path)
    assert len(one['loss']) == len(two['loss']) == 2
    assert (tmp_path / 'curves.png').exists()


def test_our_own_training_checkpoint_loads_as_data_with_optimizer_and_history(work_dir):
    checkpoint = load_file(work_dir / 'iter_2.pth')
    assert checkpoint['meta']['iter'] == 2
    assert checkpoint['optimizer']['state']
    assert len(checkpoint['message_hub']['log_scalars']['train/loss'].data[0]) == 2


@pytest.mark.parametrize('how', ['latest', 'path'])
def test_resume_goes_on_with_iteration_and_optimizer(work_dir, options, tmp_path, how):
    if how == 'latest':
        for name in ('iter_1.pth', 'iter_2.pth'):
            (tmp_path / name).write_bytes((work_dir / name).read_bytes())
        resume = ['--resume']
    else:
        resume = ['--resume', str(work_dir / 'iter_2.pth')]
    load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), *resume, *options, 'train_cfg.max_iters=3'])
    assert 'resumed epoch: 0, iter: 2' in log_of(tmp_path)
    assert 'Iter(train) [3/3]' in log_of(tmp_path)
    momentum = load_file(tmp_path / 'iter_3.pth')['optimizer']['state'][0]['momentum_buffer']
    assert momentum.any()
    history = load_file(tmp_path / 'iter_3.pth')['message_hub']['log_scalars']['train/loss'].data[0]
    assert len(history) == 3


def test_resume_without_a_checkpoint_starts_from_the_beginning(options, tmp_path):
    load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), '--resume', *options, 'train_cfg.max_iters=1'])
    assert (tmp_path / 'iter_1.pth').exists()


def test_resume_from_a_missing_path_is_an_error_that_names_it(options, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth does not exist'):
        load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), '--resume', str(tmp_path / 'gone.pth'), *options])


def test_amp_trains_and_its_checkpoint_resumes(options, tmp_path, monkeypatch):
    monkeypatch.setattr(run, 'slow_bfloat16', lambda: '')
    arguments = [CONFIG, '--work-dir', str(tmp_path), '--amp', *options]
    load_tool('train').main([*arguments, 'train_cfg.max_iters=1'])
    load_tool('train').main([*arguments[:3], '--resume', *arguments[3:]])
    assert 'mmseg_ext.AmpOptimWrapper' in log_of(tmp_path)
    weights = load_file(tmp_path / 'iter_2.pth')['state_dict'].values()
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights if w.is_floating_point())


def test_amp_is_float32_with_a_warning_where_bfloat16_is_slow(options, tmp_path, monkeypatch):
    monkeypatch.setattr(run, 'slow_bfloat16', lambda: 'bfloat16 takes 22 times as long')
    load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), '--amp', *options, 'train_cfg.max_iters=1'])
    assert '--amp: bfloat16 takes 22 times as long; training in float32 instead' in log_of(tmp_path)
    assert 'AmpOptimWrapper' not in log_of(tmp_path)


def test_test_prints_the_table_and_writes_panels_and_predictions(work_dir, options, tmp_path):
    metrics = load_tool('test').main(
        [CONFIG, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path), '--show-dir', str(tmp_path / 'panels'),
         '--out', str(tmp_path / 'out'), *options]
    )  # fmt: skip
    assert set(metrics) >= {'aAcc', 'mIoU', 'mAcc'}
    log = log_of(tmp_path)
    assert re.search(r'\|\s+traffic light\s+\|', log)
    assert re.search(r"For comparison, '\w+' everywhere: aAcc \d+\.\d+  mIoU \d+\.\d+", log)
    panels, predictions = list((tmp_path / 'panels').iterdir()), list((tmp_path / 'out').iterdir())
    assert len(panels) == len(predictions) == 3
    assert Image.open(panels[0]).size[0] == 3 * 128 + 2 * 8
    prediction = np.asarray(Image.open(predictions[0]))
    assert prediction.shape == (64, 128)
    assert prediction.max() < CLASSES


def test_the_constant_prediction_is_what_the_metric_gives_for_it(street_scenes):
    prefix = dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val')
    dataset = DATASETS.get('CityscapesDataset')(data_root=str(street_scenes), data_prefix=prefix, pipeline=[])
    scan = scan_dataset(dataset)
    commonest = int(scan.class_pixels.argmax())
    results = []
    for path in (street_scenes / 'gtFine/val').rglob('*labelTrainIds.png'):
        truth = torch.from_numpy(np.asarray(Image.open(path)).astype(int))
        results.append(IoUMetric.intersect_and_union(torch.full_like(truth, commonest), truth, CLASSES, 255))
    metric = IoUMetric()
    metric.dataset_meta = dataset.metainfo
    expected = metric.compute_metrics(results)
    line = _constant_prediction(scan)
    assert f'aAcc {expected["aAcc"]:.2f}  mIoU {expected["mIoU"]:.2f}' in line


def test_test_time_augmentation_runs(work_dir, options, tmp_path):
    pipeline = 'tta_pipeline.1.transforms.0'
    metrics = load_tool('test').main(
        [CONFIG, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path), '--tta', *options,
         *(f'{pipeline}.{i}.scale_factor=1.0' for i in range(6))]
    )  # fmt: skip
    assert metrics['aAcc'] > 0


def test_output_stride_of_a_trained_model_changes_for_the_test(work_dir, options, tmp_path):
    # The network in our form, which can be switched; the config's is mmseg's.
    exact = [f'model.backbone.{x}' for x in ('output_stride=8', 'strides=(1,2,2,2)', 'dilations=(1,1,1,1)')]
    arguments = [CONFIG, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path), *options, *exact]
    at_8 = load_tool('test').main(arguments)
    at_16 = load_tool('test').main([*arguments[:4], '--output-stride', '16', *arguments[4:]])
    assert load_tool('test').main([*arguments[:4], '--output-stride', '8', *arguments[4:]]) == at_8
    assert at_16 != at_8


def test_fast_form_is_tested_with_nearly_the_plain_result(work_dir, options, tmp_path):
    arguments = [CONFIG, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path)]
    plain = load_tool('test').main([*arguments, *options])
    folded = load_tool('test').main([*arguments, '--fold-bn', '--channels-last', *options])
    half = load_tool('test').main([*arguments, '--precision', 'bf16', *options])
    assert folded['aAcc'] == pytest.approx(plain['aAcc'], abs=0.02)
    assert half['aAcc'] == pytest.approx(plain['aAcc'], abs=2)


def test_fast_form_is_tested_beside_averaged_weights(work_dir, options, tmp_path):
    arguments = [CONFIG, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path)]
    options = [*options, 'custom_hooks.0.type=EMAHook']
    plain = load_tool('test').main([*arguments, *options])
    folded = load_tool('test').main([*arguments, '--fold-bn', *options])
    assert folded['aAcc'] == pytest.approx(plain['aAcc'], abs=0.02)


def test_output_stride_of_mmsegs_segmentor_is_refused_with_the_remedy(work_dir, options, tmp_path):
    options = [option for option in options if 'init_cfg' not in option]
    arguments = [SHIPPED, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path), '--output-stride', '16']
    with pytest.raises(
        ValueError, match=r'--output-stride 16: mmseg\..*EncoderDecoder cannot change it; use --upgrade'
    ):
        load_tool('test').main([*arguments, *options, 'model.pretrained=None'])


def test_the_crf_is_switched_on_for_a_test_with_its_defaults_or_the_configs_parameters(work_dir, options, tmp_path):
    pytest.importorskip('pydensecrf', reason='the extra crf is not installed')
    arguments = [CONFIG, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path)]
    plain = load_tool('test').main([*arguments, *options])
    refined = load_tool('test').main([*arguments, '--crf', *options])
    named = load_tool('test').main([*arguments, *options, 'model.test_cfg.crf.iterations=10'])
    weak = load_tool('test').main([*arguments, '--crf', *options, 'model.test_cfg.crf.iterations=1'])
    assert refined == named
    assert len({result['aAcc'] for result in (plain, refined, weak)}) == 3


def test_the_crf_of_mmsegs_segmentor_is_refused_with_the_remedy(work_dir, options, tmp_path):
    options = [option for option in options if 'init_cfg' not in option]
    arguments = [SHIPPED, str(work_dir / 'iter_2.pth'), '--work-dir', str(tmp_path), '--crf']
    with pytest.raises(ValueError, match=r'--crf: the segmentor EncoderDecoder has no CRF; use --upgrade'):
        load_tool('test').main([*arguments, *options, 'model.pretrained=None'])


def test_a_crf_that_mmsegs_test_time_augmentation_would_leave_out_is_refused():
    cfg = load_config(CONFIG, {'tta_model.type': 'mmseg.SegTTAModel'})
    with pytest.raises(ValueError, match=r"test_cfg\.crf: tta_model\.type='mmseg\.SegTTAModel' would leave it out"):
        evaluate_model(cfg, 'x.pth', tta=True, crf=True)


def test_kept_rates_without_another_output_stride_are_refused():
    with pytest.raises(ValueError, match='--keep-rates is about a change of the output stride: add --output-stride'):
        evaluate_model(load_config(CONFIG), 'x.pth', keep_rates=True)


def test_tta_without_a_pipeline_is_refused():
    cfg = load_config(CONFIG)
    cfg.pop('tta_pipeline')
    with pytest.raises(ValueError, match='--tta: the config has no tta_pipeline'):
        evaluate_model(cfg, 'x.pth', tta=True)


@pytest.mark.parametrize('upgrade', [True, False])
def test_a_config_that_mmseg_ships_trains_with_and_without_our_classes(options, tmp_path, upgrade):
    flags = ['--upgrade'] if upgrade else []
    options = [option for option in options if 'init_cfg' not in option]
    load_tool('train').main(
        [SHIPPED, '--work-dir', str(tmp_path), *flags, *options, 'model.pretrained=None', 'train_cfg.max_iters=1']
    )
    config = load_config(str(next(tmp_path.glob('*.py'))))
    assert (config.default_scope == 'mmseg_ext') == upgrade
    assert (tmp_path / 'iter_1.pth').exists()


def test_wrong_labels_stop_training_before_it_starts_and_name_the_file(street_scenes, options, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(street_scenes, data)
    label = next((data / 'gtFine/train').rglob('*labelTrainIds.png'))
    values = np.asarray(Image.open(label)).copy()
    values[0, :7] = 77
    Image.fromarray(values).save(label)
    with pytest.raises(DatasetError, match=label.name) as error:
        load_tool('train').main(
            [CONFIG, '--work-dir', str(tmp_path / 'work'), *options, f'train_dataloader.dataset.data_root={data}']
        )
    assert '77' in str(error.value)
    assert not list(tmp_path.glob('work/*.pth'))


def test_a_head_with_another_class_count_stops_training_before_it_starts(options, tmp_path):
    with pytest.raises(DatasetError, match='num_classes'):
        load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), *options, 'model.decode_head.num_classes=18'])


def test_missing_config_and_missing_checkpoint_are_named(options, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config 'nowhere\.py' does not exist"):
        load_tool('train').main(['nowhere.py'])
    with pytest.raises(FileNotFoundError, match=r'gone\.pth'):
        load_tool('test').main([CONFIG, str(tmp_path / 'gone.pth'), '--work-dir', str(tmp_path), *options])


def test_training_stops_before_it_saves_weights_that_are_nan(options, tmp_path):
    with pytest.raises(FloatingPointError, match=r'nan at iteration 2; .*Try a learning rate below \{.*e\+29'):
        load_tool('train').main(
            [CONFIG, '--work-dir', str(tmp_path), *options, 'optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_iters=2']
        )
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_1.pth']


THREE = [
    *(f"{split}_dataloader.dataset.metainfo.classes=('road','sky','car')" for split in ('train', 'val', 'test')),
    'model.decode_head.num_classes=3',
    'model.auxiliary_head.num_classes=3',
]


def test_other_classes_are_fine_tuned_with_a_new_classifier_which_is_said(work_dir, options, tmp_path):
    source = str(work_dir / 'iter_2.pth')
    arguments = [CONFIG, '--work-dir', str(tmp_path), '--load-from', source]
    with pytest.raises(
        ValueError,
        match=r'decode_head\.conv_seg\.weight: \(19, .*trained for 19 classes, the model has 3.*--reset-head',
    ):
        load_tool('train').main([*arguments, *options, *THREE])
    load_tool('train').main([*arguments, '--reset-head', *options, *THREE, 'optim_wrapper.optimizer.lr=0.0'])
    assert (
        'decode_head.conv_seg.weight'
        in re.search(r'left as they are for a new classifier \((.*)\)', log_of(tmp_path))[1]
    )
    before, after = (load_file(path)['state_dict'] for path in (source, tmp_path / 'iter_1.pth'))
    assert torch.equal(before['decode_head.bottleneck.conv.weight'], after['decode_head.bottleneck.conv.weight'])
    assert after['decode_head.conv_seg.weight'].shape[0] == 3


def test_a_checkpoint_of_other_classes_is_not_resumed_but_the_way_to_fine_tune_is_named(work_dir, options, tmp_path):
    arguments = [CONFIG, '--work-dir', str(tmp_path), '--resume', str(work_dir / 'iter_2.pth')]
    with pytest.raises(ValueError, match=r'conv_seg.*--load-from.*--reset-head'):
        load_tool('train').main([*arguments, *options, *THREE])


@pytest.mark.parametrize('arguments', [['--reset-head'], ['--resume', 'a.pth', '--load-from', 'b.pth']])
def test_switches_that_contradict_each_other_are_refused(options, tmp_path, arguments):
    with pytest.raises(ValueError, match='--load-from'):
        load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), *arguments, *options])


def test_weights_of_another_model_are_not_tested(work_dir, options, tmp_path):
    other = [option for option in options if not option.startswith(('model.decode_head', 'model.auxiliary_head'))]
    arguments = [str(ROOT / 'configs/deeplabv3_r18v1c_cityscapes.py'), str(work_dir / 'iter_2.pth')]
    with pytest.raises(ValueError, match=r'iter_2\.pth does not fit EncoderDecoder: .*decode_head\.'):
        load_tool('test').main([*arguments, '--work-dir', str(tmp_path), *other])


def test_what_may_miss_is_said_by_a_switch(work_dir, options, tmp_path):
    weights = load_file(work_dir / 'iter_2.pth')['state_dict']
    weights = {
        key: value for key, value in weights.items() if not key.startswith(('decode_head.bottleneck', 'auxiliary'))
    }
    torch.save(dict(state_dict=weights), tmp_path / 'part.pth')
    arguments = [CONFIG, str(tmp_path / 'part.pth'), '--work-dir', str(tmp_path)]
    with pytest.raises(ValueError, match=r'--allow-missing decode_head\.bottleneck\.'):
        load_tool('test').main([*arguments, *options])
    load_tool('test').main([*arguments, '--allow-missing', 'decode_head.bottleneck.', *options])


def test_the_best_checkpoint_is_tested_against_its_receipt(work_dir, options, tmp_path):
    best = next(work_dir.glob('best_mIoU_*.pth'))
    load_tool('test').main([CONFIG, str(best), '--work-dir', str(tmp_path), *options])
    assert 'receipt: weights, data and metrics as recorded' in log_of(tmp_path)
    content = load_file(best)
    content['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(content, tmp_path / best.name)
    shutil.copy(best.with_suffix('.json'), tmp_path)
    with pytest.raises(ValueError, match='has not the weights of its receipt'):
        load_tool('test').main([CONFIG, str(tmp_path / best.name), '--work-dir', str(tmp_path), *options])


def test_a_rank_that_another_program_has_left_in_the_environment_means_nothing(options, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('SLURM_PROCID', '3')
    with pytest.raises(DatasetError, match='num_classes'):
        load_tool('train').main([CONFIG, '--work-dir', str(tmp_path), *options, 'model.decode_head.num_classes=18'])


def test_a_second_training_in_the_same_work_directory_is_refused(options, tmp_path):
    with held(tmp_path), ThreadPoolExecutor(1) as pool, pytest.raises(BusyError, match='choose another --work-dir'):
        pool.submit(load_tool('train').main, [CONFIG, '--work-dir', str(tmp_path), *options]).result()


def test_a_mistake_is_one_line_and_status_2(tmp_path, monkeypatch, capfd):
    tool = ROOT / 'tools/train.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), CONFIG, '--work-dir', str(tmp_path), '--reset-head'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith('error: --reset-head is about the weights')
    assert len(error.splitlines()) == 1
