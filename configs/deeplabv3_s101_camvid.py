# DeepLabV3, ResNeSt-101, output stride 8, CamVid at 360x480, from random weights.
_base_ = './deeplabv3_r50v1c_camvid.py'
model = dict(backbone=dict(type='ResNeSt', depth=101, stem_channels=128, dilated_form='exact'))
