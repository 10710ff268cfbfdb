"""The scan of a dataset: every kind of problem, the mapping of labels, the cache, and wrappers."""

import io
import json
import os

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.datasets import ADE20KDataset, CityscapesDataset, MultiImageMixDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image
from seg_files import CLASSES, dataset, write_pair, write_two_pairs

from mmseg_ext.datasets import CamVidDataset
from mmseg_ext.datasets.dataset_problems import DatasetError
from mmseg_ext.datasets.file_facts import read_image
from mmseg_ext.datasets.scan import label_lut, scan_dataset


@pytest.fixture
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def root(tmp_path, cache_home):
    return write_two_pairs(tmp_path / 'data')


def only_problem(scan):
    """Return the one problem, whose text must be in the error as well."""
    (problem,) = scan.problems
    with pytest.raises(DatasetError) as error:
        scan.raise_for_problems()
    assert all(part in str(error.value) for part in problem)
    return problem


def test_a_good_dataset_has_its_pixels_images_and_sizes_counted(root):
    scan = scan_dataset(dataset(root))
    scan.raise_for_problems()
    assert (scan.num_images, scan.num_labels, scan.num_read, dict(scan.sizes)) == (2, 2, 4, {(4, 6): 2})
    assert scan.class_pixels.tolist() == [24, 12, 8]
    assert scan.class_pixels.dtype == np.int64
    assert scan.class_images.tolist() == [2, 2, 2]
    assert scan.ignored_pixels == 4
    assert '6x4 (2)' in scan.summary()
    assert 'a                     24   50.00%        2' in scan.table()


def test_second_scan_reads_nothing_and_finds_the_same(root):
    first, second = scan_dataset(dataset(root)), scan_dataset(dataset(root))
    assert (first.num_read, second.num_read) == (4, 0)
    assert second.class_pixels.tolist() == first.class_pixels.tolist()
    assert second.sizes == first.sizes


def test_a_changed_file_alone_is_read_again(root):
    scan_dataset(dataset(root))
    write_pair(root, 'y', np.full((4, 6), 2, np.uint8))
    os.utime(root / 'img/y.png', ns=(1, 1))
    scan = scan_dataset(dataset(root))
    assert scan.num_read == 2
    assert scan.class_pixels.tolist() == [12, 6, 4 + 24]


def test_other_classes_are_judged_without_reading_again(root):
    scan_dataset(dataset(root))
    scan = scan_dataset(dataset(root, metainfo=dict(classes=CLASSES[:2])))
    assert scan.num_read == 0
    assert [problem.kind for problem in scan.problems] == ['label value'] * 2


def test_a_bad_file_is_not_cached_and_is_found_again(root):
    (root / 'img/x.png').write_bytes((root / 'img/x.png').read_bytes()[:-20])
    for num_read in (4, 1):
        scan = scan_dataset(dataset(root))
        assert scan.num_read == num_read
        assert only_problem(scan).where == str(root / 'img/x.png')


@pytest.mark.parametrize(
    'content', [b'', b'{"format": 1', b'[]', b'{"format": 0, "files": {}}', b'{"format":1,"files":3}']
)
def test_a_damaged_or_old_cache_is_ignored(root, cache_home, content):
    scan_dataset(dataset(root))
    (path,) = (cache_home / 'mmseg_ext').iterdir()
    path.write_bytes(content)
    assert scan_dataset(dataset(root)).num_read == 4
    assert json.loads(path.read_bytes())['format'] == 1


def test_without_a_writable_cache_the_scan_works_and_says_so(root, cache_home):
    cache_home.write_text('a file where the folder should be')
    scan = scan_dataset(dataset(root))
    scan.raise_for_problems()
    assert any('not kept' in note for note in scan.notes)


def test_label_value_outside_the_classes_names_file_value_count_and_remedy(root):
    write_pair(root, 'y', np.array([[0, 3, 3, 200]], np.uint8).repeat(2, 0))
    problem = only_problem(scan_dataset(dataset(root)))
    assert problem.where == str(root / 'ann/y.png')
    assert problem.found == 'values 3 (4 pixels), 200 (2 pixels)'
    assert '3 classes allow the labels 0 to 2, and 255 for ignored pixels' in problem.remedy
    assert 'reduce_zero_label=True' in problem.remedy


def test_ignore_index_of_the_dataset_is_not_a_wrong_value(root):
    write_pair(root, 'y', np.full((2, 2), 3, np.uint8))
    write_pair(root, 'x', np.zeros((2, 2), np.uint8))
    scan = scan_dataset(dataset(root, ignore_index=3))
    scan.raise_for_problems()
    assert scan.ignored_pixels == 4


