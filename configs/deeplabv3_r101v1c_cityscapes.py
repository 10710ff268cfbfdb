# DeepLabV3, ResNet-101 V1c, Cityscapes: mmseg's deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024 (mIoU 80.2 there).
_base_ = './deeplabv3_r50v1c_cityscapes.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')))
