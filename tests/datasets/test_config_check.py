"""The check of a config's datasets and heads: from Python, as a hook and as a tool."""

import copy
import os
import subprocess
import sys

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from seg_files import CLASSES, ROOT, load_tool, write_two_pairs
from torch import nn

import mmseg_ext.engine.hooks.dataset_check_hook  # noqa: F401  registers the hook
from mmseg_ext.datasets.config_check import check_config, config_heads, head_problems, module_heads
from mmseg_ext.datasets.dataset_problems import DatasetError
from mmseg_ext.datasets.scan import DatasetScan


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return write_two_pairs(tmp_path / 'data')


def config(root, **model):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    data = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        img_suffix='.png',
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(type='EncoderDecoder', decode_head=dict(type='FCNHead', num_classes=3), **model),
            train_dataloader=dict(loader, dataset=dict(type='RepeatDataset', times=2, dataset=copy.deepcopy(data))),
            val_dataloader=copy.deepcopy(loader),
            test_dataloader=copy.deepcopy(loader),
        )
    )


@pytest.mark.parametrize('scope', ['mmseg', 'mmseg_ext', None])
def test_a_configs_splits_are_scanned_and_a_shared_dataset_once(root, scope):
    cfg = config(root)
    cfg.default_scope = scope
    check = check_config(cfg)
    check.raise_for_problems()
    assert list(check.scans) == ['train', 'val', 'test']
    assert check.scans['train'] is check.scans['val'] is check.scans['test']
    assert check.scans['train'].num_images == 2


def test_only_the_splits_asked_for_are_checked(root):
    cfg = config(root)
    cfg.test_dataloader.dataset.data_root = '/nowhere'
    assert list(check_config(cfg, ('train',)).scans) == ['train']
    assert check_config(cfg).problems


@pytest.mark.parametrize(
    ('change', 'key', 'folder'),
    [
        (dict(data_root='/nowhere'), 'data_root', '/nowhere'),
        (dict(data_prefix=dict(img_path='imgs', seg_map_path='ann')), 'data_prefix.img_path', 'imgs'),
        (dict(data_prefix=dict(img_path='img', seg_map_path='anns')), 'data_prefix.seg_map_path', 'anns'),
        (dict(ann_file='list.txt'), 'ann_file', 'list.txt'),
    ],
)
def test_a_missing_folder_is_named_with_its_config_key_and_remedy(root, change, key, folder):
    cfg = config(root)
    cfg.train_dataloader.dataset.dataset.update(change)
    (problem,) = check_config(cfg, ('train',)).problems
    assert problem.where.endswith(folder)
    assert f'train_dataloader.dataset.dataset.{key} names it' in problem.found
    assert 'data_root' in problem.remedy


def test_a_relative_folder_is_explained_with_the_working_directory(root):
    cfg = config('no/such/data')
    (problem,) = check_config(cfg, ('val',)).problems
    assert os.getcwd() in problem.remedy


def test_an_empty_folder_names_the_suffix_and_what_is_there(root):
    cfg = config(root)
    cfg.val_dataloader.dataset.img_suffix = '.jpg'
    (problem,) = check_config(cfg, ('val',)).problems
    assert problem.where == str(root / 'img')
    assert problem.found == "no file here ends in '.jpg'; there are .png (2)"
    (root / 'list.txt').touch()
    cfg.val_dataloader.dataset.ann_file = 'list.txt'
    (problem,) = check_config(cfg, ('val',)).problems
    assert problem.where == str(root / 'list.txt')


def test_an_unregistered_dataset_is_named(root):
    cfg = config(root)
    cfg.val_dataloader.dataset.type = 'NoSuchDataset'
    with pytest.raises(KeyError, match=r"'NoSuchDataset' is not registered.*custom_imports"):
        check_config(cfg)


def test_a_pipeline_without_labels_needs_no_label_folder(root):
    cfg = config(root)
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    cfg.test_dataloader.dataset.data_prefix.seg_map_path = 'nowhere'
    check = check_config(cfg, ('test',))
    check.raise_for_problems()
    assert check.scans['test'].num_labels == 0


