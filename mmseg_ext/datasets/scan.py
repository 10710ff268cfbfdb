"""Check every image and label of a dataset, and count its classes.

``scan_dataset`` takes any dataset built on mmseg's ``BaseSegDataset``, wrapped or not, initialised or not. Labels are
read and mapped (``reduce_zero_label``, then ``label_map``) as mmseg's ``LoadAnnotations`` does, so what is checked is
what is trained on.
"""

import copy
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations

from .dataset_problems import DatasetError, Problem, folder_problems, is_remote
from .file_facts import Facts, FactStore

# Others (npy, nii, multispectral tif, ...) are read by loaders of their own: their content is not checked.
_IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.ppm', '.gif')
_LABEL_SUFFIXES = (*_IMAGE_SUFFIXES, '.pgm', '.tif', '.tiff')

_MISSING_FILE = (
    'bring the file, or correct data_root, data_prefix, img_suffix or seg_map_suffix; a file that is not wanted can '
    'be left out with ann_file'
)
_UNREADABLE = 'download or convert the file again, or leave it out with ann_file'
_WRONG_SIZE = 'a label must have the size of its image: resize it with the nearest pixel, or pair the right files'
_NOT_INDICES = 'a label must hold class indices: convert the colours (for CamVid: tools/prepare_camvid.py)'


@dataclass
class DatasetScan:
    """What :func:`scan_dataset` found. Arrays count in training's class indices."""

    name: str
    classes: tuple[str, ...]
    num_images: int = 0
    num_labels: int = 0
    num_read: int = 0  # files read in this scan; the others were known from the cache
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (height, width) -> images
    class_pixels: np.ndarray = field(init=False)  # (num_classes,) int64
    class_images: np.ndarray = field(init=False)  # (num_classes,) int64: images that hold the class
    ignore_index: int = 255
    ignored_pixels: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was not checked, and why

    def __post_init__(self):
        self.class_pixels = np.zeros(len(self.classes), dtype=np.int64)
        self.class_images = np.zeros(len(self.classes), dtype=np.int64)

    def raise_for_problems(self) -> None:
        """Raise a :class:`DatasetError` that lists the problems, if there are any."""
        if self.problems:
            raise DatasetError(self.problems)

    def summary(self) -> str:
        """Return one line: counts, sizes and the ignored share."""
        sizes = ', '.join(f'{width}x{height} ({count})' for (height, width), count in self.sizes.most_common(3))
        if len(self.sizes) > 3:
            sizes += f' and {len(self.sizes) - 3} more'
        line = f'{self.name}: {self.num_images} images, {self.num_labels} labels, {self.num_read} files read'
        return f'{line}, width x height {sizes}' if sizes else line

    def table(self) -> str:
        """Return the class histogram as text; shares are of all pixels, the ignored ones included."""
        total = max(1, int(self.class_pixels.sum()) + self.ignored_pixels)
        width = max(map(len, (*self.classes, 'ignored')))
        lines = [f'{"class":<{width}}  {"pixels":>15}  {"share":>7}  {"images":>7}']
        for name, pixels, images in zip(self.classes, self.class_pixels, self.class_images, strict=True):
            lines.append(f'{name:<{width}}  {pixels:>15,}  {pixels / total:>7.2%}  {images:>7,}')
        lines.append(f'{"ignored":<{width}}  {self.ignored_pixels:>15,}  {self.ignored_pixels / total:>7.2%}')
        return '\n'.join(lines)


def scan_dataset(dataset, name: str = 'dataset') -> DatasetScan:
    """Scan all files of ``dataset`` and return the result, problems included; see ``raise_for_problems``.

    Wrappers such as ``ConcatDataset`` and ``RepeatDataset`` are looked through, each dataset inside counts once. A
    dataset that is not initialised stays so. Where the pipeline loads no annotations, only images are checked.

    Raises:
        TypeError: nothing in ``dataset`` is a ``BaseSegDataset``.
    """
    return scan_leaves(list(unwrap(dataset)), name)


