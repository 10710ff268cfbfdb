# UPerNet, ResNet-50 V1c, Cityscapes: mmseg's upernet_r50_4xb2-80k_cityscapes-512x1024 (mIoU 78.19 there).
_base_ = [
    './_base_/models/upernet_r50.py',
    './_base_/datasets/cityscapes.py',
    './_base_/schedules/sgd_80k.py',
    './_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
