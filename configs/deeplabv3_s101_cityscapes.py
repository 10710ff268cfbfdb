# DeepLabV3, ResNeSt-101, Cityscapes: mmseg's resnest_s101-d8_deeplabv3_4xb2-80k_cityscapes-512x1024 (mIoU 79.67 there).
_base_ = './deeplabv3_r50v1c_cityscapes.py'
model = dict(
    backbone=dict(type='ResNeSt', depth=101, stem_channels=128, init_cfg=dict(checkpoint='open-mmlab://resnest101'))
)
