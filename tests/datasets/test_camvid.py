"""CamVid: reading SegNet's layout through mmseg, the colour table, and the conversion of the download."""

import stat

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image
from seg_files import load_tool

from mmseg_ext.datasets import CamVid32Dataset, CamVidDataset
from mmseg_ext.datasets.camvid_labels import COLOURS, GROUPS, colours_to_indices
from mmseg_ext.datasets.camvid_prepare import prepare_camvid, read_split_lists, segnet_split
from mmseg_ext.registry import DATASETS

NAMES = list(COLOURS)
TABLE = np.array(list(COLOURS.values()), dtype=np.uint8)


@pytest.fixture
def segnet_layout(tmp_path):
    for folder in ('train', 'trainannot'):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / 'train/a.png')
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / 'trainannot/a.png')
    return tmp_path


def camvid(root, cls=CamVidDataset, **kwargs):
    prefix = dict(img_path='train', seg_map_path='trainannot')
    return cls(data_root=str(root), data_prefix=prefix, pipeline=[LoadAnnotations()], serialize_data=False, **kwargs)


@pytest.fixture
def download(tmp_path):
    """All 32 colours in 4x8 labels, one frame of each split, in the folders of the original download."""
    root = tmp_path / 'download'
    for folder in ('701_StillsRaw_full', 'LabeledApproved_full'):
        (root / folder).mkdir(parents=True)
    for stem in ('0001TP_006690', '0016E5_08001', 'Seq05VD_f00000'):
        Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(root / f'701_StillsRaw_full/{stem}.png')
        Image.fromarray(TABLE.reshape(4, 8, 3)).save(root / f'LabeledApproved_full/{stem}_L.png')
    return root


def test_label_11_becomes_255_when_mmseg_loads_it(segnet_layout):
    label = camvid(segnet_layout)[0]['gt_seg_map']
    assert label.ravel().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]


def test_label_11_stays_ignored_with_a_subset_of_the_classes(segnet_layout):
    dataset = camvid(segnet_layout, metainfo=dict(classes=('road', 'sky')))
    assert dataset[0]['gt_seg_map'].ravel().tolist() == [1, 255, 255, 0] + [255] * 8
    assert dataset.metainfo['palette'] == [[128, 64, 128], [128, 128, 128]]


def test_32_classes_are_loaded_as_they_are_and_void_can_be_left_out(segnet_layout):
    Image.fromarray(np.array([[29, 30, 31, 0]] * 3, np.uint8)).save(segnet_layout / 'trainannot/a.png')
    assert camvid(segnet_layout, CamVid32Dataset)[0]['gt_seg_map'][0].tolist() == [29, 30, 31, 0]
    without_void = dict(classes=tuple(name for name in NAMES if name != 'Void'))
    assert camvid(segnet_layout, CamVid32Dataset, metainfo=without_void)[0]['gt_seg_map'][0].tolist() == [
        29,
        255,
        30,
        0,
    ]


def test_both_datasets_are_registered_with_a_palette_of_their_classes():
    for name, num_classes in (('CamVidDataset', 11), ('CamVid32Dataset', 32)):
        meta = DATASETS.get(name).METAINFO
        assert len(meta['classes']) == len(meta['palette']) == num_classes


def test_class_order_is_segnets():
    assert CamVidDataset.METAINFO['classes'] == (
        'sky',
        'building',
        'pole',
        'road',
        'pavement',
        'tree',
        'sign symbol',
        'fence',
        'car',
        'pedestrian',
        'bicyclist',
    )


def test_the_groups_hold_each_of_the_32_classes_once_but_void():
    members = [name for group in GROUPS.values() for name in group]
    assert sorted(members) == sorted(set(NAMES) - {'Void'})


def test_32_colours_become_their_position_in_the_table():
    indices, strays = colours_to_indices(TABLE.reshape(4, 8, 3), 32)
    assert indices.dtype == np.uint8
    assert indices.ravel().tolist() == list(range(32))
    assert strays == {}


