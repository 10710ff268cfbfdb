# DeepLabV3, ResNet-50 V1c, Cityscapes: mmseg's deeplabv3_r50-d8_4xb2-80k_cityscapes-512x1024 (mIoU 79.32 there).
_base_ = [
    './_base_/models/deeplabv3_r50v1c.py',
    './_base_/datasets/cityscapes.py',
    './_base_/schedules/sgd_80k.py',
    './_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
