import argparse
import shutil
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import DictAction
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mmseg_ext.checkpoints import load_file
from mmseg_ext.datasets.file_facts import UnreadableError
from mmseg_ext.engine.config import load_config
from mmseg_ext.inference import Predictor
from mmseg_ext.inference.outputs import OutputWriter
from mmseg_ext.inference.sources import find_sources

from .conftest import ROOT, load_tool

CONFIG = str(ROOT / 'configs/psp_r18v1c_cityscapes.py')


def config(options: list[str]):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return load_config(CONFIG, parser.parse_args(options).cfg_options)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('weights')


@pytest.fixture
def checkpoint(folder, options) -> Path:
    """A checkpoint of random weights, whose labels vary over an image."""
    path = folder / 'random.pth'
    if not path.exists():
        torch.manual_seed(1)
        with DefaultScope.overwrite_default_scope('mmseg_ext'):
            model = MODELS.build(config(options).model)
        model.init_weights()
        torch.nn.init.normal_(model.decode_head.conv_seg.weight)
        torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


@pytest.fixture
def predictor(options, checkpoint) -> Predictor:
    return Predictor(config(options), checkpoint, device='cpu')


@pytest.fixture
def val(street_scenes) -> Path:
    return street_scenes / 'leftImg8bit/val'


