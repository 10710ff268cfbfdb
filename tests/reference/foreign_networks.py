"""Small networks with the names, layer order and results of projects that can't be installed.

Written from the facts in their sources: hszhao/semseg, ``model/pspnet.py`` and ``model/resnet.py``;
jfzhang95/pytorch-deeplab-xception, ``modeling/``. Depth 50, narrow, for a stage width of 8 channels.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 8
DEPTHS = (3, 4, 6, 3)


def conv(inplanes: int, planes: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inplanes, planes, size, stride, dilation * (size // 2), dilation, bias=False)


class Block(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, shortcut: bool):
        super().__init__()
        self.conv1, self.bn1 = conv(inplanes, planes, 1), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3, stride, dilation), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = conv(planes, 4 * planes, 1), nn.BatchNorm2d(4 * planes)
        if shortcut:
            self.downsample = nn.Sequential(conv(inplanes, 4 * planes, 1, stride), nn.BatchNorm2d(4 * planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (self.downsample(x) if hasattr(self, 'downsample') else x))


def stages(stem_channels: int, strides: tuple[int, ...], dilations: list[tuple[int, ...]]) -> list[nn.Sequential]:
    """Four stages of bottlenecks; ``dilations`` has one value for each block."""
    result, inplanes = [], stem_channels
    for i, depth in enumerate(DEPTHS):
        planes = WIDTH * 2**i
        blocks = []
        for j in range(depth):
            blocks.append(Block(inplanes, planes, strides[i] if j == 0 else 1, dilations[i][j], shortcut=j == 0))
            inplanes = 4 * planes
        result.append(nn.Sequential(*blocks))
    return result


class SemsegResNet(nn.Module):
    """hszhao/semseg's ImageNet network: three convolutions in front, with names of their own."""

    def __init__(self, num_classes: int = 5):
        super().__init__()
        self.conv1, self.bn1 = conv(3, WIDTH, 3, 2), nn.BatchNorm2d(WIDTH)
        self.conv2, self.bn2 = conv(WIDTH, WIDTH, 3), nn.BatchNorm2d(WIDTH)
        self.conv3, self.bn3 = conv(WIDTH, 2 * WIDTH, 3), nn.BatchNorm2d(2 * WIDTH)
        for i, stage in enumerate(stages(2 * WIDTH, (1, 2, 2, 2), [(1,) * depth for depth in DEPTHS])):
            setattr(self, f'layer{i + 1}', stage)
        self.fc = nn.Linear(32 * WIDTH, num_classes)

    def features(self, x: Tensor) -> Tensor:
        for i in (1, 2, 3):
            x = F.relu(getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class PyramidPooling(nn.Module):
    def __init__(self, channels: int, bins: tuple[int, ...]):
        super().__init__()
        reduced = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), conv(channels, reduced, 1), nn.BatchNorm2d(reduced), nn.ReLU())
            for size in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        levels = [F.interpolate(level(x), x.shape[2:], mode='bilinear', align_corners=True) for level in self.features]
        return torch.cat([x, *levels], 1)


class SemsegPSPNet(nn.Module):
    """hszhao/semseg's PSPNet; all blocks of the last two stages are dilated, by 2 and 4."""

    def __init__(self, num_classes: int = 5):
        super().__init__()
        trunk = SemsegResNet()
        relu, pool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.layer0 = nn.Sequential(
            trunk.conv1, trunk.bn1, relu, trunk.conv2, trunk.bn2, relu, trunk.conv3, trunk.bn3, relu, pool
        )
        dilations = [(dilation,) * depth for dilation, depth in zip((1, 1, 2, 4), DEPTHS, strict=True)]
        for i, stage in enumerate(stages(2 * WIDTH, (1, 2, 1, 1), dilations)):
            setattr(self, f'layer{i + 1}', stage)
        channels = 32 * WIDTH
        self.ppm = PyramidPooling(channels, (1, 2, 3, 6))
        self.cls = self._head(2 * channels, channels // 4, num_classes)
        self.aux = self._head(channels // 2, 12, num_classes)

    @staticmethod
    def _head(inplanes: int, planes: int, num_classes: int) -> nn.Sequential:
        return nn.Sequential(
            conv(inplanes, planes, 3), nn.BatchNorm2d(planes), nn.ReLU(), nn.Dropout2d(0.1),
            nn.Conv2d(planes, num_classes, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        return self.cls(self.ppm(self.layer4(x))), self.aux(x)


class DeepLabTrunk(nn.Module):
    """jfzhang95's ResNet at output stride 16: the dilation of the last stage is multiplied by 1, 2, 4."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 2 * WIDTH, 7, 2), nn.BatchNorm2d(2 * WIDTH)
        dilations = [(1,) * depth for depth in DEPTHS[:3]] + [(2, 4, 8)]
        for i, stage in enumerate(stages(2 * WIDTH, (1, 2, 2, 1), dilations)):
            setattr(self, f'layer{i + 1}', stage)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class DeepLab(nn.Module):
    """jfzhang95's DeepLabV3+; only the backbone computes, the rest has its keys."""

    def __init__(self, num_classes: int = 5):
        super().__init__()

        def branch(size: int) -> nn.Sequential:
            return nn.Sequential(OrderedDict(atrous_conv=conv(32 * WIDTH, 6, size), bn=nn.BatchNorm2d(6)))

        self.backbone = DeepLabTrunk()
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(32 * WIDTH, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.aspp = nn.ModuleDict({f'aspp{i + 1}': branch(size) for i, size in enumerate((1, 3, 3, 3))})
        self.aspp.update(dict(global_avg_pool=pool, conv1=conv(30, 6, 1), bn1=nn.BatchNorm2d(6)))
        last = [conv(10, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU()]
        self.decoder = nn.ModuleDict(
            dict(
                conv1=conv(4 * WIDTH, 4, 1),
                bn1=nn.BatchNorm2d(4),
                last_conv=nn.Sequential(*last, nn.Conv2d(6, num_classes, 1)),
            )
        )
