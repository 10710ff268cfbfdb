"""``python -m benchmarks.gpu`` on a CPU, where it is shortened."""

import json

import pytest

from benchmarks import gpu


def test_the_correctness_tests_run_and_every_table_is_written_and_marked_as_a_cpus(tmp_path, capsys):
    out, tests = tmp_path / 'results/gpu.md', 'tests/gpu/test_gpu_pyramid_conv.py::test_the_fastest_way_is_chosen'
    assert gpu.main(['--device', 'cpu', '--out', str(out)], tests=tests) == 0
    text, report = out.read_text(), json.loads(out.with_suffix('.json').read_text())
    assert text.startswith('# Rehearsal on a CPU, shortened: no figures of a GPU\n')
    assert '- command: python -m benchmarks.gpu --device cpu --out' in text
    assert ' passed' in report['correctness']
    assert 'failed' not in report['correctness']
    assert report['machine']['device'] == 'CPU'
    assert {'torch', 'mmengine', 'mmcv', 'mmseg'} < set(report['machine'])
    assert [(table['title'], table['precision']) for table in report['tables']] == [
        (table.title, table.precision) for table in gpu.TABLES
    ]
    for table, written in zip(gpu.TABLES, report['tables'], strict=True):
        assert list(written['figures']) == ([table.short] if table.short else [])
        assert set(written['missing'].values()) == {'shortened'}
        assert len(written['missing']) + len(written['figures']) == len(table.benchmark.COMPARISONS)
        for name, sides in written['figures'].items():
            assert f'| {name}: mmseg ' in text
            assert sides['mmseg_ext']['difference'] is not None or sides['mmseg']['difference'] is not None
    segformer = report['tables'][0]['figures']['segformer-fusion']
    assert segformer['mmseg_ext']['forward']['ratio'] == 1
    assert segformer['mmseg_ext']['difference'] <= 1e-5
    assert '(shortened, on a CPU)' in text
    assert 'tests/gpu' not in capsys.readouterr().err


def test_a_failing_correctness_test_stops_it_and_nothing_is_written(tmp_path, capsys):
    broken = tmp_path / 'test_broken.py'
    broken.write_text('def test_labels_are_right():\n    assert 1 == 2\n')
    out = tmp_path / 'results/gpu.md'
    assert gpu.main(['--device', 'cpu', '--out', str(out)], tests=broken) == 1
    printed = capsys.readouterr().out
    assert 'assert 1 == 2' in printed
    assert 'nothing was measured or written' in printed
    assert not out.parent.exists()


def test_without_time_a_table_says_so_and_one_that_fails_costs_no_other(tmp_path, monkeypatch):
    class Benchmark:
        COMPARISONS = ['broken', 'whole']

        @staticmethod
        def compare(name, options):
            if name == 'broken':
                raise MemoryError('too\nlarge')
            side = dict(run=dict(seconds=2.0, ratio=1.0, bytes=2**20), difference=None)
            return {'mmseg_ext': dict(side, difference=1e-7), 'mmseg': dict(side, run=dict(side['run'], ratio=3.0))}

    monkeypatch.setattr(gpu, 'check', lambda *_: (True, '1 passed'))
    out = tmp_path / 'gpu.md'
    for minutes, expected in (('8', dict(broken='MemoryError: too large')), ('0', 'no time was left')):
        tables = [gpu.Table('Table', Benchmark, 512, short=name) for name in Benchmark.COMPARISONS]
        monkeypatch.setattr(gpu, 'TABLES', tables)
        assert gpu.main(['--device', 'cpu', '--minutes', minutes, '--out', str(out)]) == 0
        first, second = json.loads(out.with_suffix('.json').read_text())['tables']
        if minutes == '8':
            assert first['missing'] == dict(expected, whole='shortened')
            assert second['figures']['whole']['mmseg']['run']['ratio'] == 3
            assert '| whole: mmseg |      3.00 |' in out.read_text()
        else:
            assert first['missing']['broken'] == second['missing']['whole'] == expected
            assert f'Not measured: whole ({expected}).' in out.read_text()


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(capsys, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        gpu.main(['--device', 'cuda'])
    assert '--device cpu rehearses on a CPU' in capsys.readouterr().err
