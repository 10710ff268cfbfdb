# DeepLabV3+, ResNet-18 V1c, output stride 8 (the stride of V1, V2 and V3), CamVid at 360x480, from random weights.
_base_ = './deeplabv3plus_r18v1c_camvid.py'
model = dict(backbone=dict(output_stride=8), decode_head=dict(dilations=(1, 6, 12, 18)))
