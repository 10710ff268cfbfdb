"""Compare our decode heads with mmseg's: the same weights, the same inputs, the same outputs.

    python -m benchmarks.heads [--only psp-bottleneck] [--size 512] [--repeats 5] [--threads 2] [--precision bf16]

*Stages* are the convolution over upsampled and concatenated maps that a head consists of, with its normalisation and
activation. *Heads* run on random features, *models* on a random image. Forward pass in evaluation mode without
gradients; training step: forward pass, and the backward pass of a given gradient of the output.
"""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial

import torch
from mmcv.cnn import ConvModule
from mmseg.models import decode_heads as mmseg_heads
from mmseg.models.utils import resize
from torch import Tensor, nn

from benchmarks.options import parser
from mmseg_ext.checkpoints import build_model
from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.measure import count_multiply_adds, peak_memory, print_table, time_alternating
from mmseg_ext.models import decode_heads
from mmseg_ext.models.decode_heads.pyramid_module import PyramidConvModule

NORM = dict(type='BN')
Sides = tuple[nn.Module, nn.Module, list[Tensor]]


class Stage(nn.Module):
    """A convolution over a pyramid, our way or mmseg's."""

    def __init__(self, conv: ConvModule, ours: bool, resize_all: bool):
        super().__init__()
        self.conv, self.ours, self.resize_all = conv, ours, resize_all

    def forward(self, levels: list[Tensor]) -> Tensor:
        if self.ours:
            return self.conv(levels)
        size = levels[0].shape[2:]
        # SegFormer and HRNet resize the first level too, to the size that it has.
        first = 0 if self.resize_all else 1
        maps = [resize(x, size=size, mode='bilinear', align_corners=False) for x in levels[first:]]
        return self.conv(torch.cat([*levels[:first], *maps], dim=1))


