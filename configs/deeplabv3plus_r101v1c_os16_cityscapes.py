# DeepLabV3+, ResNet-101 V1c with output stride 16 and multi-grid, Cityscapes: mmseg's
# deeplabv3plus_r101-d16-mg124_4xb2-80k_cityscapes-512x1024 (mIoU 79.9 there).
_base_ = './deeplabv3plus_r101v1c_cityscapes.py'
model = dict(
    # With `output_stride`, multi_grid would multiply the last stage's dilation; mmseg's replaces it.
    backbone=dict(output_stride=None, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(1, 2, 4)),
    decode_head=dict(dilations=(1, 6, 12, 18), sampler=dict(type='OHEMPixelSampler', min_kept=100000)),
)
