# DeepLabV3, ResNet-50 V1c with output stride 16, as the paper trains it, Cityscapes; otherwise mmseg's recipe.
_base_ = './deeplabv3_r50v1c_cityscapes.py'
model = dict(backbone=dict(output_stride=16), decode_head=dict(dilations=(1, 6, 12, 18)))