def test_a_16_bit_value_that_mmseg_would_wrap_into_a_class_is_found(root):
    write_pair(root, 'y', np.array([[256, 65535], [0, 1]], np.uint16))
    problem = only_problem(scan_dataset(dataset(root)))
    assert problem.found == 'values 256, which becomes 0 (1 pixels)'


def test_reduce_zero_label_ignores_raw_0_and_shifts_the_rest(root):
    write_pair(root, 'y', np.array([[0, 1, 3, 255]], np.uint8).repeat(2, 0))
    write_pair(root, 'x', np.array([[0, 2, 3, 4]], np.uint8).repeat(2, 0))
    scan = scan_dataset(dataset(root, reduce_zero_label=True))
    problem = only_problem(scan)
    assert problem.found == 'values 4, which becomes 3 (2 pixels)'
    assert scan.class_pixels.tolist() == [2, 2, 4]
    assert scan.ignored_pixels == 6


def test_classes_left_out_of_metainfo_are_ignored(root):
    scan = scan_dataset(dataset(root, CityscapesDataset, seg_map_suffix='.png', metainfo=dict(classes=['building'])))
    scan.raise_for_problems()
    assert scan.class_pixels.tolist() == [8]
    assert scan.ignored_pixels == 40


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(cls=ADE20KDataset),
        dict(cls=ADE20KDataset, metainfo=dict(classes=('sky', 'wall'))),
        dict(cls=CamVidDataset),
        dict(cls=CamVidDataset, metainfo=dict(classes=('road', 'sky'))),
    ],
)
def test_label_mapping_is_that_of_mmsegs_load_annotations(tmp_path, kwargs):
    write_pair(tmp_path, 'all', np.arange(256, dtype=np.uint8).reshape(16, 16))
    data = dataset(tmp_path, **kwargs)
    loaded = LoadAnnotations()(data.get_data_info(0))['gt_seg_map']
    np.testing.assert_array_equal(label_lut(data.get_data_info(0)), loaded.ravel())


def test_palette_labels_are_read_as_indices(root):
    label = Image.fromarray(np.full((4, 6), 2, np.uint8))
    label.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    label.save(root / 'ann/x.png')
    scan = scan_dataset(dataset(root))
    scan.raise_for_problems()
    assert scan.class_pixels.tolist() == [12, 6, 4 + 24]


def test_an_rgb_label_is_an_error_that_names_its_shape_and_the_converter(root):
    write_pair(root, 'y', np.zeros((4, 6, 3), np.uint8))
    problem = only_problem(scan_dataset(dataset(root)))
    assert problem.where == str(root / 'ann/y.png')
    assert '(4, 6, 3)' in problem.found
    assert 'tools/prepare_camvid.py' in problem.remedy


def test_a_palette_label_that_the_pipeline_decodes_into_colours_is_an_error(root):
    for stem in ('x', 'y'):
        label = Image.fromarray(np.zeros((4, 6), np.uint8))
        label.putpalette([10, 20, 30])
        label.save(root / f'ann/{stem}.png')
    scan = scan_dataset(dataset(root, pipeline=[LoadAnnotations(imdecode_backend='cv2')]))
    assert [problem.kind for problem in scan.problems] == ['label that is not indices'] * 2


def test_a_label_of_another_size_is_an_error_that_names_both_sizes(root):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(root / 'ann/x.png')
    problem = only_problem(scan_dataset(dataset(root)))
    assert problem.where == str(root / 'ann/x.png')
    assert problem.found.startswith('5x4 (width x height)')
    assert problem.found.endswith('is 6x4')
    assert 'nearest' in problem.remedy


def test_a_missing_label_is_an_error_that_names_it(root):
    (root / 'ann/y.png').unlink()
    problem = only_problem(scan_dataset(dataset(root)))
    assert (problem.kind, problem.where) == ('missing file', str(root / 'ann/y.png'))
    assert 'seg_map_suffix' in problem.remedy


def test_a_missing_image_of_a_list_is_an_error_that_names_it(root):
    (root / 'list.txt').write_text('x\nz\n')
    scan = scan_dataset(dataset(root, ann_file='list.txt'))
    assert [problem.where for problem in scan.problems] == [str(root / 'img/z.png'), str(root / 'ann/z.png')]


@pytest.mark.parametrize('folder', ['img', 'ann'])
@pytest.mark.parametrize('keep', [0, 10, 60, -13, -6])
def test_a_truncated_png_is_an_error(root, folder, keep):
    path = root / folder / 'x.png'
    path.write_bytes(path.read_bytes()[:keep])
    problem = only_problem(scan_dataset(dataset(root)))
    assert (problem.kind, problem.where) == ('unreadable picture', str(path))
    assert 'again' in problem.remedy


