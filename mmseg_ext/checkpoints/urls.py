"""Published weights: what their names mean.

One table from a name to the URL of the published file. Each file name ends in the first digits of the file's SHA-256,
which :mod:`.download` checks. Names that are not in the table, but in one of mmengine's, work too.
"""

import difflib
from pathlib import Path

from mmengine.runner.checkpoint import (
    _get_mmengine_home,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

_RESNEST = 'https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1'
_OPENMMLAB = 'https://download.openmmlab.com'
_TORCHVISION = 'https://download.pytorch.org/models'

PUBLISHED = {
    # github.com/zhanghang1989/ResNeSt: resnest/torch/models/resnest.py and ablation.py
    'resnest://resnest50': f'{_RESNEST}/resnest50-528c19ca.pth',
    'resnest://resnest101': f'{_RESNEST}/resnest101-22405ba7.pth',
    'resnest://resnest200': f'{_RESNEST}/resnest200-75117900.pth',
    'resnest://resnest269': f'{_RESNEST}/resnest269-0cc87c48.pth',
    'resnest://resnest50_fast_1s1x64d': f'{_RESNEST}/resnest50_fast_1s1x64d-d8fbf808.pth',
    'resnest://resnest50_fast_2s1x64d': f'{_RESNEST}/resnest50_fast_2s1x64d-44938639.pth',
    'resnest://resnest50_fast_4s1x64d': f'{_RESNEST}/resnest50_fast_4s1x64d-f74f3fc3.pth',
    'resnest://resnest50_fast_1s2x40d': f'{_RESNEST}/resnest50_fast_1s2x40d-32830b84.pth',
    'resnest://resnest50_fast_2s2x40d': f'{_RESNEST}/resnest50_fast_2s2x40d-9d126481.pth',
    'resnest://resnest50_fast_4s2x40d': f'{_RESNEST}/resnest50_fast_4s2x40d-41d14ed0.pth',
    'resnest://resnest50_fast_1s4x24d': f'{_RESNEST}/resnest50_fast_1s4x24d-d4a4f76f.pth',
    # mmpretrain's configs/resnet/metafile.yml
    'mmpretrain://resnetv1c50': f'{_OPENMMLAB}/mmclassification/v0/resnet/resnetv1c50_8xb32_in1k_20220214-3343eccd.pth',
    # mmengine/hub/openmmlab.json (onedl-mmengine's names the same files on its own host)
    'open-mmlab://resnet18_v1c': f'{_OPENMMLAB}/pretrain/third_party/resnet18_v1c-b5776b93.pth',
    'open-mmlab://resnet50_v1c': f'{_OPENMMLAB}/pretrain/third_party/resnet50_v1c-2cccc1ad.pth',
    'open-mmlab://resnet101_v1c': f'{_OPENMMLAB}/pretrain/third_party/resnet101_v1c-e67eebb6.pth',
    # torchvision.models: *_Weights.IMAGENET1K_V1, which is what mmengine's plain names mean, and the newer weights
    'torchvision://resnet18': f'{_TORCHVISION}/resnet18-f37072fd.pth',
    'torchvision://resnet34': f'{_TORCHVISION}/resnet34-b627a593.pth',
    'torchvision://resnet50': f'{_TORCHVISION}/resnet50-0676ba61.pth',
    'torchvision://resnet50.imagenet1k_v2': f'{_TORCHVISION}/resnet50-11ad3fa6.pth',
    'torchvision://resnet101': f'{_TORCHVISION}/resnet101-63fe2227.pth',
    'torchvision://resnet101.imagenet1k_v2': f'{_TORCHVISION}/resnet101-cd907fc2.pth',
    'torchvision://resnet152': f'{_TORCHVISION}/resnet152-394f9c45.pth',
    'torchvision://resnet152.imagenet1k_v2': f'{_TORCHVISION}/resnet152-f82ba261.pth',
    'torchvision://vgg16': f'{_TORCHVISION}/vgg16-397923af.pth',
    'torchvision://vgg16.imagenet1k_features': f'{_TORCHVISION}/vgg16_features-amdegroot-88682ab5.pth',
    'torchvision://vgg16_bn': f'{_TORCHVISION}/vgg16_bn-6c64b313.pth',
}

_ALIASES = {'modelzoo': 'torchvision', 'openmmlab': 'open-mmlab'}


def resolve(source: str) -> str:
    """Return the URL or path that ``source`` means: itself, unless it is a name like ``torchvision://resnet50``.

    Raises:
        ValueError: the name is not among the published ones of its scheme.
    """
    scheme, separator, name = source.partition('://')
    scheme = _ALIASES.get(scheme, scheme)
    if not separator or scheme in ('http', 'https'):
        return source
    published = PUBLISHED.get(f'{scheme}://{name}')
    if published:
        return published
    known = _mmengine_table(scheme)
    if scheme == 'open-mmlab':
        name = get_deprecated_model_names().get(name, name)
    if name in known:
        url = known[name]
        # A user's open_mmlab.json may name files in mmengine's folder.
        return url if '://' in url else str(Path(_get_mmengine_home(), url))
    names = {f'{scheme}://{name}' for name in known}
    names |= {name for name in PUBLISHED if name.startswith(f'{scheme}://')}
    if not names:
        schemes = sorted({name.split('://')[0] for name in PUBLISHED} | {'mmcls'})
        raise ValueError(f'checkpoint {source!r}: unknown scheme; give a path, an http(s) URL or a name of {schemes}')
    close = difflib.get_close_matches(source, names) or sorted(names)[:3]
    raise ValueError(f'checkpoint {source!r} is not published; did you mean one of {close}?')


def _mmengine_table(scheme: str) -> dict[str, str]:
    tables = {'torchvision': get_torchvision_models, 'open-mmlab': get_external_models, 'mmcls': get_mmcls_models}
    return tables[scheme]() if scheme in tables else {}
