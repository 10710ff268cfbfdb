# PSPNet, ResNeSt-101, Cityscapes: mmseg's resnest_s101-d8_pspnet_4xb2-80k_cityscapes512x1024 (mIoU 78.57 there).
_base_ = './psp_r50v1c_cityscapes.py'
model = dict(
    backbone=dict(type='ResNeSt', depth=101, stem_channels=128, init_cfg=dict(checkpoint='open-mmlab://resnest101'))
)
