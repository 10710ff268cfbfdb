"""The two independent ResNeSts, narrow, and their weights under our keys."""

import torch
from resnest.torch import resnet as official
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from tests.reference.weights import randomise

DEPTHS = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    269: (3, 30, 48, 8),
}


class OfficialResNeSt(official.ResNet):
    """The official network with stages ``narrow`` times narrower, for its features."""

    def __init__(self, depth: int, narrow: int = 8, stem_channels: int = 16, **kwargs):
        self.narrow = narrow
        super().__init__(
            official.Bottleneck,
            DEPTHS[depth],
            deep_stem=True,
            stem_width=stem_channels // 2,
            avg_down=True,
            avd=True,
            **kwargs,
        )
        del self.fc

    def _make_layer(self, block: type, planes: int, *args, **kwargs) -> nn.Module:
        return super()._make_layer(block, planes // self.narrow, *args, **kwargs)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return [x := layer(x) for layer in (self.layer1, self.layer2, self.layer3, self.layer4)]


class TimmResNeSt(TimmResNet):
    """timm's network with stages ``narrow`` times narrower, for its features."""

    def __init__(self, depth: int, narrow: int = 8, stem_channels: int = 16, **block_args):
        super().__init__(
            block=ResNestBottleneck,
            layers=list(DEPTHS[depth]),
            stem_type='deep',
            stem_width=stem_channels // 2,
            avg_down=True,
            base_width=block_args.pop('base_width', 64),
            cardinality=block_args.pop('cardinality', 1),
            channels=[channels // narrow for channels in (64, 128, 256, 512)],
            num_classes=0,
            block_args=dict(avd=True, **block_args),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        return [x := layer(x) for layer in (self.layer1, self.layer2, self.layer3, self.layer4)]


def random_network(net: nn.Module) -> nn.Module:
    """Randomise a ResNeSt such that the sum of many blocks neither explodes nor hides one of them."""
    last_norms = [layer for name, layer in randomise(net).named_modules() if name.endswith('.bn3')]
    for layer in last_norms:
        nn.init.uniform_(layer.weight, 0, min(1, 16 / len(last_norms)))
    return net


def under_our_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the stem, the only part with other names; for the official code and for timm."""
    renamed = {}
    for key, value in state_dict.items():
        if key.startswith('conv1.'):
            key = key.replace('conv1.', 'stem.', 1)
        elif key.startswith('bn1.'):
            key = key.replace('bn1.', 'stem.7.', 1)
        renamed[key] = value
    return renamed


def worst_error(results: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference of all stages, each over its largest expected magnitude."""
    assert [r.shape for r in results] == [e.shape for e in expected]
    return max(((r - e).abs().max() / e.abs().max()).item() for r, e in zip(results, expected, strict=True))


def assert_alive(features: list[Tensor]) -> None:
    """Fail where a comparison would be empty: features that vanish, explode or don't vary."""
    for feature in features:
        assert 1e-2 < feature.std() < 1e3
        assert torch.isfinite(feature).all()
