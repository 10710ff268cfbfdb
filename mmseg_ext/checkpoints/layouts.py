"""The key layouts of other projects' checkpoints, and how they become ours.

Our keys are mmseg's: ``stem.N`` or ``conv1`` and ``bn1``, ``layer1.0.conv1``, ...; for VGG torchvision's
``features.N``; for Xception timm's ``blocks.N.stack...``. A layout is recognised by keys that only it has, and
converted by renaming: no value changes. Each table goes from the special to the general, and the first layout that
fits wins. Projects that share their keys can't be told apart, and share an entry.

Read in the projects' sources: torchvision 0.29, timm 1.0, resnest 0.0.5, mmpretrain 1.2, mmseg 1.2, hszhao/semseg
(``model/pspnet.py``, ``model/resnet.py``) and jfzhang95/pytorch-deeplab-xception (``modeling/``).
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Rules = tuple[tuple[str, str], ...]

BACKBONE = 'backbone.'
# What a converted segmentor may hold besides its backbone.
_HEADS = ('decode_head.', 'auxiliary_head.', 'neck.')
_CLASSIFIER = ('fc.', 'classifier.', 'head.', 'pre_logits.')


@dataclass(frozen=True)
class Layout:
    """One way to name the weights of a network.

    Args:
        name: what reports call it.
        marks: regular expressions; a state dict has this layout if each matches the start of a key.
        rules: pairs of a regular expression and its replacement; the first that matches the start of a key renames it.
        derive: further rules that depend on which keys there are.
        note: what the target's config must say because keys can't.
    """

    name: str
    marks: tuple[str, ...]
    rules: Rules = ()
    derive: Callable[[Collection[str]], Rules] | None = None
    note: str = ''

    def fits(self, keys: Collection[str]) -> bool:
        return all(any(re.match(mark, key) for key in keys) for mark in self.marks)

    def rename(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rules = self.rules + (self.derive(state_dict.keys()) if self.derive else ())
        return {_rename(key, rules): value for key, value in state_dict.items()}


@dataclass(frozen=True)
class Converted:
    """A state dict in our keys, where it came from, and what the keys couldn't carry."""

    layout: str
    state_dict: dict[str, Tensor]
    note: str = ''

    @property
    def left_out(self) -> list[str]:
        """Keys that are no part of a segmentor or backbone of ours: classifiers, and heads without a counterpart."""
        if any(key.startswith(BACKBONE) for key in self.state_dict):
            return [key for key in self.state_dict if not key.startswith((BACKBONE, *_HEADS))]
        return [key for key in self.state_dict if key.startswith(_CLASSIFIER)]


