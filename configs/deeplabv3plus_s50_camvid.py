# DeepLabV3+, ResNeSt-50, output stride 16, CamVid at 360x480, from random weights.
_base_ = './deeplabv3plus_r50v1c_camvid.py'
model = dict(backbone=dict(type='ResNeSt'))
