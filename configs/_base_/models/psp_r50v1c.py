# PSPNet on ResNet-50 V1c with output stride 8 (arXiv:1612.01105).
_base_ = './r50v1c.py'
model = dict(decode_head=dict(type='PSPHead', pool_scales=(1, 2, 3, 6)))