def test_a_png_with_a_flipped_byte_is_an_error(root):
    data = bytearray((root / 'img/x.png').read_bytes())
    data[len(data) // 2] ^= 1
    (root / 'img/x.png').write_bytes(data)
    assert only_problem(scan_dataset(dataset(root))).kind == 'unreadable picture'


def test_a_truncated_png_label_is_an_error_with_the_opencv_backend_too(root):
    path = root / 'ann/x.png'
    path.write_bytes(path.read_bytes()[:-20])
    scan = scan_dataset(dataset(root, pipeline=[LoadAnnotations(imdecode_backend='cv2')]))
    assert only_problem(scan).where == str(path)


def test_a_truncated_jpeg_is_an_error(tmp_path):
    write_pair(tmp_path, 'x', np.zeros((40, 60), np.uint8), '.jpg')
    path = tmp_path / 'img/x.jpg'
    data = dataset(tmp_path, img_suffix='.jpg')
    scan_dataset(data).raise_for_problems()
    path.write_bytes(path.read_bytes()[:-100])
    assert only_problem(scan_dataset(data)).where == str(path)


def test_a_jpeg_with_data_behind_its_end_is_whole():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(buffer, 'JPEG')
    assert read_image(buffer.getvalue() + b'trailer')[:2] == (60, 40)


def test_an_exif_rotation_turns_the_image_as_training_sees_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(buffer, 'JPEG', exif=exif)
    assert read_image(buffer.getvalue())[:2] == (40, 60)


def test_labels_are_not_needed_without_a_label_folder_or_loader(root):
    for path in (root / 'ann').iterdir():
        path.unlink()
    without_folder = dataset(root, data_prefix=dict(img_path='img'), test_mode=True)
    without_loader = dataset(root, pipeline=[lambda results: results])
    for data in (without_folder, without_loader):
        scan = scan_dataset(data)
        scan.raise_for_problems()
        assert (scan.num_images, scan.num_labels) == (2, 0)


def test_a_dataset_without_classes_is_an_error(root):
    problem = only_problem(scan_dataset(dataset(root, metainfo=None)))
    assert 'metainfo=dict(classes=' in problem.remedy


def test_files_behind_a_remote_backend_are_left_out_with_a_note(root):
    scan = scan_dataset(dataset(root, backend_args=dict(backend='petrel'), lazy_init=True))
    assert scan.problems == []
    assert 'not local' in scan.notes[0]


def test_images_that_are_not_pictures_are_left_out_with_a_note(root):
    for stem in ('x', 'y'):
        np.save(root / f'img/{stem}.npy', np.zeros((4, 6, 8)))
    scan = scan_dataset(dataset(root, img_suffix='.npy'))
    scan.raise_for_problems()
    assert scan.class_pixels.sum() == 44
    assert scan.notes == ["2 files ending in '.npy' are not checked"]


def test_a_lazy_dataset_is_scanned_and_stays_lazy(root):
    data = dataset(root, lazy_init=True)
    assert scan_dataset(data).num_images == 2
    assert not data._fully_initialized


def test_wrapped_datasets_are_scanned_once_each(root, tmp_path):
    write_pair(tmp_path / 'more', 'z', np.zeros((2, 2), np.uint8))
    both = ConcatDataset([dataset(root), dataset(tmp_path / 'more')])
    for data in (both, MultiImageMixDataset(both, pipeline=[])):
        scan = scan_dataset(data)
        assert scan.num_images == 3
        assert scan.class_pixels.tolist() == [24 + 4, 12, 8]
    assert scan_dataset(RepeatDataset(dataset(root), 5)).class_pixels.tolist() == [24, 12, 8]


def test_a_dataset_of_another_kind_is_refused():
    with pytest.raises(TypeError, match='BaseSegDataset is needed, got list'):
        scan_dataset([1, 2])


def test_many_problems_are_counted_and_some_are_listed(tmp_path):
    for i in range(30):
        write_pair(tmp_path, f'{i:02}', np.full((2, 2), 9, np.uint8))
    (tmp_path / 'ann/00.png').unlink()
    scan = scan_dataset(dataset(tmp_path))
    with pytest.raises(DatasetError) as error:
        scan.raise_for_problems()
    lines = str(error.value).splitlines()
    assert len(error.value.problems) == 30
    assert lines[0] == '30 problems with the data'
    assert 'label value (29):' in lines
    assert '  and 24 more' in lines
    assert sum('remedy:' in line for line in lines) == 2
    assert len(lines) < 20
