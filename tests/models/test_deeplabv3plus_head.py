import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate
from torchvision.models.segmentation.deeplabv3 import ASPP

from mmseg_ext.models.decode_heads import DeepLabV3PlusHead
from tests.models.head_parity import convolve_every_level_at_its_own_size, random_features, training_step
from tests.reference.weights import randomise

ARGUMENTS = dict(
    in_channels=16, in_index=2, low_level_in_channels=6, low_level_index=1, channels=8, low_level_channels=5,
    num_classes=4, norm_cfg=dict(type='BN'), dilations=(1, 2, 3), dropout_ratio=0,
)  # fmt: skip
SHAPES = [(2, 3, 40, 52), (2, 6, 20, 26), (2, 16, 5, 7)]


def conv(in_channels: int, channels: int, size: int, **kwargs) -> list[nn.Module]:
    layer = nn.Conv2d(in_channels, channels, size, padding=kwargs.pop('padding', size // 2), bias=False, **kwargs)
    return [layer, nn.BatchNorm2d(channels), nn.ReLU()]


def conv3x3(in_channels: int, channels: int, separable: bool, dilation: int = 1) -> list[nn.Module]:
    spread = dict(padding=dilation, dilation=dilation)
    if not separable:
        return conv(in_channels, channels, 3, **spread)
    return [*conv(in_channels, in_channels, 3, groups=in_channels, **spread), *conv(in_channels, channels, 1)]


class PlainDeepLabV3Plus(nn.Module):
    """Figure 2 of the paper, as it is drawn, around torchvision's pyramid."""

    def __init__(self, separable: bool):
        super().__init__()
        self.aspp = ASPP(16, (2, 3), 8)
        self.aspp.project[3] = nn.Identity()  # torchvision's dropout
        if separable:
            for i, rate in enumerate((2, 3)):
                self.aspp.convs[i + 1] = nn.Sequential(*conv3x3(16, 8, True, rate))
        self.low_level = nn.Sequential(*conv(6, 5, 1))
        self.decoder = nn.Sequential(*conv3x3(13, 8, separable), *conv3x3(8, 8, separable))
        self.classifier = nn.Conv2d(8, 4, 1)

    def forward(self, features: list[torch.Tensor], align_corners: bool) -> torch.Tensor:
        low_level = self.low_level(features[1])
        x = interpolate(self.aspp(features[2]), size=low_level.shape[2:], mode='bilinear', align_corners=align_corners)
        return self.classifier(self.decoder(torch.cat([x, low_level], dim=1)))

    def parts(self) -> list[nn.Module]:
        """In the order of the head's state dict, but for torchvision's pyramid, which has the pooling last."""
        *branches, pool = self.aspp.convs
        return [self.classifier, pool, *branches, self.aspp.project, self.low_level, self.decoder]


def pair(**kwargs) -> tuple[DeepLabV3PlusHead, PlainDeepLabV3Plus]:
    head = randomise(DeepLabV3PlusHead(**{**ARGUMENTS, **kwargs})).double()
    reference = PlainDeepLabV3Plus(head.separable).double()
    with torch.no_grad():
        # The reference's branches are concatenated in another order.
        values = list(head.state_dict().values())
        targets = [value for part in reference.parts() for value in part.state_dict().values()]
        for value, target in zip(values, targets, strict=True):
            target.copy_(value)
        weight = reference.aspp.project[0].weight
        weight.copy_(weight.roll(-8, dims=1))
    return head, reference


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('separable', [False, True])
def test_logits_are_those_of_the_papers_figure(separable, align_corners, monkeypatch):
    convolve_every_level_at_its_own_size(monkeypatch)
    head, reference = pair(separable=separable, align_corners=align_corners)
    features = random_features(*SHAPES, dtype=torch.float64)
    # torchvision's pyramid upsamples one pixel, where align_corners has no effect.
    for training in (False, True):
        logits = head.train(training)(features)
        torch.testing.assert_close(logits, reference.train(training)(features, align_corners), rtol=1e-9, atol=1e-9)


def test_defaults_are_the_papers():
    head = DeepLabV3PlusHead(in_channels=2048, low_level_in_channels=256, num_classes=21, norm_cfg=dict(type='BN'))
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items() if value.ndim == 4}
    assert shapes == {
        'conv_seg.weight': (21, 256, 1, 1),
        'image_pool.1.conv.weight': (256, 2048, 1, 1),
        'aspp_modules.0.conv.weight': (256, 2048, 1, 1),
        'aspp_modules.1.conv.weight': (256, 2048, 3, 3),
        'aspp_modules.2.conv.weight': (256, 2048, 3, 3),
        'aspp_modules.3.conv.weight': (256, 2048, 3, 3),
        'bottleneck.conv.weight': (256, 5 * 256, 1, 1),
        'low_level_projection.conv.weight': (48, 256, 1, 1),
        'decoder.0.conv.weight': (256, 256 + 48, 3, 3),
        'decoder.1.conv.weight': (256, 256, 3, 3),
    }


@pytest.mark.parametrize('kwargs', [{}, dict(separable=True), dict(with_image_pool=False)])
def test_every_parameter_and_feature_gets_a_gradient(kwargs):
    head = DeepLabV3PlusHead(**{**ARGUMENTS, **kwargs}).train()
    results = training_step(head, random_features(*SHAPES), torch.randint(0, 4, (2, 1, 40, 52)))
    assert {'feature 1', 'feature 2'} <= set(results)
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 0, name
