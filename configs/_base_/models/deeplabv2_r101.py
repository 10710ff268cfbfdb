# DeepLabV2 on ResNet-101 with output stride 8: four 3x3 convolutions to the classes, their scores summed
# (arXiv:1606.00915, section 3.2).
_base_ = './r50v1c.py'
model = dict(
    backbone=dict(type='ResNet', depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')),
    decode_head=dict(
        _delete_=True,
        type='DeepLabV2Head',
        in_index=3,
        dilations=(6, 12, 18, 24),
        num_classes=19,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=None,
)
