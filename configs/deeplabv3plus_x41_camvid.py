# DeepLabV3+, Aligned Xception-41, output stride 16, CamVid at 360x480, from random weights.
_base_ = './deeplabv3plus_x65_camvid.py'
model = dict(backbone=dict(depth=41))