def test_colours_are_grouped_into_11_classes():
    indices, _ = colours_to_indices(TABLE[None], 11)
    of = dict(zip(NAMES, indices[0].tolist(), strict=True))
    assert (of['Sky'], of['Wall'], of['TrafficCone'], of['LaneMkgsNonDriv'], of['ParkingBlock']) == (0, 1, 2, 3, 4)
    assert (of['VegetationMisc'], of['TrafficLight'], of['Fence'], of['Train'], of['Animal']) == (5, 6, 7, 8, 9)
    assert (of['MotorcycleScooter'], of['Void']) == (10, 11)


@pytest.mark.parametrize(('num_classes', 'void'), [(11, 11), (32, 30)])
def test_unknown_colours_count_as_void_and_are_reported(num_classes, void):
    rgb = np.full((2, 2, 3), 128, np.uint8)
    rgb[0, 0] = 1, 2, 3
    rgb[1, 1] = 255, 255, 255
    indices, strays = colours_to_indices(rgb, num_classes)
    assert (indices == void).tolist() == [[True, False], [False, True]]
    assert strays == {(1, 2, 3): 1, (255, 255, 255): 1}


def test_conversion_refuses_grey_labels_and_other_class_counts():
    with pytest.raises(ValueError, match=r'shape \(2, 2\)'):
        colours_to_indices(np.zeros((2, 2), np.uint8), 11)
    with pytest.raises(ValueError, match='11 or 32, got 12'):
        colours_to_indices(np.zeros((2, 2, 3), np.uint8), 12)


@pytest.mark.parametrize(
    ('stem', 'split'),
    [
        ('0001TP_008520', 'train'),
        ('0001TP_008550', 'test'),
        ('0006R0_f03930', 'train'),
        ('0016E5_07920', 'train'),
        ('0016E5_07959', 'val'),
        ('0016E5_08159', 'val'),
        ('0016E5_08190', 'train'),
        ('Seq05VD_f05100', 'test'),
    ],
)
def test_split_rule_at_the_ends_of_segnets_lists(stem, split):
    assert segnet_split(stem) == split


def test_split_of_a_foreign_name_is_an_error_that_names_the_remedy():
    with pytest.raises(ValueError, match=r"'holiday_01'.*--splits DIR"):
        segnet_split('holiday_01')


def test_split_lists_take_stems_file_names_and_segnets_two_paths(tmp_path):
    (tmp_path / 'train.txt').write_text('/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\nb\n\nc_L.png\n')
    (tmp_path / 'test.txt').write_text('d.png\n')
    assert read_split_lists(tmp_path) == {'a': 'train', 'b': 'train', 'c': 'train', 'd': 'test'}
    (tmp_path / 'val.txt').write_text('a\n')
    with pytest.raises(ValueError, match=r'a is in train.txt and in val.txt'):
        read_split_lists(tmp_path)
    with pytest.raises(FileNotFoundError, match='holds none of'):
        read_split_lists(tmp_path / 'nowhere')


@pytest.mark.parametrize('num_classes', [11, 32])
def test_prepared_download_loads_as_the_dataset_of_that_many_classes(download, tmp_path, num_classes):
    target = tmp_path / 'out'
    result = prepare_camvid(download, target, num_classes)
    assert result.counts == {'train': 1, 'val': 1, 'test': 1}
    expected, _ = colours_to_indices(TABLE.reshape(4, 8, 3), num_classes)
    with Image.open(target / 'valannot/0016E5_08001.png') as label:
        assert label.mode == 'L'
        np.testing.assert_array_equal(np.asarray(label), expected)
    dataset = camvid(target, {11: CamVidDataset, 32: CamVid32Dataset}[num_classes])
    np.testing.assert_array_equal(
        dataset[0]['gt_seg_map'], np.where(expected == 11, 255, expected) if num_classes == 11 else expected
    )


def test_images_and_labels_in_one_folder_are_found(tmp_path):
    source = tmp_path / 'all'
    source.mkdir()
    for name in ('0006R0_f00930', '0006R0_f00930_L'):
        Image.fromarray(np.full((2, 2, 3), 128, np.uint8)).save(source / f'{name}.png')
    assert prepare_camvid(source, tmp_path / 'out', 11).counts == {'train': 1}


