# DeepLabV3, ResNet-101 V1c, output stride 8, CamVid at 360x480, from random weights.
_base_ = './deeplabv3_r50v1c_camvid.py'
model = dict(backbone=dict(depth=101))
