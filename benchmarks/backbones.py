"""Compare our backbones with mmseg's and the official ResNeSt's at output stride 8.

    python -m benchmarks.backbones [--only resnest50] [--size 512] [--repeats 5] [--threads 2] [--precision bf16]

Forward pass (evaluation mode, no gradients) and training step (forward and backward pass of a mean square), all on the
same weights. Each form of ours stands beside its reference. The training step leaves the batch normalisation inside of
the attention in evaluation mode, because the references can't train it with a batch of one.
"""

import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from mmseg.models import backbones as mmseg_backbones
from torch import Tensor, nn

from benchmarks.options import parser
from mmseg_ext.engine.measure import peak_memory, print_table, time_alternating
from mmseg_ext.models import backbones

_DILATED = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


class OfficialResNeSt(nn.Module):
    """The official package's network without its classifier."""

    def __init__(self, depth: int):
        super().__init__()
        from resnest.torch import resnest

        net = getattr(resnest, f'resnest{depth}')(dilated=True)
        self.stem = nn.Sequential(*net.conv1, net.bn1, net.relu)
        self.maxpool = net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = [self.maxpool(self.stem(x))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            outs.append(layer(outs[-1]))
        return tuple(outs[1:])


def resnest(depth: int) -> dict[str, tuple[nn.Module, str]]:
    """Return the sides of a comparison; each with the name of the side whose outputs it must give."""
    arguments = dict(depth=depth, stem_channels=64 if depth == 50 else 128, **_DILATED)
    return {
        'mmseg_ext': (backbones.ResNeSt(**arguments), 'mmseg'),
        'mmseg': (mmseg_backbones.ResNeSt(**arguments), 'mmseg'),
        'mmseg_ext, official form': (backbones.ResNeSt(dilated_form='official', **arguments), 'official'),
        'official': (OfficialResNeSt(depth), 'official'),
    }


def resnet(depth: int) -> dict[str, tuple[nn.Module, str]]:
    """Return the sides of a comparison; each with the name of the side whose outputs it must give."""
    arguments = dict(depth=depth, **_DILATED)
    return {
        'mmseg_ext': (backbones.ResNetV1c(**arguments), 'mmseg'),
        'mmseg': (mmseg_backbones.ResNetV1c(**arguments), 'mmseg'),
    }


COMPARISONS: dict[str, Callable[[], dict]] = {
    'resnest50': partial(resnest, 50),
    'resnest101': partial(resnest, 101),
    'resnet101': partial(resnet, 101),
}


def compare(name: str, options) -> dict[str, dict]:
    """Measure one comparison; returns the figures of each side, those of the phases 'forward' and 'step' apart."""
    device = torch.device(options.device)
    sides = COMPARISONS[name]()
    first, _ = next(iter(sides.values()))
    # zero-initialised residuals would hide every block from the comparison of the outputs.
    for layer in first.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.2, 0.6)
    image = torch.randn(options.batch, 3, options.size, options.size, device=device)
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=options.precision == 'bf16')
    forwards, steps = {}, {}
    for side, (net, _) in sides.items():
        net.load_state_dict(first.state_dict())
        net.to(device)
        forwards[side] = partial(forward, net, image, autocast)
        steps[side] = partial(train_step, net, image, autocast)

    outputs = {side: run()[-1].float() for side, run in forwards.items()}
    forward_times = time_alternating(forwards, options.repeats, device, options.clock)
    step_times = time_alternating(steps, options.repeats, device, options.clock)
    memory = {}
    for side, (net, _) in sides.items():
        net.zero_grad(set_to_none=True)
        memory[side] = peak_memory(steps[side], device)
        net.zero_grad(set_to_none=True)
    figures = {}
    for side, (_, reference) in sides.items():
        difference = (outputs[side] - outputs[reference]).abs().max() / outputs[reference].abs().max()
        figures[side] = dict(
            forward=asdict(forward_times[side]),
            step=dict(asdict(step_times[side]), bytes=memory[side]),
            difference=difference.item() if side != reference else None,
        )
    return figures


def table_rows(name: str, figures: dict[str, dict]) -> list[list[str]]:
    """Return a row for each side."""
    rows = []
    for side, of in figures.items():
        rows.append([f'{name}: {side}'])
        for phase in (of['forward'], of['step']):
            rows[-1] += [f'{phase["seconds"] * 1e3:.0f}', f'{phase["best"] * 1e3:.0f}', f'{phase["ratio"]:.3f}']
        rows[-1] += [
            f'{of["step"]["bytes"] / 2**20:.1f}',
            '' if of['difference'] is None else f'{of["difference"]:.1e}',
        ]
    return rows


@torch.no_grad()
def forward(net: nn.Module, image: Tensor, autocast: Callable) -> tuple[Tensor, ...]:
    """Run a network for its features."""
    net.eval()
    with autocast():
        return net(image)


def train_step(net: nn.Module, image: Tensor, autocast: Callable) -> None:
    """Compute every gradient of a mean square of the features."""
    net.train()
    for name, layer in net.named_modules():
        if name.endswith('conv2.bn1'):
            layer.eval()
    net.zero_grad(set_to_none=True)
    with autocast():
        loss = net(image)[-1].float().square().mean()
    loss.backward()


def main() -> None:
    options = parser('Compare backbones at output stride 8.', list(COMPARISONS), size=512, repeats=5).parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [row for name in options.only or COMPARISONS for row in table_rows(name, compare(name, options))]
    header = ['', 'forward ms', 'best', 'ratio', 'step ms', 'best', 'ratio', 'step MiB', 'difference']
    print(
        f'{options.batch}x3x{options.size}x{options.size}, {options.precision}, {options.device}, '
        f'{options.threads} threads, {options.clock} clock, torch {torch.__version__}. ms: median; ratio: over the '
        "first row of a network (above 1: slower than ours); MiB: a training step's peak; difference: of the last "
        'features from the reference, over its largest'
    )
    print_table(header, rows)


if __name__ == '__main__':
    main()
