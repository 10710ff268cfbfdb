# DeepLabV3's head (arXiv:1706.05587, section 3.3) on VGG-16 with output stride 8; without VGG's last pooling, so that
# the stride can be 16, too.
_base_ = './vgg16.py'
model = dict(
    backbone=dict(with_last_pool=False),
    decode_head=dict(type='ASPPHead', dilations=(1, 6, 12, 18), channels=256, dropout_ratio=0.1),
)
