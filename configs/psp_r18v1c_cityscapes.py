# PSPNet, ResNet-18 V1c, Cityscapes: mmseg's pspnet_r18-d8_4xb2-80k_cityscapes-512x1024 (mIoU 74.87 there).
_base_ = [
    './_base_/models/psp_r18v1c.py',
    './_base_/datasets/cityscapes.py',
    './_base_/schedules/sgd_80k.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    # mmseg's network, whose output stride stays: it does not dilate the second convolutions of the blocks.
    backbone=dict(output_stride=None, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True),
)
