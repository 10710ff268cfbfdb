"""Make a model of mmseg's zoo small and keep its structure.

Channels are divided by eight, stages lose their repeated blocks, crops become small, and with them the rates of atrous
convolutions, which would reach beyond the border. What does not change the network (where its weights come from, how
images are normalised) is dropped, so that equal networks become equal dicts.
"""

from importlib import import_module

CROP = (64, 64)
CLASSES = 5
NARROW = 8

RESNETS = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeSt')
# Backbones without an argument for their channels, or with fixed ones that the others have to fit; small as they are.
FIXED = ('MobileNetV2', 'MobileNetV3', 'ERFNet')

DROPPED = ('pretrained', 'init_cfg', 'data_preprocessor')
# Widths whose names don't end in 'channels'.
WIDTHS = ('embed_dims', 'embed_dim')
# Blocks a stage. As one int, 'num_layers' is a whole transformer, whose outputs are picked by index.
REPEATS = ('depths', 'layers', 'num_layers', 'num_blocks')
# What the size of a crop or its number of pixels decides.
SIZES = dict(crop_size=CROP, stride=(42, 42), img_size=CROP, mask_size=(15, 15), min_kept=1000)


def shrink(model: dict) -> dict:
    """Return a small copy of a model's config; see above."""
    backbone = model['backbone']
    small = _shrink(model, '', narrow=1 if backbone['type'] in FIXED else NARROW)
    if 'in_channels' in backbone:  # those of the image
        small['backbone']['in_channels'] = backbone['in_channels']
    return small


def _shrink(node, key: str, narrow: int):
    if isinstance(node, dict):
        return _shrink_dict(node, narrow)
    if key in SIZES:
        return SIZES[key]
    if key == 'class_weight' and node is not None:
        return node[:CLASSES]
    if isinstance(node, (list, tuple)):
        if key in REPEATS:
            return type(node)(min(count, 2) for count in node)
        return type(node)(_shrink(value, key, narrow) for value in node)
    if type(node) is not int:
        return node
    if key == 'num_classes':
        return min(node, CLASSES)
    if key == 'depth':
        return min(node, 50)
    if key == 'num_modules':
        return 1
    if key in ('dilation', 'dilations') and node >= 6:
        return max(node // 6, 2)  # a rate of 1 would be another kernel in ASPP
    if (key.endswith('channels') or key in WIDTHS) and node >= NARROW:
        return node // narrow
    return node


def _shrink_dict(node: dict, narrow: int) -> dict:
    kind = node.get('type')
    if kind in ('mmpretrain.ConvNeXt', 'mmpretrain.PoolFormer'):  # the name of an architecture holds its widths
        settings = getattr(import_module('mmpretrain.models'), kind.split('.')[1]).arch_settings
        node = {**node, 'arch': settings[node['arch']]}
    small = {key: _shrink(value, key, narrow) for key, value in node.items() if key not in DROPPED}
    if kind in RESNETS:
        small = {'base_channels': 64 // narrow, 'stem_channels': 64 // narrow, **small}
    if kind == 'SyncBN':  # needs GPUs
        small['type'] = 'BN'
    return small
