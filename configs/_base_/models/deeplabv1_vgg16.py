# DeepLabV1 (LargeFOV) on VGG-16 with output stride 8: fc6 a 3x3 convolution with rate 12 (arXiv:1412.7062).
_base_ = './vgg16.py'
model = dict(decode_head=dict(type='LargeFOVHead', dilation=12, channels=1024, dropout_ratio=0.5))
