# DeepLabV3, ResNet-18 V1c, output stride 16, CamVid at 360x480, from random weights.
_base_ = './deeplabv3_r18v1c_camvid.py'
model = dict(backbone=dict(output_stride=16), decode_head=dict(dilations=(1, 3, 6, 9)))
