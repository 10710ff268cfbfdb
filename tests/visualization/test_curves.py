import json

from PIL import Image

from mmseg_ext.visualization import plot_curves, read_scalars


def write_run(work_dir, name: str, records: list[dict], tail: str = '') -> None:
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(json.dumps(record) for record in records) + tail)


def test_a_resumed_run_replaces_the_iterations_it_repeats_and_a_cut_line_is_skipped(tmp_path):
    write_run(tmp_path, '1', [dict(step=10, loss=3.0), dict(step=20, loss=2.0)], tail='\n{"step": 30, "lo')
    write_run(tmp_path, '2', [dict(step=20, loss=1.5), dict(step=25, mIoU=40.0)])
    assert read_scalars(tmp_path) == {'loss': [(10, 3.0), (20, 1.5)], 'mIoU': [(25, 40.0)]}


def test_curves_are_drawn_for_what_was_logged(tmp_path):
    write_run(tmp_path, '1', [dict(step=s, loss=1 / s, lr=0.1, mIoU=s) for s in range(1, 9)])
    width, height = Image.open(plot_curves(tmp_path)).size
    assert width > 3 * height  # three plots beside each other


def test_nothing_is_drawn_where_nothing_was_logged(tmp_path):
    assert plot_curves(tmp_path) is None
    assert not (tmp_path / 'curves.png').exists()