def scan_leaves(leaves: list, name: str) -> DatasetScan:
    """Scan several datasets as one; see :func:`scan_dataset`."""
    seg_leaves = [leaf for leaf in leaves if isinstance(leaf, BaseSegDataset)]
    if not seg_leaves:
        kinds = ', '.join(type(leaf).__name__ for leaf in leaves)
        raise TypeError(f"{name}: a dataset built on mmseg's BaseSegDataset is needed, got {kinds}")
    scan = DatasetScan(
        name, tuple(seg_leaves[0].metainfo.get('classes') or ()), ignore_index=seg_leaves[0].ignore_index
    )
    for leaf in leaves:
        if isinstance(leaf, BaseSegDataset):
            _scan_leaf(leaf, scan)
        else:
            scan.notes.append(f'{type(leaf).__name__} is not built on BaseSegDataset: not checked')
    return scan


def unwrap(dataset) -> Iterator:
    """Yield the datasets inside wrappers, or ``dataset`` itself."""
    if isinstance(dataset, BaseSegDataset):
        yield dataset
        return
    if hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from unwrap(inner)
        return
    for name in ('dataset', '_dataset'):  # the second: mmengine's slice for `num_batch_per_epoch`
        if hasattr(dataset, name):
            yield from unwrap(getattr(dataset, name))
            return
    yield dataset


def label_lut(data_info: dict) -> np.ndarray:
    """Return (256,) uint8: the training label of each label in the file, as ``LoadAnnotations`` maps them."""
    lut = np.arange(256)
    if data_info.get('reduce_zero_label'):
        lut = np.where((lut == 0) | (lut == 255), 255, lut - 1)
    mapped = lut.copy()
    for old, new in (data_info.get('label_map') or {}).items():
        mapped[lut == old] = new
    return mapped.astype(np.uint8)


def _scan_leaf(leaf: BaseSegDataset, scan: DatasetScan) -> None:
    kind = type(leaf).__name__
    classes = leaf.metainfo.get('classes') or ()
    if not classes:
        remedy = "name them in the dataset's config: metainfo=dict(classes=(...))"
        scan.problems.append(Problem('dataset without classes', kind, 'its metainfo has no classes', remedy))
        return
    if len(classes) != len(scan.classes):
        found = f'{len(classes)} classes, but the first dataset of {scan.name} has {len(scan.classes)}'
        scan.problems.append(Problem('class count', kind, found, 'give all datasets of a split the same classes'))
        return
    if is_remote(leaf.data_root, leaf.backend_args):
        scan.notes.append(f'{kind} in {leaf.data_root}: files are not local, not checked')
        return
    if not leaf._fully_initialized:
        missing = folder_problems(None, leaf.data_prefix, leaf.ann_file, kind)
        if missing:
            scan.problems.extend(missing)
            return
        leaf = copy.copy(leaf)
        leaf.serialize_data = False  # mmengine cannot serialise an empty list
        leaf.full_init()
    infos = [leaf.get_data_info(i) for i in range(len(leaf))]
    if not infos:
        scan.problems.append(_empty(leaf))
        return
    _scan_files(infos, _label_backend(leaf), leaf, scan)


def _label_backend(leaf: BaseSegDataset) -> str | None:
    """Return the backend that decodes labels, or None where the pipeline loads none."""
    loaders = [t for t in leaf.pipeline.transforms if 'Annotation' in type(t).__name__]
    if not loaders:
        return None if leaf.pipeline.transforms else 'pillow'
    return loaders[0].imdecode_backend if isinstance(loaders[0], LoadAnnotations) else 'pillow'


def _empty(leaf: BaseSegDataset) -> Problem:
    folder = leaf.data_prefix.get('img_path') or '.'
    if leaf.ann_file and not os.path.isdir(leaf.ann_file):
        return Problem('empty dataset', leaf.ann_file, 'the list names no image', 'write one file stem a line')
    there = Counter(os.path.splitext(name)[1] for _, _, names in os.walk(folder) for name in names)
    suffixes = ', '.join(f'{suffix or "no suffix"} ({count})' for suffix, count in there.most_common(3))
    found = f'no file here ends in {leaf.img_suffix!r}; there are {suffixes or "no files at all"}'
    return Problem('empty dataset', folder, found, 'correct data_root, data_prefix or img_suffix')


