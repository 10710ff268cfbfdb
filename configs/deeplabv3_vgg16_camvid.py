# DeepLabV3, VGG-16, output stride 8, CamVid at 360x480, from random weights.
_base_ = [
    './_base_/models/deeplabv3_vgg16.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/camvid.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(init_cfg=None),
    # (6, 12, 18) at stride 8 reach as far as the crops allow; see datasets/camvid.py.
    decode_head=dict(num_classes=11, dilations=(1, 6, 12, 18), loss_decode=dict(class_weight={{_base_.class_weight}})),
)