def test_label_loaders_are_found_inside_test_time_augmentation(root):
    cfg = config(root)
    steps = [[dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]
    cfg.test_dataloader.dataset.pipeline = [dict(type='TestTimeAug', transforms=steps)]
    assert check_config(cfg, ('test',)).scans['test'].num_labels == 2


def test_heads_with_other_class_counts_are_named_by_their_config_key(root):
    cfg = config(root, auxiliary_head=[dict(type='FCNHead', num_classes=3), dict(type='FCNHead', num_classes=19)])
    cfg.model.decode_head.num_classes = 19
    problems = check_config(cfg, ('train',)).problems
    assert [problem.where for problem in problems] == [
        'model.decode_head (FCNHead)',
        'model.auxiliary_head[1] (FCNHead)',
    ]
    assert problems[0].found == 'num_classes=19, but the train dataset has 3 classes'
    assert problems[0].remedy == 'set num_classes=3 in every head'


def test_heads_inside_a_test_time_augmentation_model_are_found():
    model = dict(type='SegTTAModel', module=dict(decode_head=[dict(type='A', num_classes=2), dict(type='B')]))
    assert [(head.key, head.num_classes) for head in config_heads(model)] == [
        ('model.module.decode_head[0]', 2),
        ('model.module.decode_head[1]', None),
    ]


def test_binary_head_with_one_output_channel_and_edge_head_are_right():
    model = dict(
        decode_head=dict(type='FCNHead', num_classes=2, out_channels=1),
        auxiliary_head=dict(type='STDCHead', num_classes=5),
    )
    assert head_problems(list(config_heads(model)), DatasetScan('train', ('no', 'yes'))) == []


def test_a_head_that_does_not_ignore_what_the_dataset_ignores_is_an_error(root):
    cfg = config(root)
    cfg.model.decode_head.ignore_index = 0
    (problem,) = check_config(cfg, ('train',)).problems
    assert problem.found.startswith('ignore_index=0, but 4 pixels of the train dataset are labelled 255')
    assert 'ignore_index=255' in problem.remedy


class ToySegmentor(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.decode_head = nn.Conv2d(3, num_classes, 1)
        self.decode_head.num_classes = num_classes
        self.decode_head.ignore_index = 255
        self.auxiliary_head = nn.ModuleList()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return []

    def test_step(self, data):
        for sample in data['data_samples']:
            sample.pred_sem_seg = sample.gt_sem_seg
        return data['data_samples']


def test_heads_of_a_wrapped_module_are_found():
    model = nn.DataParallel(ToySegmentor(4))
    assert [(head.key, head.num_classes) for head in module_heads(model)] == [('model.decode_head', 4)]


def run_test_loop(root, work_dir, num_classes):
    cfg = config(root)
    runner = Runner(
        ToySegmentor(num_classes),
        str(work_dir),
        test_dataloader=cfg.test_dataloader,
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='IoUMetric'),
        custom_hooks=[dict(type='mmseg_ext.DatasetCheckHook')],
        default_scope='mmseg',
        experiment_name=f'{work_dir.name}{num_classes}',
    )
    runner.test()


def test_hook_checks_the_datasets_and_heads_of_a_runner(root, tmp_path):
    with DefaultScope.overwrite_default_scope('mmseg'):
        run_test_loop(root, tmp_path / 'good', 3)
        with pytest.raises(DatasetError, match='num_classes=5, but the test dataset has 3 classes'):
            run_test_loop(root, tmp_path / 'bad', 5)


@pytest.fixture
def config_file(root, tmp_path):
    path = tmp_path / 'config.py'
    config(root).dump(path)
    return path


def test_tool_prints_the_histogram_and_returns_0(config_file, capsys):
    assert load_tool('check_dataset').main([str(config_file)]) == 0
    out = capsys.readouterr().out
    assert 'train: 2 images, 2 labels, 4 files read' in out
    assert 'val: the same dataset as train' in out
    assert '50.00%' in out
    assert out.endswith('no problems\n')


def test_tool_as_a_command_prints_the_problems_and_exits_1(config_file):
    command = [sys.executable, str(ROOT / 'tools/check_dataset.py'), str(config_file), '--splits', 'train']
    command += ['--cfg-options', 'model.decode_head.num_classes=7']
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}
    )
    assert result.returncode == 1, result.stderr
    assert 'num_classes=7, but the train dataset has 3 classes' in result.stderr
    assert 'ignored' in result.stdout
