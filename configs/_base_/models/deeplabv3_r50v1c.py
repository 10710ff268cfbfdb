# DeepLabV3 on ResNet-50 V1c with output stride 8 (arXiv:1706.05587).
_base_ = './r50v1c.py'
model = dict(decode_head=dict(type='ASPPHead', dilations=(1, 12, 24, 36)))
