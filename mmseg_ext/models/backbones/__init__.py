from .resnest import ResNeSt
from .resnet import ResNet, ResNetV1c, ResNetV1d
from .vgg import VGG16
from .xception import AlignedXception

__all__ = ['VGG16', 'AlignedXception', 'ResNeSt', 'ResNet', 'ResNetV1c', 'ResNetV1d']
