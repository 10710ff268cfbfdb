# DeepLabV2's head in its form for ResNet (arXiv:1606.00915, section 3.2) on ResNet-18 V1c with output stride 8.
_base_ = './psp_r18v1c.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='DeepLabV2Head',
        in_index=3,
        dilations=(6, 12, 18, 24),
        num_classes=19,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