def stage(channels, strides, out_channels, kernel_size, options, resize_all=False, bins=()) -> Sides:
    """Two sides with levels of ``size / stride`` and, behind them, of the pooling bins' sizes."""
    convs = [
        kind(sum(channels), out_channels, kernel_size, padding=kernel_size // 2, norm_cfg=NORM)
        for kind in (PyramidConvModule, ConvModule)
    ]
    sides = [options.size // stride for stride in strides] + list(bins)
    levels = [torch.randn(options.batch, c, side, side) for c, side in zip(channels, sides, strict=True)]
    return Stage(convs[0], True, resize_all), Stage(convs[1], False, resize_all), levels


def head(name: str, widths, strides, /, options, **kwargs) -> Sides:
    """Our head and mmseg's on features of ``size / stride``."""
    features = [
        torch.randn(options.batch, c, options.size // stride, options.size // stride)
        for c, stride in zip(widths, strides, strict=True)
    ]
    arguments = dict(num_classes=19, dropout_ratio=0, norm_cfg=NORM) | kwargs
    return getattr(decode_heads, name)(**arguments), getattr(mmseg_heads, name)(**arguments), features


class Logits(nn.Module):
    """A segmentor's forward pass."""

    def __init__(self, segmentor: nn.Module):
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: list[Tensor]) -> Tensor:
        return self.segmentor(images[0])


def model(config: str, options) -> Sides:
    """A config that mmseg ships, with and without the one-line upgrade."""
    sides = []
    for upgrade in (True, False):
        cfg = load_config(f'mmseg::{config}', {'model.pretrained': None}, upgrade=upgrade)
        cfg.model.decode_head.dropout_ratio = 0
        sides.append(Logits(build_model(cfg.model, cfg.default_scope)))
    return *sides, [torch.randn(options.batch, 3, options.size, options.size)]


R50, D8, PYRAMID = (256, 512, 1024, 2048), (4, 8, 8, 8), (4, 8, 16, 32)
ALL = dict(in_index=[0, 1, 2, 3])
COMPARISONS: dict[str, Callable] = {
    'psp-bottleneck': partial(stage, (2048, 512, 512, 512, 512), (8,), 512, 3, bins=(1, 2, 3, 6)),
    'uper-fpn-bottleneck': partial(stage, (512,) * 4, PYRAMID, 512, 3),
    'segformer-fusion': partial(stage, (256,) * 4, PYRAMID, 256, 1, resize_all=True),
    'hrnet-w48-fcn': partial(stage, (48, 96, 192, 384), PYRAMID, 720, 1, resize_all=True),
    'aspp-bottleneck': partial(stage, (512,) * 5, (8,) * 4, 512, 3, bins=(1,)),
    'deeplabv3plus-decoder': partial(stage, (48, 256), (4, 16), 256, 3),
    'PSPHead': partial(head, 'PSPHead', R50, D8, in_channels=2048, channels=512),
    'ASPPHead': partial(head, 'ASPPHead', R50, D8, in_channels=2048, channels=512, dilations=(1, 12, 24, 36)),
    'DepthwiseSeparableASPPHead': partial(
        head, 'DepthwiseSeparableASPPHead', R50, D8, in_channels=2048, channels=512, dilations=(1, 12, 24, 36),
        c1_in_channels=256, c1_channels=48,
    ),
    'UPerHead': partial(head, 'UPerHead', R50, PYRAMID, in_channels=R50, channels=512, **ALL),
    'SegformerHead': partial(
        head, 'SegformerHead', (64, 128, 320, 512), PYRAMID, in_channels=(64, 128, 320, 512), channels=256, **ALL
    ),
    'FCNHead (HRNet-W48)': partial(
        head, 'FCNHead', (48, 96, 192, 384), PYRAMID, in_channels=(48, 96, 192, 384), channels=720, kernel_size=1,
        num_convs=1, concat_input=False, input_transform='resize_concat', **ALL,
    ),
    'PSPNet-R50-D8': partial(model, 'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'),
    'DeepLabV3+-R50-D8': partial(model, 'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py'),
    'UPerNet-R50': partial(model, 'upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py'),
}  # fmt: skip


def compare(name: str, options) -> dict[str, dict]:
    """Measure one comparison; returns the figures of each side, those of the phases 'forward' and 'step' apart."""
    device = torch.device(options.device)
    autocast = nullcontext
    if options.precision == 'bf16':
        autocast = partial(torch.autocast, device.type, dtype=torch.bfloat16)
    ours, theirs, inputs = COMPARISONS[name](options=options)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    memory_format = torch.channels_last if options.channels_last else torch.contiguous_format
    inputs = [x.to(device, memory_format=memory_format) for x in inputs]
    sides = {
        side: net.to(device, memory_format=memory_format) for side, net in (('mmseg_ext', ours), ('mmseg', theirs))
    }
    forwards = {side: partial(forward, net, inputs, autocast) for side, net in sides.items()}
    outputs = {side: run().float() for side, run in forwards.items()}
    multiply_adds = {side: count_multiply_adds(run) for side, run in forwards.items()}
    forward_times = time_alternating(forwards, options.repeats, device, options.clock)
    forward_memory = {side: peak_memory(run, device) for side, run in forwards.items()}
    # Features are what a backbone has computed; an image needs no gradient.
    if not isinstance(ours, Logits):
        inputs = [x.requires_grad_() for x in inputs]
    grad = torch.randn_like(outputs['mmseg'])
    steps = {side: partial(train_step, net, inputs, grad, autocast) for side, net in sides.items()}
    step_times = time_alternating(steps, max(2, options.repeats // 2), device, options.clock)
    step_memory = {side: peak_memory(run, device) for side, run in steps.items()}
    difference = (outputs['mmseg_ext'] - outputs['mmseg']).abs().max() / outputs['mmseg'].abs().max()
    return {
        side: dict(
            forward=dict(asdict(forward_times[side]), bytes=forward_memory[side]),
            step=dict(asdict(step_times[side]), bytes=step_memory[side]),
            multiply_adds=multiply_adds[side],
            difference=difference.item() if side == 'mmseg_ext' else None,
        )
        for side in sides
    }


def table_rows(name: str, figures: dict[str, dict], rate: float) -> list[list[str]]:
    """Return a row for each side; ``rate`` is what a large matrix product does, in multiply-adds a second."""
    rows = []
    for side, of in figures.items():
        rows.append([f'{name}: {side}'])
        for phase in (of['forward'], of['step']):
            rows[-1] += [f'{phase["seconds"] * 1e3:.0f}', f'{phase["ratio"]:.2f}', f'{phase["bytes"] / 2**20:.0f}']
        share = of['multiply_adds'] / of['forward']['seconds'] / rate
        difference = '' if of['difference'] is None else f'{of["difference"]:.1e}'
        rows[-1] += [f'{of["multiply_adds"] / 1e9:.1f}', f'{100 * share:.0f}', difference]
    return rows


@torch.no_grad()
def forward(net: nn.Module, inputs: list[Tensor], autocast: Callable) -> Tensor:
    """Run a network in evaluation mode."""
    net.eval()
    with autocast():
        return net(inputs)


def train_step(net: nn.Module, inputs: list[Tensor], grad: Tensor, autocast: Callable) -> None:
    """Compute every gradient, given that of the output."""
    net.train()
    # Of a batch of one, normalisation behind a global pool has no variance.
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    net.zero_grad(set_to_none=True)
    for x in inputs:
        x.grad = None
    with autocast():
        out = net(inputs)
    out.backward(grad.to(out.dtype))


def matrix_rate(options) -> float:
    """Multiply-adds a second of a large matrix product, in the precision that is measured."""
    side = 4096
    dtype = torch.bfloat16 if options.precision == 'bf16' else torch.float32
    a, b = (torch.randn(side, side, device=options.device, dtype=dtype) for _ in range(2))
    timing = time_alternating({'mm': lambda: a @ b}, 3, torch.device(options.device), options.clock)
    return side**3 / timing['mm'].best


def main() -> None:
    options = parser('Compare decode heads.', list(COMPARISONS), size=512, repeats=5)
    options.add_argument('--channels-last', action='store_true', help='channels innermost in memory')
    options = options.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rate = matrix_rate(options)
    print(
        f'size {options.size}, batch {options.batch}, {options.precision}, {options.device}, {options.threads} '
        f'threads, {options.clock} clock, torch {torch.__version__}. ms: median; ratio: over mmseg_ext (above 1: '
        "slower than ours); MiB: peak beyond weights and inputs; GMAC: a forward pass's multiply-adds in convolutions "
        f'and matrix products, in 10^9; %: share of the {rate / 1e9:.0f} GMAC/s that a large matrix product reaches '
        'here; difference: of the outputs, over the largest'
    )
    header = ['', 'forward ms', 'ratio', 'MiB', 'step ms', 'ratio', 'MiB', 'GMAC', '%', 'difference']
    names = options.only or COMPARISONS
    print_table(header, [row for name in names for row in table_rows(name, compare(name, options), rate)])


if __name__ == '__main__':
    main()
