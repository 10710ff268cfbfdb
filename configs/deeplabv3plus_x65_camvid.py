# DeepLabV3+, Aligned Xception-65, output stride 16, CamVid at 360x480, from random weights.
_base_ = [
    './_base_/models/deeplabv3plus_x65.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/camvid.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(init_cfg=None),
    # (3, 6, 9) at stride 16 reach as far as the crops allow; see datasets/camvid.py.
    decode_head=dict(num_classes=11, dilations=(1, 3, 6, 9), loss_decode=dict(class_weight={{_base_.class_weight}})),
)
