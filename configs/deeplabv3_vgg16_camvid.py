# deeplabv3
_base_ = [
    './_base_/models/deeplabv3_vgg16.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/adamw_camvid.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(240, 320)),
    backbone=dict(init_cfg=None),
    decode_head=dict(num_classes=11),
)
