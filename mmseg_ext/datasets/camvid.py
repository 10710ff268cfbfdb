"""CamVid with 11 classes (SegNet's layout, as it lies) and with the original 32.

A split ``train`` is the folders ``train`` (images) and ``trainannot`` (index labels of the same file names), which is
what SegNet's download holds and what ``tools/prepare_camvid.py`` writes.
"""

from mmseg.datasets import BaseSegDataset

from mmseg_ext.registry import DATASETS

from .camvid_labels import COLOURS, GROUPS, UNLABELLED_11


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with 11 classes; label 11 is unlabelled.

    Label 11 is turned into 255 when a label is loaded, through ``label_map``, so losses and metrics keep mmseg's
    ``ignore_index=255``. ``metainfo=dict(classes=...)`` selects classes as in every mmseg dataset.
    """

    METAINFO = {
        'classes': tuple(GROUPS),
        'palette': [list(COLOURS[members[0]]) for members in GROUPS.values()],
    }

    def __init__(self, img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes=None) -> dict[int, int]:
        """Return the map from labels in the files to labels in training; 11 and classes left out become 255."""
        return {**(super().get_label_map(new_classes) or {}), UNLABELLED_11: 255}


@DATASETS.register_module()
class CamVid32Dataset(BaseSegDataset):
    """CamVid with the 32 classes of its colour table, in the table's order.

    ``Void`` is one of the 32. To ignore it instead, leave it out: ``metainfo=dict(classes=[the 31 others])``.
    """

    METAINFO = {'classes': tuple(COLOURS), 'palette': [list(colour) for colour in COLOURS.values()]}

    def __init__(self, img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
