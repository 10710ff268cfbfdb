"""The rows of the CamVid table, on a few small pictures and a narrow network, with our tools run in this process."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.results import ROWS, Row, Settings, check_report, run_rows, runs, select_rows, write_report
from mmseg_ext.results.records import collect_record, read_records, scores, training_seconds
from mmseg_ext.results.runs import ROOT, confusion_of, how_trained
from tests.tools.conftest import load_tool

ROW = Row('deeplabv3plus_r18v1c', 'DeepLabV3+, ResNet-18', {'output stride 8': ('--output-stride', '8')})
NETWORK = (
    'model.backbone.base_channels=8', 'model.backbone.stem_channels=8', 'model.decode_head.in_channels=64',
    'model.decode_head.c1_in_channels=8', 'model.decode_head.channels=8', 'model.decode_head.c1_channels=4',
    'model.auxiliary_head.in_channels=32', 'model.auxiliary_head.channels=8',
)  # fmt: skip
SMALL = (
    *NETWORK, 'train_dataloader.batch_size=2',
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    'train_dataloader.dataset.pipeline.2.scale=(160,120)', 'train_dataloader.dataset.pipeline.3.crop_size=(80,112)',
    'model.data_preprocessor.size=(80,112)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(160,120)' for split in ('val', 'test')),
)  # fmt: skip


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    data = tmp_path_factory.mktemp('camvid')
    rng = np.random.default_rng(0)
    for split, count in (('train', 3), ('val', 2)):
        for folder in (split, f'{split}annot'):
            (data / folder).mkdir()
        for i in range(count):
            labels = np.kron(rng.integers(0, 12, (6, 8)), np.ones((20, 20))).astype(np.uint8)
            Image.fromarray(labels).save(data / f'{split}annot/{i}.png')
            Image.fromarray(np.stack([20 * labels] * 3, axis=2)).save(data / f'{split}/{i}.png')
    return Settings(data, tmp_path_factory.mktemp('work'), iterations=6, threads=1, options=SMALL)


@pytest.fixture
def calls(monkeypatch):
    """Run the tools in this process; returns the list of their names and arguments."""
    made = []

    def run(tool, arguments, _):
        made.append((tool, arguments))
        if tool == 'benchmark':
            arguments = [*arguments, '--size', '64x64', '--repeats', '2', '--threads', '1', '--cfg-options', *NETWORK]
        load_tool(tool).main([str(ROOT / arguments[0]), *arguments[1:]])

    monkeypatch.setattr(runs, '_run', run)
    return made


@pytest.fixture
def finished(settings, calls):
    run_rows([ROW], settings)
    calls.clear()
    return settings.work_dir / ROW.name


def test_a_row_is_trained_and_tested_and_nothing_is_done_twice(settings, calls):
    run_rows([ROW], settings)
    best_is_last = runs.best_checkpoint(settings.work_dir / ROW.name).stem.endswith('_6')
    assert [tool for tool, _ in calls] == ['train', *['test'] * (3 if best_is_last else 4)]
    calls.clear()
    run_rows([ROW], settings)
    assert not calls


@pytest.mark.parametrize('slow', ['', 'bfloat16 takes 22 times as long'])
def test_a_row_is_trained_in_what_the_processor_is_fast_at(settings, calls, monkeypatch, tmp_path, slow):
    monkeypatch.setattr(runs, 'slow_bfloat16', lambda: slow)
    monkeypatch.setattr(runs, '_run', lambda tool, arguments, _: calls.append((tool, arguments)))
    runs._train(ROW, tmp_path, settings)
    assert [('--amp' in arguments, '--channels-last' in arguments) for _, arguments in calls] == [(not slow, not slow)]
    assert ('--amp' in how_trained(tmp_path)['command']) == (not slow)


@pytest.mark.parametrize('iterations', [1, 6, 100, 1000])
def test_a_shorter_schedule_is_validated_six_times(settings, calls, monkeypatch, tmp_path, iterations):
    monkeypatch.setattr(runs, '_run', lambda tool, arguments, _: calls.append(arguments))
    runs._train(ROW, tmp_path, dataclasses.replace(settings, iterations=iterations))
    interval = next(int(o.split('=')[1]) for o in calls[0] if o.startswith('train_cfg.val_interval='))
    assert math.ceil(iterations / interval) == min(iterations, 6)


def test_the_last_checkpoint_that_is_the_best_too_is_tested_once(settings, calls, finished, tmp_path):
    folder = tmp_path / ROW.name
    shutil.copytree(finished, folder)
    runs.best_checkpoint(folder).rename(folder / 'best_mIoU_iter_6.pth')
    shutil.rmtree(folder / 'test_best')
    run_rows([ROW], dataclasses.replace(settings, work_dir=tmp_path))
    assert not calls
    assert np.array_equal(confusion_of(folder, 'best'), confusion_of(folder, 'last'))


def test_what_an_interruption_left_out_is_done(settings, calls, finished):
    shutil.rmtree(finished / 'test_train')
    record = json.loads((finished / 'row.json').read_text())
    (finished / 'row.json').write_text(json.dumps({**record, 'finished': False}))
    run_rows([ROW], settings)
    assert [tool for tool, _ in calls] == ['train', 'test']
    assert '--resume' in calls[0][1]


def test_a_row_does_not_go_on_with_other_settings(settings, finished):
    other = Settings(settings.data, settings.work_dir, 7, settings.seed, settings.threads, settings.options)
    with pytest.raises(ValueError, match='begun with iterations 6 and now 7; use the same, or another --work-dir'):
        run_rows([ROW], other)


def test_a_missing_crf_is_found_before_the_training(settings, calls, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'pydensecrf.densecrf', None)
    with_crf = Row('deeplabv1_r18v1c', 'V1', {'CRF': ('--crf',)})
    with pytest.raises(ImportError, match='pip install pydensecrf2'):
        run_rows([ROW, with_crf], dataclasses.replace(settings, work_dir=tmp_path))
    assert not calls


def test_rows_run_side_by_side_and_a_failure_begins_no_other(settings, monkeypatch):
    begun, together = [], threading.Barrier(2, timeout=60)

    def run(row, _):
        begun.append(row.name)
        if len(begun) <= 2:
            together.wait()
        else:
            time.sleep(0.5)
        raise subprocess.CalledProcessError(1, row.name)

    monkeypatch.setattr(runs, 'run_row', run)
    rows = [Row(name, name, {}) for name in 'abcdefgh']
    with pytest.raises(subprocess.CalledProcessError):
        run_rows(rows, settings, jobs=2)
    assert {'a', 'b'} <= set(begun) < set('abcdefgh')


def test_scores_are_those_of_the_tool(settings, finished):
    best = runs.best_checkpoint(finished)
    data = [f'{split}_dataloader.dataset.data_root={settings.data}' for split in ('train', 'val', 'test')]
    printed = load_tool('test').main(
        [str(ROOT / f'configs/{ROW.name}_camvid.py'), str(best), '--work-dir', str(finished / 'by_hand'),
         '--cfg-options', *data, "test_evaluator.iou_metrics=['mIoU','mBoundaryIoU']",
         'test_evaluator.boundary_ratio=0.005', *settings.options]
    )  # fmt: skip
    result = collect_record(ROW, finished)['tests']['best']
    assert result['mIoU'] == pytest.approx(printed['mIoU'], abs=0.01)
    assert result['accuracy'] == pytest.approx(printed['aAcc'], abs=0.01)
    assert result['boundary_IoU'] == printed['mBoundaryIoU']
    assert len(result['IoU']) == 11


def test_scores_of_counts_by_hand():
    miou, accuracy, ious = scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert (miou, accuracy) == pytest.approx((100 * (3 / 4 + 4 / 5) / 2, 100 * 7 / 8))
    assert ious[:2] == pytest.approx([75, 80])
    assert np.isnan(ious[2])


@pytest.mark.parametrize(('title', 'split'), [('last', 'val'), ('train', 'train')])
def test_scores_are_of_the_images_of_their_split(settings, finished, title, split):
    labels = np.stack([np.asarray(Image.open(path)) for path in (settings.data / f'{split}annot').iterdir()])
    truth = confusion_of(finished, title).sum(axis=1)
    assert truth.tolist() == np.bincount(labels.ravel(), minlength=12)[:11].tolist()  # 11 is void


def test_the_variant_is_another_test_of_the_best_checkpoint(finished):
    assert not np.array_equal(confusion_of(finished, 'output stride 8'), confusion_of(finished, 'best'))


def test_the_report_has_the_results_and_says_what_was_not_trained(settings, finished, tmp_path):
    others = [row for row in ROWS if row.name != ROW.name][:2]
    write_report([ROW, *others], settings.work_dir, tmp_path / 'camvid.md')
    text = (tmp_path / 'camvid.md').read_text()
    assert (tmp_path / 'camvid_curves.png').stat().st_size > 10_000
    row = next(line for line in text.splitlines() if line.startswith(f'| {ROW.title} |'))
    best = collect_record(ROW, finished)['tests']['best']
    assert f' {best["mIoU"]:.1f} |' in row
    assert f' {best["boundary_IoU"]:.1f} |' in row
    train_miou, train_accuracy, _ = scores(confusion_of(finished, 'train'))
    assert row.endswith(f'| {train_miou:.1f} | {train_accuracy:.1f} |')
    assert ' | 6 | ' in row
    for other in others:
        assert f'| {other.title} | not trained |' in text
    assert text.count(f'python tools/train.py configs/{ROW.name}_camvid.py -') == 1
    assert '| output stride 8 |' in text


def test_rows_of_another_machine_and_the_text_above_the_table_are_kept(settings, finished, tmp_path):
    out, other = tmp_path / 'camvid.md', dataclasses.replace(ROW, name='elsewhere', title='Elsewhere')
    write_report([ROW], settings.work_dir, out)
    record = read_records(tmp_path / 'camvid.json')[ROW.name]
    (tmp_path / 'camvid.json').write_text(json.dumps({'elsewhere': {**record, 'iterations': 77}}))
    out.write_text(out.read_text().replace('Written by', 'On two machines,\n\nby'))
    write_report([ROW, other], settings.work_dir, out)
    text = out.read_text()
    assert text.startswith('# CamVid, from random weights\n\nOn two machines,\n\nby `tools/reproduce_camvid.py`.\n\n##')
    assert set(read_records(tmp_path / 'camvid.json')) == {ROW.name, 'elsewhere'}
    assert ' | 77 | ' in next(line for line in text.splitlines() if line.startswith('| Elsewhere | '))
    write_report([ROW, other], tmp_path / 'gone', out)
    assert out.read_text() == text


@pytest.mark.parametrize('report', sorted(Path(ROOT, 'results').glob('*.md')), ids=lambda path: path.stem)
def test_the_published_reports_are_written_from_their_records(report, tmp_path):
    for path in (report, report.with_suffix('.json')):
        shutil.copy(path, tmp_path)
    rows = [row for row in ROWS if f'\n| {row.title} |' in report.read_text()]
    write_report(rows, tmp_path / 'nothing', tmp_path / report.name)
    assert (tmp_path / report.name).read_text() == report.read_text()
    assert (tmp_path / report.name).with_suffix('.json').read_text() == report.with_suffix('.json').read_text()


@pytest.mark.parametrize('name', ['notes.md', 'notes.json'])
@pytest.mark.parametrize('content', ['# Notes', '[1]', '{"a": 1}', '{"a": {}}'])
def test_a_file_that_is_no_report_is_refused_and_kept(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    for refuse in (check_report, lambda out: write_report(ROWS, tmp_path, out)):
        with pytest.raises(ValueError, match=f'{name} .* another --out'):
            refuse(tmp_path / 'notes.md')
    assert [path.read_text() for path in tmp_path.iterdir()] == [content]


def tool_arguments(settings, out):
    return [
        ROW.name, '--data', str(settings.data), '--work-dir', str(settings.work_dir), '--iterations', '6',
        '--threads', '1', '--out', str(out), '--cfg-options', *settings.options,
    ]  # fmt: skip


def test_the_tool_measures_what_is_trained_and_reports_every_row_or_those_named(settings, calls, finished, tmp_path):
    pytest.importorskip('pydensecrf', reason='the extra crf is not installed')
    main, out = load_tool('reproduce_camvid').main, tmp_path / 'camvid.md'
    main(tool_arguments(settings, out))
    # The table's row has two variants more than ROW.
    assert [tool for tool, _ in calls] == ['test', 'test', 'benchmark']
    calls.clear()
    assert out.read_text().count('| not trained |') == len(ROWS) - 1
    main(['--report-only', *tool_arguments(settings, out)])
    assert '| not trained |' not in out.read_text()
    assert not calls


def test_the_tool_refuses_bad_input_before_any_training(settings, calls, tmp_path):
    main, arguments = load_tool('reproduce_camvid').main, tool_arguments(settings, tmp_path / 'camvid.md')
    with pytest.raises(SystemExit, match='--jobs 0 must be 1 or more'):
        main(['--jobs', '0', *arguments])
    with pytest.raises(SystemExit, match=f'--data {tmp_path} holds no train, '):
        main([*arguments, '--data', str(tmp_path)])
    (tmp_path / 'camvid.md').write_text('# Notes')
    with pytest.raises(ValueError, match='is no report of this tool'):
        main(arguments)
    assert not calls


def test_a_report_without_any_run_has_no_figures(tmp_path):
    write_report(ROWS, tmp_path, tmp_path / 'camvid.md')
    assert (tmp_path / 'camvid.md').read_text().count('not trained') == len(ROWS)


def test_validations_and_repeated_iterations_do_not_count_as_training_time(tmp_path):
    records = [
        dict(step=50, loss=1, time=2.0),
        dict(step=50, mIoU=3, time=0.1),
        dict(step=100, loss=1, time=1.0),
    ]
    again = [dict(step=100, loss=1, time=4.0), dict(step=150, loss=1, time=1.0)]
    for run, lines in (('1', records), ('2', again)):
        (tmp_path / run / 'vis_data').mkdir(parents=True)
        (tmp_path / run / 'vis_data/scalars.json').write_text('\n'.join([*map(json.dumps, lines), '{"lo']))  # killed
    assert training_seconds(tmp_path) == 50 * (2 + 4 + 1)


def test_rows_are_chosen_by_name():
    assert [row.name for row in select_rows(['psp_r18v1c'])] == ['psp_r18v1c']
    assert len(select_rows([])) == len(ROWS)
    with pytest.raises(ValueError, match='no row psp_r19; its rows are deeplabv1_r18v1c, '):
        select_rows(['psp_r19'])


def test_every_row_has_a_config():
    assert all(Path(ROOT, f'configs/{row.name}_camvid.py').exists() for row in ROWS)
