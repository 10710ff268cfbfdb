# DeepLabV3, ResNet-101 V1c, CamVid at 360x480, backbone pretrained on ImageNet.
_base_ = './deeplabv3_r50v1c_camvid.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')))
