# DeepLabV2 on VGG-16 with output stride 8: four LargeFOV branches, their scores summed (arXiv:1606.00915, section 3.2).
_base_ = './vgg16.py'
model = dict(decode_head=dict(type='DeepLabV2Head', dilations=(6, 12, 18, 24), hidden_channels=1024, dropout_ratio=0.5))
