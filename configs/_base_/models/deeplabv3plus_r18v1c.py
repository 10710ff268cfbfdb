# DeepLabV3+ in mmseg's form on ResNet-18 V1c with output stride 8, the heads a quarter as wide.
_base_ = './deeplabv3plus_r50v1c.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='open-mmlab://resnet18_v1c')),
    decode_head=dict(channels=128, c1_channels=12),
    auxiliary_head=dict(channels=64),
)
