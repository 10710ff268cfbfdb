# DeepLabV3+ in the paper's form (arXiv:1802.02611, section 3.1) on VGG-16 with output stride 16; the low-level features
# are those with stride 4.
_base_ = './deeplabv3_vgg16.py'
model = dict(
    backbone=dict(output_stride=16),
    decode_head=dict(type='DeepLabV3PlusHead', low_level_index=1),
)