def _scan_files(infos: list[dict], backend: str | None, leaf: BaseSegDataset, scan: DatasetScan) -> None:
    pairs, unchecked = [], Counter()
    for info in infos:
        image, label = info['img_path'], info.get('seg_map_path') if backend else None
        pairs.append(
            (
                image if _has_suffix(image, _IMAGE_SUFFIXES, unchecked) else None,
                label if label and _has_suffix(label, _LABEL_SUFFIXES, unchecked) else None,
            )
        )
        scan.num_images += 1
        scan.num_labels += label is not None
    scan.notes += [f'{count} files ending in {suffix!r} are not checked' for suffix, count in unchecked.items()]

    store = FactStore(
        file for image, label in pairs for file in ((image, 'image'), (label, backend)) if file[0] is not None
    )
    facts = store.collect()
    scan.num_read += store.num_read
    if store.cache_error:
        scan.notes.append(f'the result is not kept for the next scan: {store.cache_error}')

    luts = {}
    for info, (image, label) in zip(infos, pairs, strict=True):
        image_facts = image and _good(image, 'image', facts, scan)
        label_facts = label and _good(label, backend, facts, scan)
        if image_facts:
            scan.sizes[image_facts.height, image_facts.width] += 1
        if not label_facts:
            continue
        if len(label_facts.shape) != 2:
            found = f'an array of shape {label_facts.shape}, not (height, width)'
            scan.problems.append(Problem('label that is not indices', label, found, _NOT_INDICES))
            continue
        if image_facts and image_facts[:2] != label_facts[:2]:
            found = (
                f'{label_facts.width}x{label_facts.height} (width x height), but its image {image} is '
                f'{image_facts.width}x{image_facts.height}'
            )
            scan.problems.append(Problem('size of a label', label, found, _WRONG_SIZE))
        key = (info.get('reduce_zero_label'), tuple((info.get('label_map') or {}).items()))
        if key not in luts:
            luts[key] = label_lut(info)
        _judge_values(label, label_facts, luts[key], leaf, scan)


def _has_suffix(path: str, suffixes: tuple[str, ...], unchecked: Counter) -> bool:
    suffix = os.path.splitext(path)[1]
    if suffix.lower() in suffixes:
        return True
    unchecked[suffix] += 1
    return False


def _good(path: str, reader: str, facts: dict, scan: DatasetScan) -> Facts | None:
    found = facts[os.path.abspath(path), reader]
    if isinstance(found, Facts):
        return found
    if found is None:
        what = 'image' if reader == 'image' else 'label'
        problem = Problem('missing file', path, f'the {what} does not exist', _MISSING_FILE)
    else:
        problem = Problem('unreadable picture', path, str(found), _UNREADABLE)
    scan.problems.append(problem)
    return None


def _judge_values(path: str, facts: Facts, lut: np.ndarray, leaf: BaseSegDataset, scan: DatasetScan) -> None:
    values, counts = np.array(facts.values), np.array(facts.counts)
    mapped = lut[values & 255].astype(np.int64)  # as the conversion to uint8 does
    ignored = mapped == leaf.ignore_index
    valid = (mapped < len(scan.classes)) & (values == values & 255) & ~ignored
    np.add.at(scan.class_pixels, mapped[valid], counts[valid])
    scan.class_images[np.unique(mapped[valid])] += 1
    scan.ignored_pixels += int(counts[ignored].sum())
    bad = ~valid & ~ignored
    if bad.any():
        shown = [
            f'{value} ({count} pixels)' if value == label else f'{value}, which becomes {label} ({count} pixels)'
            for value, label, count in zip(values[bad], mapped[bad], counts[bad], strict=True)
        ]
        found = f'values {", ".join(shown[:8])}' + (f' and {len(shown) - 8} more values' if len(shown) > 8 else '')
        scan.problems.append(Problem('label value', path, found, _value_remedy(leaf, len(scan.classes))))


def _value_remedy(leaf: BaseSegDataset, num_classes: int) -> str:
    remedy = (
        f'{num_classes} classes allow the labels 0 to {num_classes - 1}, and {leaf.ignore_index} for ignored pixels: '
        f'write {leaf.ignore_index} where nothing is labelled, or name all classes in metainfo=dict(classes=...)'
    )
    if leaf.reduce_zero_label:
        return f'{remedy}; reduce_zero_label=True has taken 1 from each label, correct if the labels count from 1'
    return f'{remedy}; set reduce_zero_label=True if the classes count from 1 and 0 is not one of them'