def _rename(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        found = re.match(pattern, key)
        if found:
            return found.expand(replacement) + key[found.end() :]
    return key


def _shortcuts_without_pool(keys: Collection[str]) -> Rules:
    """mmpretrain's V1d has no pooling in a shortcut of stride 1; ours has one, so that its convolution comes second."""
    blocks = {key.removesuffix('.downsample.0.weight') for key in keys if key.endswith('.downsample.0.weight')}
    if not any(key.endswith('.downsample.2.weight') for key in keys):
        return ()
    return tuple(
        (rf'{re.escape(block)}\.downsample\.{i}\.', f'{block}.downsample.{i + 1}.')
        for block in sorted(blocks)
        for i in (0, 1)
    )


def _vgg_slots(keys: Collection[str]) -> Rules:
    """mmpretrain gives a convolution with norm and ReLU one place in ``features``, torchvision two or three."""
    found = [re.fullmatch(r'features\.(\d+)\.(conv|bn)\.weight', key) for key in keys]
    places = {kind: {int(match[1]) for match in found if match and match[2] == kind} for kind in ('conv', 'bn')}
    rules, slot = [], 0
    for place in range(max(places['conv']) + 1):
        if place not in places['conv']:  # a pooling
            slot += 1
            continue
        rules += [(rf'features\.{place}\.{kind}\.', f'features.{slot + i}.') for i, kind in enumerate(('conv', 'bn'))]
        slot += 3 if place in places['bn'] else 2
    return tuple(rules)


_STAGES = r'layer1\.0\.'
_SPLIT_ATTENTION = r'layer1\.0\.conv2\.fc1\.'
_DEEP_STEM = ((r'conv1\.(\d)\.', r'stem.\1.'), (r'bn1\.', 'stem.7.'))

BACKBONE_LAYOUTS = (
    Layout(
        'mmpretrain ResNet V1c, V1d or ResNeSt',
        marks=(r'stem\.0\.conv\.', _STAGES),
        rules=tuple(
            (rf'stem\.{i}\.{kind}\.', f'stem.{3 * i + offset}.')
            for i in range(3)
            for offset, kind in enumerate(('conv', 'bn'))
        ),
        derive=_shortcuts_without_pool,
    ),
    Layout('official or timm ResNeSt', marks=(r'conv1\.0\.weight', _SPLIT_ATTENTION), rules=_DEEP_STEM),
    Layout('timm ResNet with deep stem', marks=(r'conv1\.0\.weight', _STAGES), rules=_DEEP_STEM),
    Layout(
        'hszhao/semseg ResNet',
        marks=(r'conv1\.weight', r'conv2\.weight', r'conv3\.weight', _STAGES),
        rules=tuple(
            (rf'{kind}{i + 1}\.', f'stem.{3 * i + offset}.')
            for i in range(3)
            for offset, kind in enumerate(('conv', 'bn'))
        ),
        note='its stem has 64, 64 and 128 channels: stem_channels=128',
    ),
    Layout('mmseg ResNeSt', marks=(r'stem\.0\.weight', _SPLIT_ATTENTION)),
    Layout('mmseg ResNet V1c or V1d', marks=(r'stem\.0\.weight', _STAGES)),
    Layout('torchvision, timm, mmpretrain or mmseg ResNet', marks=(r'conv1\.weight', _STAGES)),
    Layout('mmpretrain VGG', marks=(r'features\.0\.conv\.',), derive=_vgg_slots),
    Layout('torchvision or timm VGG', marks=(r'features\.0\.weight',)),
    Layout('timm Xception', marks=(r'blocks\.0\.stack\.conv1\.conv_dw\.',)),
)

_SEMSEG_TRUNK = ((r'layer0\.(\d)\.', r'backbone.stem.\1.'), (r'(layer[1-4]\.)', r'backbone.\1'))
_SEMSEG_NOTE = (
    'set stem_channels=128, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), contract_dilation=False, and '
    'align_corners=True in the heads; images are RGB with the usual ImageNet mean and std, in sizes 8 n + 1'
)

SEGMENTOR_LAYOUTS = (
    Layout(
        'hszhao/semseg PSPNet',
        marks=(r'layer0\.0\.weight', r'ppm\.features\.', r'cls\.4\.'),
        rules=(
            *_SEMSEG_TRUNK,
            (r'ppm\.features\.(\d)\.1\.', r'decode_head.psp_modules.\1.1.conv.'),
            (r'ppm\.features\.(\d)\.2\.', r'decode_head.psp_modules.\1.1.bn.'),
            (r'cls\.0\.', 'decode_head.bottleneck.conv.'),
            (r'cls\.1\.', 'decode_head.bottleneck.bn.'),
            (r'cls\.4\.', 'decode_head.conv_seg.'),
            (r'aux\.0\.', 'auxiliary_head.convs.0.conv.'),
            (r'aux\.1\.', 'auxiliary_head.convs.0.bn.'),
            (r'aux\.4\.', 'auxiliary_head.conv_seg.'),
        ),
        note=f'{_SEMSEG_NOTE}; the auxiliary head is an FCNHead with num_convs=1, concat_input=False',
    ),
    Layout('hszhao/semseg segmentor', marks=(r'layer0\.0\.weight', r'cls\.'), rules=_SEMSEG_TRUNK, note=_SEMSEG_NOTE),
    Layout(
        "jfzhang95's DeepLab with ResNet",
        marks=(r'backbone\.conv1\.', r'backbone\.layer4\.', r'aspp\.aspp1\.', r'decoder\.last_conv\.'),
        note=(
            'its backbone multiplies the dilation of the last stage by 1, 2, 4: multi_grid=(2, 4, 8) with '
            'strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), or (4, 8, 16) with (1, 2, 1, 1), (1, 1, 2, 4). '
            'aspp and decoder have no counterpart: a 1x1 bottleneck and plain 3x3 convolutions where mmseg has a 3x3 '
            'and separable ones'
        ),
    ),
    Layout('mmseg segmentor', marks=(r'backbone\.', r'decode_head\.')),
    Layout('torchvision segmentation model', marks=(r'backbone\.', r'classifier\.\d')),
    Layout('mmpretrain classifier', marks=(r'backbone\.', r'head\.')),
    Layout('model with a backbone', marks=(r'backbone\.',)),
)

# Recognised, but with another computation than any backbone of ours.
_REFUSED = (
    Layout(
        "jfzhang95's DeepLab with Xception",
        marks=(r'backbone\.block20\.', r'aspp\.aspp1\.'),
        note='its separable convolutions have a norm between the two parts and none after the third one of a block',
    ),
    Layout("jfzhang95's DeepLab with DRN", marks=(r'backbone\.layer5\.', r'aspp\.aspp1\.'), note='we have no DRN'),
    Layout(
        "jfzhang95's DeepLab with MobileNet",
        marks=(r'backbone\.features\.', r'aspp\.aspp1\.'),
        note='we have no MobileNet',
    ),
)


def tensors_of(checkpoint: Any, name: str = 'checkpoint') -> dict[str, Tensor]:
    """Return the weights in what a checkpoint file held, without the ``module.`` that parallel training puts in front.

    Raises:
        ValueError: it holds no weights by name.
    """
    for entry in ('state_dict', 'model'):
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(entry), Mapping):
            checkpoint = checkpoint[entry]
    if isinstance(checkpoint, Mapping) and 'state_dict' in checkpoint:
        kind = type(checkpoint['state_dict']).__name__
        raise ValueError(
            f'{name} holds no weights by name: its state_dict is a {kind}, where weights by name should be'
        )
    items = checkpoint.items() if isinstance(checkpoint, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(value, Tensor)}
    if not tensors:
        content = sorted(map(str, checkpoint)) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise ValueError(
            f'{name} holds no weights by name, neither directly nor as state_dict or model; it holds '
            + (f'{content}' if content else 'nothing')
        )
    numbered = next((key for key in tensors if not isinstance(key, str)), None)
    if numbered is not None:
        raise ValueError(f'{name} holds no weights by name: one of its keys is {numbered!r}, no name of a layer')
    if all(key.startswith('module.') for key in tensors):
        return {key.removeprefix('module.'): value for key, value in tensors.items()}
    return tensors


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Recognise the layout of ``state_dict`` and rename its keys to ours.

    A whole segmentor or classifier keeps ``backbone.`` in front of its backbone's keys, a bare backbone has none. Heads
    that have no counterpart here keep their names. Values are not changed.

    Raises:
        ValueError: the layout is not known, or known to be of a network that we don't have.
    """
    for layout in _REFUSED:
        if layout.fits(state_dict.keys()):
            raise ValueError(f'{layout.name} can not be converted: {layout.note}')
    segmentor = next((layout for layout in SEGMENTOR_LAYOUTS if layout.fits(state_dict.keys())), None)
    if segmentor is None:
        backbone = _backbone_layout(state_dict)
        return Converted(backbone.name, backbone.rename(state_dict), backbone.note)
    renamed = segmentor.rename(state_dict)
    trunk = {key.removeprefix(BACKBONE): value for key, value in renamed.items() if key.startswith(BACKBONE)}
    backbone = _backbone_layout(trunk)
    converted = {BACKBONE + key: value for key, value in backbone.rename(trunk).items()}
    converted |= {key: value for key, value in renamed.items() if not key.startswith(BACKBONE)}
    notes = [note for note in (segmentor.note, backbone.note) if note]
    return Converted(f'{segmentor.name}, backbone: {backbone.name}', converted, '; '.join(notes))


def _backbone_layout(state_dict: Mapping[str, Tensor]) -> Layout:
    for layout in BACKBONE_LAYOUTS:
        if layout.fits(state_dict.keys()):
            return layout
    known = [layout.name for layout in (*SEGMENTOR_LAYOUTS, *BACKBONE_LAYOUTS)]
    raise ValueError(f'unknown key layout, with keys like {list(state_dict)[:4]}; known are {known}')
