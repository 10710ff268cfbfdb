"""The rows of the CamVid table: what is trained, and what of it is tested."""

from collections.abc import Sequence
from dataclasses import dataclass

_CRF = {'with dense CRF': ('--crf',)}
_DENSER = {
    'output stride 8': ('--output-stride', '8'),
    'output stride 8, rates kept': ('--output-stride', '8', '--keep-rates'),
}


@dataclass(frozen=True)
class Row:
    """A model of the table.

    Args:
        name: its config is ``configs/{name}_camvid.py``.
        title: how the table names it.
        variants: further tests of its best checkpoint: title -> arguments of ``tools/test.py``.
    """

    name: str
    title: str
    variants: dict[str, tuple[str, ...]]


ROWS = tuple(
    Row(name, title, variants)
    for name, title, variants in (
        ('deeplabv1_r18v1c', 'DeepLabV1, ResNet-18', _CRF),
        ('deeplabv2_r18v1c', 'DeepLabV2, ResNet-18', _CRF),
        ('psp_r18v1c', 'PSPNet, ResNet-18', {}),
        ('deeplabv3_r18v1c', 'DeepLabV3, ResNet-18', {}),
        ('deeplabv3_r18v1c_os16', 'DeepLabV3, ResNet-18, output stride 16', _DENSER),
        ('deeplabv3plus_r18v1c', 'DeepLabV3+, ResNet-18, output stride 16', {**_DENSER, **_CRF}),
        ('deeplabv3plus_r18v1c_os8', 'DeepLabV3+, ResNet-18, output stride 8', {}),
        ('deeplabv1_vgg16', 'DeepLabV1, VGG-16', _CRF),
        ('deeplabv2_vgg16', 'DeepLabV2, VGG-16', _CRF),
        ('deeplabv3_vgg16', 'DeepLabV3, VGG-16', {}),
        ('deeplabv3_vgg16_os16', 'DeepLabV3, VGG-16, output stride 16', _DENSER),
        ('deeplabv3plus_vgg16', 'DeepLabV3+, VGG-16', _DENSER),
        ('deeplabv2_r101', 'DeepLabV2, ResNet-101', _CRF),
        ('psp_r50v1c', 'PSPNet, ResNet-50', {}),
        ('deeplabv3_r50v1c', 'DeepLabV3, ResNet-50', {}),
        ('deeplabv3_r50v1c_os16', 'DeepLabV3, ResNet-50, output stride 16', _DENSER),
        ('deeplabv3plus_r50v1c', 'DeepLabV3+, ResNet-50', _DENSER),
        ('deeplabv3plus_x41', 'DeepLabV3+, Xception-41', _DENSER),
        ('psp_s50', 'PSPNet, ResNeSt-50', {}),
        ('deeplabv3plus_s50', 'DeepLabV3+, ResNeSt-50', {}),
    )
)


def select_rows(names: Sequence[str]) -> list[Row]:
    """Return the rows of these names, in the table's order; all of them where there are no names.

    Raises:
        ValueError: there is no row of that name.
    """
    known = [row.name for row in ROWS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'the table has no row {", ".join(unknown)}; its rows are {", ".join(known)}')
    return [row for row in ROWS if not names or row.name in names]
