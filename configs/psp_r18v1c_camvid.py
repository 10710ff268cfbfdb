# PSPNet, ResNet-18 V1c, CamVid at 360x480, from random weights.
_base_ = [
    './_base_/models/psp_r18v1c.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/adamw_camvid.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(240, 320)),
    backbone=dict(init_cfg=None),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
default_hooks = dict(checkpoint=dict(interval=500))
