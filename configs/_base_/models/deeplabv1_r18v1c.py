# DeepLabV1's head (LargeFOV, arXiv:1412.7062) on ResNet-18 V1c with output stride 8, the heads a quarter as wide.
_base_ = './psp_r18v1c.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='LargeFOVHead',
        in_index=3,
        dilation=12,
        channels=256,
        dropout_ratio=0.5,
        num_classes=19,
        norm_cfg={{_base_.norm_cfg}},
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
