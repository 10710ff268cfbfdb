"""Turn the original CamVid download (960x720, colour labels) into index labels in the SegNet layout."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from .camvid_labels import colours_to_indices

SPLITS = ('train', 'val', 'test')
# The real labels hold a few pixels of colours between two classes. More than this share means another colour table.
MAX_STRAY_SHARE = 1e-3


@dataclass
class Prepared:
    """What :func:`prepare_camvid` wrote."""

    counts: dict[str, int] = field(default_factory=dict)  # split -> images
    strays: dict[Path, dict[tuple[int, int, int], int]] = field(default_factory=dict)  # label -> colour -> pixels
    left_out: list[str] = field(default_factory=list)  # stems that no split list names


def segnet_split(stem: str) -> str:
    """Return SegNet's split of a frame such as ``0001TP_006690``.

    The rule gives SegNet's three lists exactly (367, 101 and 233 frames): ``0006R0`` is train and ``Seq05VD`` test, the
    first half of ``0001TP`` is train and the rest test, and in ``0016E5`` the 15 Hz run, frames 7959 to 8159, is val.

    Raises:
        ValueError: the name is not a frame of one of CamVid's sequences.
    """
    match = re.fullmatch(r'(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)', stem)
    if match is None:
        raise ValueError(
            f'{stem!r} is not a frame of a CamVid sequence (0001TP, 0006R0, 0016E5, Seq05VD), so its split is not '
            'known; give lists with --splits DIR'
        )
    sequence, frame = match[1], int(match[2])
    if sequence == '0016E5':
        return 'val' if 7959 <= frame <= 8159 else 'train'
    if sequence == '0001TP':
        return 'train' if frame <= 8520 else 'test'
    return 'train' if sequence == '0006R0' else 'test'


def read_split_lists(folder: Path) -> dict[str, str]:
    """Return stem -> split from ``train.txt``, ``val.txt`` and ``test.txt``, as many as there are.

    A line holds a file name, a stem, or paths as in SegNet's lists, of which the first counts.

    Raises:
        FileNotFoundError: none of the lists exists.
        ValueError: a stem is in two lists.
    """
    lists = {split: folder / f'{split}.txt' for split in SPLITS}
    if not any(path.is_file() for path in lists.values()):
        raise FileNotFoundError(f'{folder} holds none of train.txt, val.txt, test.txt')
    split_of = {}
    for split, path in lists.items():
        for line in path.read_text().splitlines() if path.is_file() else ():
            if not line.strip():
                continue
            stem = Path(line.split()[0]).stem.removesuffix('_L')
            if split_of.setdefault(stem, split) != split:
                raise ValueError(f'{stem} is in {split_of[stem]}.txt and in {split}.txt; keep it in one')
    return split_of


def find_pairs(source: Path) -> dict[str, tuple[Path, Path]]:
    """Return stem -> (image, colour label) for all ``NAME.png`` with ``NAME_L.png`` below ``source``.

    Raises:
        FileNotFoundError: ``source`` holds no label, or a file lacks its partner.
        ValueError: a name occurs twice.
    """
    found = ({}, {})
    for path in sorted(source.rglob('*.png')):
        is_label = path.stem.endswith('_L')
        stem = path.stem.removesuffix('_L')
        first = found[is_label].setdefault(stem, path)
        if first != path:
            raise ValueError(f'{path.name} occurs twice: {first} and {path}; leave one of them')
    images, labels = found
    if not labels:
        raise FileNotFoundError(f'{source} holds no colour label NAME_L.png, neither directly nor in its folders')
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        shown = ', '.join(str(images.get(stem) or labels[stem]) for stem in alone[:5])
        raise FileNotFoundError(
            f'{len(alone)} of the files below {source} have no partner (image NAME.png, label NAME_L.png): {shown}'
            f'{", ..." if len(alone) > 5 else ""}; add the partners or remove these files'
        )
    return {stem: (images[stem], labels[stem]) for stem in sorted(images)}


def prepare_camvid(
    source: Path,
    target: Path,
    num_classes: int,
    splits: Path | None = None,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write ``target/{train,val,test}`` and ``target/{train,val,test}annot``; all of it or nothing.

    Args:
        source: the download; see :func:`find_pairs`.
        target: a folder that is empty or does not exist.
        num_classes: 11 (void is label 11) or 32 (void is label 30).
        splits: folder of lists, see :func:`read_split_lists`; without it SegNet's split, see :func:`segnet_split`.
        size: (height, width) to resize to; images by area, labels by the nearest pixel.
        progress: called with (done, total) after each image.

    Raises:
        FileExistsError: ``target`` holds something.
        FileNotFoundError, ValueError: what the functions above raise; a label with unknown colours on more than 0.1% of
            its pixels, or with another size than its image.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f'{target} exists and is not an empty folder; remove it or choose another')
    pairs = find_pairs(source)
    result = Prepared()
    if splits is None:
        split_of = {stem: segnet_split(stem) for stem in pairs}
    else:
        split_of = read_split_lists(splits)
        missing = sorted(split_of.keys() - pairs.keys())
        if missing:
            raise FileNotFoundError(
                f'the lists in {splits} name {len(missing)} frames that are not below {source}: '
                f'{", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}'
            )
        result.left_out = sorted(pairs.keys() - split_of.keys())

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f'.{target.name}.{os.getpid()}.partial')
    partial.mkdir()
    try:
        for done, (stem, split) in enumerate(sorted(split_of.items()), 1):
            image, label = pairs[stem]
            strays = _convert(image, label, partial / split, partial / f'{split}annot', stem, num_classes, size)
            if strays:
                result.strays[label] = strays
            result.counts[split] = result.counts.get(split, 0) + 1
            if progress:
                progress(done, len(split_of))
        if target.exists():
            target.rmdir()
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return result


def _convert(image_path, label_path, image_dir, label_dir, stem, num_classes, size) -> dict[tuple[int, int, int], int]:
    with Image.open(label_path) as picture:
        rgb = np.asarray(picture.convert('RGB'))
    indices, strays = colours_to_indices(rgb, num_classes)
    num_strays = sum(strays.values())
    if num_strays > MAX_STRAY_SHARE * indices.size:
        shown = sorted(strays.items(), key=lambda item: -item[1])[:5]
        raise ValueError(
            f'{label_path}: {num_strays} of {indices.size} pixels have {len(strays)} colours that are not in the '
            f'CamVid table: {", ".join(f"{colour} ({count} pixels)" for colour, count in shown)}'
            f'{", ..." if len(strays) > 5 else ""}; is it an original label (not resized, not saved as JPEG)?'
        )
    label = Image.fromarray(indices)
    image_dir.mkdir(exist_ok=True)
    label_dir.mkdir(exist_ok=True)
    with Image.open(image_path) as image:
        if image.size != label.size:
            raise ValueError(
                f'{label_path} is {label.width}x{label.height}, but its image {image_path} is '
                f'{image.width}x{image.height}; take both from the same download'
            )
        if size is None:
            shutil.copyfile(image_path, image_dir / f'{stem}.png')
        else:
            height, width = size
            image.convert('RGB').resize((width, height), Image.Resampling.BOX).save(image_dir / f'{stem}.png')
            label = label.resize((width, height), Image.Resampling.NEAREST)
    label.save(label_dir / f'{stem}.png')
    return strays
