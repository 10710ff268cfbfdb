# PSPNet, ResNet-50 V1c, output stride 8, CamVid at 360x480, from random weights.
_base_ = [
    './_base_/models/psp_r50v1c.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/camvid.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(init_cfg=None),
    decode_head=dict(num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})),
    auxiliary_head=dict(num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})),
)
