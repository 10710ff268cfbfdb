# DeepLabV3+ in the paper's form on Aligned Xception-65 (arXiv:1802.02611, sections 3.2 and 4.3): separable
# convolutions, output stride 16, no auxiliary head.
_base_ = './r50v1c.py'
model = dict(
    # What the weights were trained with, by timm's account.
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        type='AlignedXception',
        depth=65,
        output_stride=16,
        init_cfg=dict(
            checkpoint='https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/'
            'tf_xception_65-c9ae96e8.pth'
        ),
    ),
    decode_head=dict(type='DeepLabV3PlusHead', channels=256, dilations=(1, 6, 12, 18), separable=True),
    auxiliary_head=None,
)
