# DeepLabV3+ in mmseg's form on ResNet-50 V1c with output stride 8 (arXiv:1802.02611).
_base_ = './r50v1c.py'
model = dict(decode_head=dict(type='DepthwiseSeparableASPPHead', dilations=(1, 12, 24, 36), c1_channels=48))
