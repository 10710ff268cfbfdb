# DeepLabV2, ResNet-101, multi-scale input (0.5, 0.75, 1) with max fusion, output stride 8, CamVid at
# 360x480, from random weights.
_base_ = './deeplabv2_r101_camvid.py'
model = dict(type='MultiScaleEncoderDecoder', scales=(0.5, 0.75, 1.0))