def test_lists_decide_the_split_and_what_is_left_out(download, tmp_path):
    (tmp_path / 'train.txt').write_text('Seq05VD_f00000\n')
    result = prepare_camvid(download, tmp_path / 'out', 11, splits=tmp_path)
    assert result.counts == {'train': 1}
    assert result.left_out == ['0001TP_006690', '0016E5_08001']
    (tmp_path / 'val.txt').write_text('0001TP_999999\n')
    with pytest.raises(FileNotFoundError, match='0001TP_999999'):
        prepare_camvid(download, tmp_path / 'out2', 11, splits=tmp_path)


def test_resizing_averages_images_and_picks_labels(download, tmp_path):
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, ::2] = 100
    Image.fromarray(image).save(download / '701_StillsRaw_full/0001TP_006690.png')
    prepare_camvid(download, tmp_path / 'out', 32, size=(2, 4))
    with Image.open(tmp_path / 'out/train/0001TP_006690.png') as resized:
        np.testing.assert_array_equal(np.asarray(resized), np.full((2, 4, 3), 50))
    with Image.open(tmp_path / 'out/trainannot/0001TP_006690.png') as label:
        assert np.asarray(label).tolist() == [[9, 11, 13, 15], [25, 27, 29, 31]]


def write_strays(download, count):
    rgb = np.full((100, 100, 3), 128, np.uint8)
    rgb.reshape(-1, 3)[:count] = 7, 8, 9
    Image.fromarray(rgb).save(download / 'LabeledApproved_full/0001TP_006690_L.png')
    Image.fromarray(rgb).save(download / '701_StillsRaw_full/0001TP_006690.png')


def test_a_tenth_of_a_percent_of_unknown_pixels_passes_as_void(download, tmp_path):
    write_strays(download, 10)
    result = prepare_camvid(download, tmp_path / 'out', 11)
    assert result.strays == {download / 'LabeledApproved_full/0001TP_006690_L.png': {(7, 8, 9): 10}}


def test_more_unknown_pixels_are_an_error_and_leave_nothing_behind(download, tmp_path):
    write_strays(download, 11)
    with pytest.raises(ValueError, match=r'0001TP_006690_L.png: 11 of 10000 .*\(7, 8, 9\) \(11 pixels\)'):
        prepare_camvid(download, tmp_path / 'out', 11)
    assert [path.name for path in tmp_path.iterdir()] == ['download']


def test_nothing_is_overwritten(download, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine.txt').touch()
    with pytest.raises(FileExistsError, match='not an empty folder'):
        prepare_camvid(download, tmp_path / 'out', 11)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['mine.txt']


def test_files_without_partner_twice_or_of_other_size_are_named(download, tmp_path):
    label = download / 'LabeledApproved_full/0001TP_006690_L.png'
    image = download / '701_StillsRaw_full/0001TP_006690.png'
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(image)
    with pytest.raises(ValueError, match=r'0001TP_006690_L.png is 8x4.*is 2x2'):
        prepare_camvid(download, tmp_path / 'out', 11)
    (download / image.name).write_bytes(image.read_bytes())
    with pytest.raises(ValueError, match=r'0001TP_006690.png occurs twice'):
        prepare_camvid(download, tmp_path / 'out', 11)
    (download / image.name).unlink()
    label.unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of the files .*0001TP_006690.png'):
        prepare_camvid(download, tmp_path / 'out', 11)
    with pytest.raises(FileNotFoundError, match='no colour label'):
        prepare_camvid(tmp_path / 'nowhere', tmp_path / 'out', 11)


def test_tool_converts_and_the_result_is_readable_by_all(download, tmp_path, capsys):
    tool = load_tool('prepare_camvid')
    target = tmp_path / 'out'
    assert tool.main([str(download), str(target), '--classes', '11', '--size', '2x4']) == 0
    assert f'{target}: train 1, val 1, test 1' in capsys.readouterr().out
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((target / 'train').stat().st_mode)
    assert tool.main([str(download), str(target), '--classes', '11']) == 1
    assert 'not an empty folder' in capsys.readouterr().err