def picture(val: Path) -> np.ndarray:
    """Return the pixels of a street scene, BGR."""
    return cv2.imread(str(next(val.rglob('*.png'))))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two pictures, without the details that compression loses."""
    return float(np.abs(cv2.blur(one, (9, 9)).astype(int) - cv2.blur(other, (9, 9))).mean())


def labels_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in folder.rglob('*.png')}


@pytest.mark.parametrize('tta', [False, True])
def test_labels_are_those_that_tools_test_writes(checkpoint, options, val, tmp_path, tta):
    flags = ['--tta'] if tta else []
    if tta:
        options = [*options, *(f'tta_pipeline.1.transforms.0.{i}.scale_factor=1.0' for i in range(6))]
    test_arguments = ['--work-dir', str(tmp_path), '--out', str(tmp_path / 'test'), *flags, *options]
    load_tool('test').main([CONFIG, str(checkpoint), *test_arguments])
    arguments = [str(val), '--out', str(tmp_path / 'out'), '--outputs', 'labels', *flags, *options]
    assert load_tool('predict').main([CONFIG, str(checkpoint), *arguments]) == 0
    expected, labels = labels_of(tmp_path / 'test'), labels_of(tmp_path / 'out/labels')
    assert set(labels) == set(expected)
    assert len(labels) == 3
    for name, values in labels.items():
        assert len(np.unique(values)) > 2
        assert values.dtype == np.uint8
        np.testing.assert_array_equal(values, expected[name])


def test_a_folder_keeps_its_structure_in_every_kind_of_output(checkpoint, options, val, tmp_path):
    arguments = [str(val), '--out', str(tmp_path), '--outputs', 'overlay', 'labels', 'side', '--opacity', '0', *options]
    load_tool('predict').main([CONFIG, str(checkpoint), *arguments])
    for source in val.rglob('*.png'):
        name = source.relative_to(val).with_suffix('')
        overlay, side = (mmcv.imread(str(tmp_path / kind / f'{name}.jpg')) for kind in ('overlay', 'side'))
        # At opacity 0 both show the image.
        assert distance(overlay, mmcv.imread(str(source))) < 2
        assert distance(side[16:80, :128], side[16:80, 136:]) < 2
        assert side.shape[1] == 2 * 128 + 8
        assert (tmp_path / 'labels' / f'{name}.png').is_file()
    assert not list(tmp_path.rglob('*.part*'))


def test_a_batch_gives_the_labels_of_single_images_and_holds_one_size(predictor, val, tmp_path):
    image = picture(val)
    paths = []
    for i, pixels in enumerate([image, image[:, ::-1], image[:, :64], image // 2]):
        paths.append(tmp_path / f'{i}.png')
        cv2.imwrite(str(paths[-1]), pixels)
    batches = []
    predictor.model.backbone.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    single = list(predictor.predict(paths))
    together = list(predictor.predict(paths, batch_size=3))
    assert batches == [1, 1, 1, 1, 2, 1, 1]
    for one, other, path in zip(single, together, paths, strict=True):
        assert one.source.path == other.source.path == str(path)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.image, cv2.imread(str(path))[..., ::-1])
        assert one.labels.shape == one.image.shape[:2]


def test_inputs_that_cannot_be_read_are_listed_and_the_others_written(checkpoint, options, val, tmp_path, capfd):
    good = next(val.rglob('*.png'))
    shutil.copy(good, tmp_path / 'good.png')
    cv2.imwrite(str(tmp_path / 'cut.jpg'), picture(val))
    content = (tmp_path / 'cut.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(content[: len(content) // 2])
    (tmp_path / 'text.png').write_text('no picture')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    (tmp_path / 'film.mp4').write_bytes(b'no film')
    arguments = [str(tmp_path), str(tmp_path / '*.mp4'), 'gone.png', '--out', str(tmp_path / 'out'), *options]
    assert load_tool('predict').main([CONFIG, str(checkpoint), *arguments]) == 1
    assert [path.name for path in (tmp_path / 'out').rglob('*.*')] == ['good.jpg']
    text = capfd.readouterr().err.split('5 of 6 inputs could not be read:')[1]
    for name, reason in {
        'cut.jpg': 'truncated',
        'text.png': 'not a picture in a known format',
        'empty.jpg': r'empty file (0 bytes)',
        'film.mp4': 'not a video that OpenCV can decode',
        'gone.png': 'does not exist',
    }.items():
        line = next(line for line in text.splitlines() if name in line)
        assert reason in line


def test_in_python_the_first_input_that_cannot_be_read_is_raised(predictor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.png: does not exist'):
        predictor.predict('gone.png')
    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(UnreadableError, match=r'text\.png: not a picture'):
        list(predictor.predict(tmp_path))


def test_without_any_input_nothing_is_built(options, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'(?s)nothing to predict.*gone\.png: does not exist.*holds no images'):
        load_tool('predict').main(
            [CONFIG, 'no_checkpoint.pth', 'gone.png', str(tmp_path), '--out', str(tmp_path / 'out'), *options]
        )


def test_a_checkpoint_that_is_missing_or_does_not_fit_is_named(checkpoint, options, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth'):
        Predictor(config(options), tmp_path / 'gone.pth')
    with pytest.raises(ValueError, match=r'conv_seg\.weight: \(19, .*in the file, \(7, .*num_classes=19'):
        Predictor(config([*options, 'model.decode_head.num_classes=7']), checkpoint)
    weights = load_file(checkpoint)['state_dict']
    torch.save({key: value for key, value in weights.items() if 'layer1.0.conv1' not in key}, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r'1 missing \(backbone\.layer1\.0\.conv1\.weight\)'):
        Predictor(config(options), tmp_path / 'part.pth')
    torch.save(dict(weights, **{'backbone.layer1.2.x': torch.ones(1)}), tmp_path / 'more.pth')
    with pytest.raises(ValueError, match=r'1 unexpected \(backbone\.layer1\.2\.x\)'):
        Predictor(config(options), tmp_path / 'more.pth')


def test_what_may_miss_in_a_checkpoint_is_said_by_switches(options, checkpoint, val, tmp_path):
    weights = load_file(checkpoint)['state_dict']
    weights['backbone.extra'] = weights.pop('backbone.layer1.0.conv1.weight')
    torch.save(weights, tmp_path / 'w.pth')
    arguments = [CONFIG, str(tmp_path / 'w.pth'), str(val), '--out', str(tmp_path / 'out'), *options]
    with pytest.raises(ValueError, match=r'--allow-missing backbone\.layer1\.0\.conv1\.weight --allow-unexpected back'):
        load_tool('predict').main(arguments)
    switches = ['--allow-missing', 'backbone.layer1.', '--allow-unexpected', 'backbone.extra']
    assert load_tool('predict').main([*arguments, *switches]) == 0


def test_the_auxiliary_head_of_a_checkpoint_is_no_matter(options, checkpoint, tmp_path):
    weights = load_file(checkpoint)['state_dict']
    assert any(key.startswith('auxiliary_head.') for key in weights)
    weights['auxiliary_head.conv_seg.weight'] = torch.ones(1)
    torch.save(weights, tmp_path / 'w.pth')
    assert not hasattr(Predictor(config(options), tmp_path / 'w.pth').model, 'auxiliary_head')


def test_a_video_gives_the_labels_of_its_frames_and_videos_of_its_rate(predictor, val, tmp_path):
    video = cv2.VideoWriter(str(tmp_path / 'film.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 7, (128, 64))
    for shift in range(5):
        video.write(np.roll(picture(val), 9 * shift, axis=1))
    video.release()
    frames = list(mmcv.VideoReader(str(tmp_path / 'film.avi')))
    for i, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f'frame{i}.png'), frame)

    with OutputWriter(
        tmp_path / 'out', ['overlay', 'labels', 'side'], predictor.classes, predictor.palette, 0.0
    ) as writer:
        for prediction in predictor.predict(tmp_path / 'film.avi', batch_size=2):
            writer.write(prediction)

    expected = [prediction.labels for prediction in predictor.predict(str(tmp_path / 'frame*.png'))]
    labels = [np.asarray(Image.open(tmp_path / f'out/labels/film/{i:06}.png')) for i in range(5)]
    np.testing.assert_array_equal(labels, expected)
    overlay, side = (mmcv.VideoReader(str(tmp_path / f'out/{kind}/film.mp4')) for kind in ('overlay', 'side'))
    assert (len(overlay), overlay.fps, overlay.resolution) == (5, 7, (128, 64))
    assert (len(side), side.fps, side.width) == (5, 7, 2 * 128 + 8)
    assert distance(overlay[3], frames[3]) < 3
    assert not list(tmp_path.rglob('*.part*'))


def test_an_interrupted_video_leaves_no_file(predictor, val, tmp_path):
    video = cv2.VideoWriter(str(tmp_path / 'film.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 7, (128, 64))
    for _ in range(3):
        video.write(picture(val))
    video.release()

    def interrupted() -> None:
        with OutputWriter(tmp_path / 'out', ['overlay'], predictor.classes, predictor.palette, 0.5) as writer:
            writer.write(next(iter(predictor.predict(tmp_path / 'film.avi'))))
            assert list(tmp_path.rglob('*.part.mp4'))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]


def test_grey_transparent_16_bit_and_rotated_pictures_are_predicted_as_they_are_loaded(predictor, val, tmp_path):
    image = picture(val)
    cv2.imwrite(str(tmp_path / 'grey.png'), image[..., 0])
    cv2.imwrite(str(tmp_path / 'transparent.png'), np.dstack([image, image[..., 0]]))
    cv2.imwrite(str(tmp_path / 'deep.png'), image.astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(image[..., ::-1]).save(tmp_path / 'turned.jpg', exif=exif)
    results = {Path(p.source.path).stem: p for p in predictor.predict(tmp_path)}
    assert (results['grey'].image == image[..., :1]).all()
    for name in ('transparent', 'deep'):
        np.testing.assert_array_equal(results[name].image, image[..., ::-1])
    turned = results['turned']
    assert turned.image.shape == (128, 64, 3)
    assert turned.labels.shape == (128, 64)


def test_classes_are_the_checkpoints_then_the_data_sets(options, checkpoint, predictor, tmp_path):
    assert predictor.classes[:2] == ['road', 'sidewalk']
    assert predictor.palette[0] == [128, 64, 128]
    names, palette = [f'c{i}' for i in range(19)], [[i, i, i] for i in range(19)]
    weights = load_file(checkpoint)['state_dict']
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=names, palette=palette))), tmp_path / 'a')
    named = Predictor(config(options), tmp_path / 'a')
    assert (named.classes, named.palette) == (names, palette)
    options = [*options, 'test_dataloader.dataset.metainfo.classes=(road,sky)']
    other = Predictor(config(options), checkpoint)
    assert (other.classes[18], len(other.palette)) == ('class 18', 19)


def test_output_stride_and_fast_form_reach_the_network(options, checkpoint, predictor, val):
    exact = [f'model.backbone.{x}' for x in ('output_stride=8', 'strides=(1,2,2,2)', 'dilations=(1,1,1,1)')]
    at_8, at_16 = (
        Predictor(config([*options, *exact]), checkpoint, output_stride=stride).predict(val) for stride in (8, 16)
    )
    assert any((one.labels != other.labels).any() for one, other in zip(at_8, at_16, strict=True))
    folded = Predictor(config(options), checkpoint, form=dict(fold_bn=True))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.model.modules())
    for one, other in zip(predictor.predict(val), folded.predict(val), strict=True):
        assert (one.labels == other.labels).mean() > 0.99


def test_tta_without_a_pipeline_is_refused(options, checkpoint):
    cfg = config(options)
    cfg.pop('tta_pipeline')
    with pytest.raises(ValueError, match='--tta: the config has no tta_pipeline'):
        Predictor(cfg, checkpoint, tta=True)


def test_names_keep_folders_and_are_all_different(tmp_path):
    files = ('left/a.png', 'left/sub/a.png', 'right/a.png', 'right/a.JPG', 'right/note.txt', 'right/film.mp4')
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()

    def names(*inputs: str) -> list[str]:
        sources, missing = find_sources([tmp_path / text for text in inputs])
        assert not missing
        return [source.name for source in sources]

    assert names('left') == ['a', 'sub/a']
    assert names('left/a.png', 'left') == ['a', 'sub/a']
    assert names('left', 'right/a.png') == ['left/a', 'left/sub/a', 'right/a']
    assert names('right') == ['a.JPG', 'a.png']
    assert names('*/a.png') == ['left/a', 'right/a']
    assert sorted(names('**/*')) == ['left/a.png', 'left/sub/a.png', 'right/a.JPG', 'right/a.png', 'right/film.mp4']
    assert names('right/film.mp4') == ['film']
    assert names('left/../right/*.mp4', 'left') == ['film', 'a', 'sub/a']
    assert find_sources(str(tmp_path / '*.gif'))[1] == {
        str(tmp_path / '*.gif'): 'matches no images or videos (.png .jpg .jpeg .bmp .tif .tiff .webp)'
    }


def test_results_of_an_earlier_run_are_neither_inputs_nor_lost_inputs(checkpoint, options, val, tmp_path, capsys):
    shutil.copy(next(val.rglob('*.png')), tmp_path / 'a.png')
    arguments = [str(tmp_path), '--out', str(tmp_path), '--outputs', 'labels', *options]
    for _ in range(2):
        load_tool('predict').main([CONFIG, str(checkpoint), *arguments])
        assert '1 image in' in capsys.readouterr().out
    with pytest.raises(ValueError, match=r'a result would overwrite the input .*labels/a\.png'):
        load_tool('predict').main([CONFIG, str(checkpoint), str(tmp_path / 'labels/a.png'), *arguments[1:]])


def test_wrong_numbers_are_named(predictor, val):
    with pytest.raises(ValueError, match='batch_size=0 must be at least 1'):
        list(predictor.predict(val, batch_size=0))
    with pytest.raises(ValueError, match='workers=0 must be at least 1'):
        list(predictor.predict(val, workers=0))
