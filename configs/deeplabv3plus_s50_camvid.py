# DeepLabV3+, ResNeSt-50, CamVid at 360x480, backbone pretrained on ImageNet.
_base_ = './deeplabv3plus_r50v1c_camvid.py'
model = dict(backbone=dict(type='ResNeSt', init_cfg=dict(checkpoint='open-mmlab://resnest50')))
