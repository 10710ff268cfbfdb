# UPerNet on ResNet-50 V1c (arXiv:1807.10221), whose features keep their strides 4, 8, 16 and 32.
_base_ = './r50v1c.py'
model = dict(
    backbone=dict(output_stride=32),
    decode_head=dict(type='UPerHead', in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6)),
)
